"""The job that trains and evaluates many runs on one data set, and compares them.

```text
OUT/
  compare.yaml                 the settings of the comparison
  results.csv                  one row per run: metrics under each protocol, seconds per step, parameters, error
  table.csv                    one row per choice: mean and deviation over the seeds, intervals, p-values
  report.html                  everything in one page
  runs/<choices>/seed<n>/      the folder of each training, with scores.json, counts.safetensors, map_<i>.png
  banks/                       the image banks, each shared by all runs with the same settings of the bank
  tiles/                       the tiles whose maps are shown, and their masks
```
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from PIL import Image

from napari_pbip.bank import LabelledTile, TileSet, load_single_tiles, load_tiles
from napari_pbip.bank.bank_folder import FACTS as BANK
from napari_pbip.claims import claims
from napari_pbip.config import CompareSettings, JobSettings, PlannedRun, planned_runs
from napari_pbip.engine.banks.build_bank import build_bank
from napari_pbip.engine.cluster.connect import Scheduler, connected
from napari_pbip.engine.cluster.jobs import Ended, Outcome, in_turn, on_workers
from napari_pbip.engine.cluster.workers import Cluster, require_seen
from napari_pbip.engine.device import choose_device
from napari_pbip.engine.inference.evaluate import evaluate, predict_labels
from napari_pbip.engine.inference.predict import Predictor
from napari_pbip.engine.jobs import job, phase
from napari_pbip.engine.run_facts import MARKER as RUN
from napari_pbip.engine.run_facts import RunFacts, as_begun
from napari_pbip.engine.runs import TrainedModel, load_model
from napari_pbip.engine.tile_notes import tile_notes
from napari_pbip.engine.training.requirements import starts_from_bank
from napari_pbip.engine.training.train import train
from napari_pbip.errors import ConfigError, OutputError, PbipError
from napari_pbip.events import Event, Finished, Job, Noted, RunStep, Started, Step, Warned
from napari_pbip.files import prepare_folder, write_json, write_picture, writing
from napari_pbip.results.comparison import Comparison, RunResult, read_counts, write_results, write_table
from napari_pbip.results.metrics import MEASURES, PROTOCOLS
from napari_pbip.results.report import write_map, write_report
from napari_pbip.taxonomy import Taxonomy

MARKER = "compare.yaml"
REPORT, RESULTS, TABLE = "report.html", "results.csv", "table.csv"
_SCORES, _COUNTS = "scores.json", "counts.safetensors"
_CHANGES_NOTHING: dict[str, Any] = {"segment": True, "thresholds": True, "scheduler": True, "train": {"device"}}
"""Settings that may change without scoring a run again."""


@job
@claims("out", "comparing")
def compare(values: Mapping[str, Any], out: Path | str, *, overwrite: bool = False) -> Job:
    """Train and evaluate every run of a comparison; a run that fails is reported and does not stop the others.

    With a ``scheduler`` in the settings, its workers make the runs, each a whole one.

    The same call resumes a comparison: finished runs are kept, and a training that was stopped is resumed. Tables and
    report are written after every run that was not finished before, and at the end.

    Parameters
    ----------
    values
        Nested plain values of a :class:`~napari_pbip.config.CompareJob`.
    out
        Folder of the comparison.
    overwrite
        Whether an earlier comparison is replaced.

    Yields
    ------
    Event
        ``Started``; a :class:`~napari_pbip.events.RunStep` for steps of a run; ``Warned`` for a run that failed;
        ``Finished`` with ``runs`` (metrics in percent and errors by name) and ``failed``, the number of failed runs.

    Raises
    ------
    ConfigError
        If the settings are invalid, or have no data folder.
    DataError
        If the tiles to be scored cannot be read.
    OutputError
        If ``out`` contains other files, or cannot be written.
    ClusterError
        If the scheduler or its workers cannot be reached or used, or are lost.
    """
    out = Path(out).absolute()
    settings, runs = planned_runs(values)
    data = runs[0].settings.data
    if data.folder is None:
        raise ConfigError("There is nothing to compare on; name the folder of labelled tiles with `data.folder`.")
    tiles = load_tiles(data.folder, settings.split, data)
    _prepare(out, values, overwrite=overwrite)
    shown = _with_most_classes(tiles, settings.pictures)
    _write_tiles(out / "tiles", shown, tiles.taxonomy)
    results: dict[str, RunResult] = {}
    reported: set[str] = set()

    def write() -> None:
        found = [results.get(run.name, RunResult(run.choices, run.seed)) for run in runs]
        comparison = Comparison(tuple(settings.axes), tuple(found))
        write_results(out / RESULTS, comparison)
        write_table(out / TABLE, comparison)
        write_report(
            out / REPORT,
            comparison,
            title=f"Comparison of {', '.join(settings.axes)}",
            where=f"{len(tiles.tiles)} tiles of the split {settings.split} of {tiles.folder.name}",
            taxonomy=tiles.taxonomy,
            pictures=_pictures(out, runs, settings, len(shown)),
            seed=settings.seeds[0],
        )

    yield Started(f"Comparing {', '.join(settings.axes)}", total=len(runs), unit="runs")
    for said in tile_notes(tiles):
        reported.add(said.message)
        yield said
    items = [(run, _was_done(out, run)) for run in runs]
    ended = 0
    with connected(runs[0].settings.scheduler) as cluster:
        make = partial(_run, settings.split, out, shown)
        if cluster is None:
            outcomes: Generator[Outcome | None, None, None] = in_turn(make, items)
        else:
            yield from _shared_banks([run for run, was_done in items if not was_done], out, cluster)
            outcomes = on_workers(cluster, make, items)
        with closing(outcomes):
            for outcome in outcomes:
                if outcome is None:
                    yield Step(ended)
                    continue
                number, event = outcome
                run, was_done = items[number]
                match event:
                    case Step():
                        yield RunStep(ended, event.values, run=run.name)
                    case Warned() if event.message not in reported:
                        reported.add(event.message)  # most runs have the same notes and warnings
                        yield Warned(f"{run.name}: {event.message}")
                    case Noted() if event.message not in reported:
                        reported.add(event.message)
                        yield event
                    case Ended():
                        ended += 1
                        if event.error:
                            yield Warned(f"{run.name} failed: {event.error}")
                        results[run.name] = _result(out, run, event.error)
                        if not was_done or ended == len(runs):
                            write()
                        yield RunStep(ended, _figures(results[run.name]), run=run.name, finished=True)
    failed = {name: result.error for name, result in results.items() if result.error}
    summary = {
        "runs": {run.name: {**_figures(results[run.name]), "error": results[run.name].error} for run in runs},
        "failed": len(failed),
        "report": str(out / REPORT),
    }
    yield Finished(out, summary)


def _prepare(out: Path, values: Mapping[str, Any], *, overwrite: bool) -> None:
    """Create the folder, or check that it is of a comparison, and write the settings."""
    if overwrite or not (out / MARKER).exists():
        prepare_folder(out, MARKER, overwrite=overwrite)
    plain = json.loads(json.dumps(values, default=str))
    with writing(out / MARKER) as temporary:
        temporary.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")


def _was_done(out: Path, run: PlannedRun) -> bool:
    try:
        return _is_done(out / "runs" / run.folder, run.settings)
    except PbipError:  # which the run itself reports
        return False


def _result(out: Path, run: PlannedRun, error: str) -> RunResult:
    folder = out / "runs" / run.folder
    scores, counts = (None, {}) if error else (_read_scores(folder), read_counts(folder / _COUNTS))
    return RunResult(run.choices, run.seed, scores, error, counts)


def _shared_banks(runs: Sequence[PlannedRun], out: Path, cluster: Cluster) -> Generator[Event, None, None]:
    """Build the banks of runs before workers share them."""
    for run in runs:
        if starts_from_bank(run.settings) and run.settings.bank_folder is None:
            with suppress(PbipError):  # the run itself reports it
                yield from _shared_bank(run.settings, out / "banks", cluster.client)


def _run(split: str, out: Path, shown: Sequence[LabelledTile], item: tuple[PlannedRun, bool], _begun: bool) -> Job:
    """Train and evaluate one run, unless that was done before; one that was begun is resumed in any case."""
    run, was_done = item
    if was_done:
        return
    if run.settings.data.folder is not None:
        require_seen(out, run.settings.data.folder)
    folder = out / "runs" / run.folder
    _is_done(folder, run.settings)  # raises if what is there is damaged
    settings = run.settings
    if starts_from_bank(settings) and settings.bank_folder is None:
        bank = yield from _shared_bank(settings, out / "banks")
        settings = settings.model_copy(update={"bank_folder": bank})
    seconds: list[float] = []
    before: float | None = None
    # a run that failed before its first step may be started again with other settings
    begun = (folder / RUN).exists() and RunFacts.read(folder).step > 0
    with closing(train(settings, folder, resume=begun, overwrite=not begun)) as training:
        for event in training:
            now = time.monotonic()
            stepped = isinstance(event, Step) and "loss" in event.values
            if stepped and before is not None:
                seconds.append(now - before)
            before = now if stepped else None  # only training steps are timed, not validations and saves
            yield event
    device, refine = settings.train.device, settings.refine
    thresholds = settings.thresholds
    summary = yield from phase(
        evaluate(
            folder, settings.data, split, device=device, refine=refine, thresholds=thresholds, counts=folder / _COUNTS
        )
    )
    model = load_model(folder, "best", choose_device(device))
    _write_maps(folder, model, shown, run.settings)
    facts = {
        "choices": run.choices,
        "seed": run.seed,
        "settings": run.settings.model_dump(mode="json"),
        "seconds_per_step": median(seconds) if seconds else model.facts.seconds / model.facts.step,
        "parameters": sum(p.numel() for p in model.method.parameters() if p.requires_grad),
    }
    write_json(folder / _SCORES, {**summary, **facts})


def _shared_bank(settings: JobSettings, banks: Path, scheduler: Scheduler = None) -> Generator[Event, None, Path]:
    """Return the bank for all runs with the same data and bank settings, building it if it does not exist."""
    made_of = json.dumps([part.model_dump(mode="json") for part in (settings.data, settings.bank)])
    bank = banks / f"{settings.bank.encoder}-{hashlib.sha256(made_of.encode()).hexdigest()[:8]}"
    if not (bank / BANK).exists():
        assert settings.data.folder is not None
        tiles = load_single_tiles(settings.data.folder, settings.data)
        device = settings.train.device
        building = build_bank(
            tiles, bank, settings.bank, settings.data, device=device, update=True, scheduler=scheduler
        )
        yield from phase(building)
    return bank


def _is_done(folder: Path, settings: JobSettings) -> bool:
    """Return whether the run has metrics for these settings."""
    if not (folder / _SCORES).exists():
        return False
    before = JobSettings.parse(_read_scores(folder)["settings"])
    settings = as_begun(settings, before)
    kept, now = (one.model_dump(mode="json", exclude=_CHANGES_NOTHING) for one in (before, settings))
    return kept == now


def _read_scores(folder: Path) -> dict[str, Any]:
    try:
        scores: dict[str, Any] = json.loads((folder / _SCORES).read_text(encoding="utf-8"))
    except ValueError as error:
        raise OutputError(f"{folder / _SCORES} is damaged; delete it, and the run is scored again.") from error
    return scores


def _figures(result: RunResult) -> dict[str, float]:
    """Return the metrics by ``protocol/measure``, as a training reports them."""
    found = {
        f"{protocol}/{measure}": result.figure(protocol, measure) for protocol in PROTOCOLS for measure in MEASURES
    }
    return {name: value for name, value in found.items() if value is not None}


# what is shown -----------------------------------------------------------------------------------------------


def _with_most_classes(tiles: TileSet, count: int) -> list[LabelledTile]:
    """Return the tiles with the most classes; of equal ones, the first."""
    return sorted(tiles.tiles, key=lambda tile: -len(tile.labels))[:count]


def _write_tiles(folder: Path, tiles: Sequence[LabelledTile], taxonomy: Taxonomy) -> None:
    for i, tile in enumerate(tiles):
        write_picture(folder / f"tile_{i}.png", Image.fromarray(tile.read()), "PNG")
        write_map(folder / f"truth_{i}.png", tile.read_mask(len(taxonomy)), taxonomy)


def _write_maps(folder: Path, model: TrainedModel, tiles: Sequence[LabelledTile], settings: JobSettings) -> None:
    """Write the maps of the tiles that a model predicts (protocol ``predicted``)."""
    taxonomy, refine = model.facts.taxonomy, settings.refine
    device = choose_device(settings.train.device)
    predictor = Predictor.of_run(model.method, model.facts, device, thresholds=settings.thresholds, tta=refine.tta)
    for i, tile in enumerate(tiles):
        image, truth = tile.read(), tile.read_mask(len(taxonomy))
        (maps,) = predictor.maps([image])
        labels = predict_labels(image, truth, maps, crf=refine.crf)
        write_map(folder / f"map_{i}.png", labels["predicted"], taxonomy)


def _pictures(out: Path, runs: Sequence[PlannedRun], settings: CompareSettings, count: int) -> list[dict[str, Path]]:
    """Return for each tile its picture, its mask, and the map of each choice with the first seed."""
    first = [run for run in runs if run.seed == settings.seeds[0]]

    def of_tile(i: int) -> Iterator[tuple[str, Path]]:
        yield "tile", out / "tiles" / f"tile_{i}.png"
        yield "truth", out / "tiles" / f"truth_{i}.png"
        for run in first:
            yield ", ".join(run.choices), out / "runs" / run.folder / f"map_{i}.png"

    return [dict(of_tile(i)) for i in range(count)]
