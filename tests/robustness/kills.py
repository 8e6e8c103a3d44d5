"""Run every job as a process that is killed and called again, and compare with an uninterrupted one.

``python -m tests.robustness.kills --kills 10`` kills at random moments; ``--kills 50`` is the long form. With
``--renames`` it kills before each renaming of a file in turn: what is written whole or not at all gets its name by one,
so these are all the moments between which what is on disk differs. ``--job`` takes one job.
The processes are forked from a server that has loaded torch, so that the time goes into work. What is compared with an
uninterrupted run is every file: tensors, arrays, pictures and tables. Clocks alone may differ.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from safetensors.torch import load_file

from napari_pbip import samples
from napari_pbip.bank import load_single_tiles
from napari_pbip.config import JobSettings, PretrainSettings, SegmentSettings, ThresholdSettings
from napari_pbip.engine import compare
from napari_pbip.engine.banks import build_bank
from napari_pbip.engine.inference import evaluate, segment
from napari_pbip.engine.outputs import export, write_results
from napari_pbip.engine.training import pretrain, train
from napari_pbip.events import Finished, Job
from napari_pbip.files import write_json
from napari_pbip.results import ScoreStore
from napari_pbip.results.places import stores_in
from tests.data.formats.make import weak_data
from tests.forking import forking

CLOCKS = {"seconds", "seconds_per_step", "made", "scores_made", "labels_made"}
"""Keys and columns that differ between any two runs."""
READING = SegmentSettings(precision="float32", device="cpu", overlap=16, batch_size=2)
THRESHOLDS = ThresholdSettings()


def values(root: Path, **changes: Any) -> dict[str, Any]:
    return {
        "data": {"folder": str(root / "weak"), "mpp": 2.0},
        "bank": {"encoder": "tiny", "k": 2},
        "method": {"name": "cam"},
        "train": {"steps": 6, "batch_size": 8, "learning_rate": 5e-4, "precision": "float32", "device": "cpu"},
        **changes,
    }


def prepare(root: Path) -> None:
    """Make the input of the jobs: labelled tiles, a model, a result."""
    weak_data(root / "weak")
    for one in ("LYM", "MUS", "TUM"):
        shutil.copytree(samples.tiles() / one, root / "tiles" / one)
    few = values(root)
    few["train"]["steps"] = 2
    list(train.train(JobSettings.parse(few), root / "model"))
    list(segment.segment(samples.slide(), root / "model", root / "result", READING, THRESHOLDS))


# the jobs, as a user calls them again after a kill ---------------------------------------------------------------


def _bank(root: Path, out: Path) -> Job:
    settings = JobSettings.parse(values(root))
    settings = settings.model_copy(update={"bank": settings.bank.model_copy(update={"batch_size": 2})})
    tiles = load_single_tiles(root / "tiles", settings.data)
    return build_bank.build_bank(tiles, out, settings.bank, settings.data, update=True)


def _train(root: Path, out: Path) -> Job:
    return train.train(JobSettings.parse(values(root)), out, resume=(out / "run.json").exists())


def _pretrain(root: Path, out: Path) -> Job:
    small = {"steps": 2, "batch_size": 2, "crop": 64, "encoder_tiles": 16, "precision": "float32", "device": "cpu"}
    settings = PretrainSettings.parse({"images": (samples.slide(),), **small})
    return pretrain.pretrain(settings, out, resume=(out / "pretrain.json").exists())


def _segment(root: Path, out: Path) -> Job:
    return segment.segment(samples.slide(), root / "model", out, READING, THRESHOLDS, resume=True)


def _compare(root: Path, out: Path) -> Job:
    few = values(root)
    few["train"]["steps"] = 2
    few["compare"] = {
        "axes": {"method": {"CAM": {"method": {"name": "cam"}}, "PBIP": {"method": {"name": "pbip"}}}},
        "seeds": [3],
        "pictures": 1,
    }
    return compare.compare(few, out)


def _evaluate(root: Path, out: Path) -> Job:
    job = evaluate.evaluate(root / "model", JobSettings.parse(values(root)).data, device="cpu")
    for event in job:
        if isinstance(event, Finished):
            write_json(out / "scores.json", event.summary)  # as the command line does
        yield event


def _export(root: Path, out: Path) -> Job:
    (store,) = stores_in(root / "result")
    out.mkdir(exist_ok=True)
    for name, chosen in export.FORMATS.items():
        changed = THRESHOLDS.model_copy(update={"delta": 0.3})
        if name != "dicom-seg":  # the slide is no DICOM slide
            yield from export.export(store, out / f"slide{chosen.ending}", name, changed, overwrite=True)


def _save_labels(root: Path, out: Path) -> Job:
    if not out.exists():
        copied = out.with_name(f"{out.name}-copy")
        shutil.copytree(root / "result", copied, dirs_exist_ok=True)
        copied.rename(out)
    (store,) = stores_in(out)
    yield from write_results.write_results(store, THRESHOLDS.model_copy(update={"delta": 0.3}))


def _saved_run(out: Path) -> bool:
    return (out / "state.safetensors").exists()


def _saved_slide(out: Path) -> bool:
    return any(
        (store / "pbip" / "begun.safetensors").exists() or ScoreStore.open(store).written.any()
        for store in stores_in(out)
    )


@dataclass(frozen=True)
class Kind:
    """A job, how it is called, and its results."""

    start: Callable[[Path, Path], Job]
    saved: Callable[[Path], bool] = Path.exists
    """Whether something that took time is on disk."""


JOBS = {
    "bank": Kind(_bank, lambda out: (out / "features.safetensors").exists()),
    "train": Kind(_train, _saved_run),
    "pretrain": Kind(_pretrain, _saved_run),
    "segment": Kind(_segment, _saved_slide),
    "compare": Kind(_compare, lambda out: any(out.rglob("*.safetensors"))),
    "evaluate": Kind(_evaluate),
    "export": Kind(_export),
    "write_results": Kind(_save_labels),
}


def work(name: str, root: Path, out: Path, *, leave: bool = True, renames: Any = None, last: int = 0) -> None:
    """Run a job in this process, with a save after every step, and exit.

    ``renames``, a shared number, counts the renamings; at the ``last``-th, the process kills itself.
    """
    if renames is not None:
        _count_renames(renames, last)
    for module in [m for key, m in sys.modules.items() if key.startswith("napari_pbip.")]:
        for constant in ("SAVE_EVERY_SECONDS", "KEEP_SECONDS", "COMMIT_SECONDS"):
            if hasattr(module, constant):
                setattr(module, constant, 0.0)
    pretrain._TILE = 96  # the encoder is fitted in a second
    for _ in JOBS[name].start(root, out):
        pass
    if leave:
        os._exit(0)  # nothing but the job is asked; a traceback has gone to the terminal, with another code


def _count_renames(renames: Any, last: int) -> None:
    replace = os.replace

    def counted(*paths: Any, **options: Any) -> None:
        with renames.get_lock():  # whoever dies with the lock takes it along
            renames.value += 1
            dies = renames.value == last
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*paths, **options)

    os.replace = counted


# killing -----------------------------------------------------------------------------------------------------------


def context() -> Any:
    """Return the context that starts processes."""
    return forking("tests.robustness.kills")


@dataclass
class Outcome:
    """The outcome of one job."""

    kills: int = 0
    after_a_save: int = 0
    compared: int = 0
    """Runs that were killed, ended, and compared."""


def torture(name: str, root: Path, kills: int, rng: random.Random) -> Outcome:
    """Kill a job a number of times at random moments, and call it again each time.

    Raises
    ------
    AssertionError
        If it does not end, or what it leaves is not what an uninterrupted run leaves.
    """
    outcome = Outcome()
    number, whole = 0, root / f"{name}-whole"
    warm()
    began = time.monotonic()
    run(name, root, whole)
    takes = time.monotonic() - began
    while outcome.kills < kills:
        number += 1
        out, killed = root / f"{name}-{number}", 0
        while outcome.kills < kills and killed < 3:
            if run(name, root, out, rng.uniform(0, 0.8 * takes)) is not None:
                break
            killed += 1
            outcome.kills += 1
            outcome.after_a_save += JOBS[name].saved(out)
        if not killed:
            shutil.rmtree(out)
            continue
        assert run(name, root, out) is not None, f"{name} did not end well after {killed} kills"
        differences = list(different(whole, out))
        assert not differences, f"{name} after {killed} kills: {differences[:5]}"
        outcome.compared += 1
        shutil.rmtree(out)
    return outcome


def uninterrupted(name: str, root: Path) -> tuple[Path, int]:
    """Run a job undisturbed; return its result, and its number of renamings."""
    whole, renames = root / f"{name}-whole", context().Value("i")
    run(name, root, whole, renames=renames)
    return whole, renames.value


def kill_at_renames(name: str, root: Path, numbers: Iterable[int]) -> Outcome:
    """Kill a job before some of its renamings, counted from 1, and call it again each time.

    It has to have run undisturbed before.

    Raises
    ------
    AssertionError
        If it does not end, or what it leaves is not what an uninterrupted run leaves.
    """
    outcome = Outcome()
    whole, out = root / f"{name}-whole", root / f"{name}-killed"
    renames = context().Value("i")
    for number in numbers:
        renames.value = 0
        if run(name, root, out, renames=renames, last=number) is not None:
            shutil.rmtree(out)  # it ended before: what is saved by the clock is renamed more or less often
            continue
        outcome.kills += 1
        outcome.after_a_save += JOBS[name].saved(out)
        assert run(name, root, out) is not None, f"{name} did not end well after a kill at renaming {number}"
        differences = list(different(whole, out))
        assert not differences, f"{name} after a kill at renaming {number}: {differences[:5]}"
        outcome.compared += 1
        shutil.rmtree(out)
    return outcome


def warm() -> None:
    """Make the server of processes load torch, so that jobs need not."""
    process = context().Process(target=os.getpid)
    process.start()
    process.join()


def run(name: str, root: Path, out: Path, kill_after: float | None = None, **counting: Any) -> int | None:
    """Run a job in a separate process; return its exit code, which has to be 0, or None if it was killed."""
    process = context().Process(target=work, args=(name, root, out), kwargs=counting)
    process.start()
    process.join(600 if kill_after is None else kill_after)
    if process.is_alive():
        process.kill()
        process.join()
        assert kill_after is not None, f"{name} hangs"
        return None
    if counting.get("last") and process.exitcode == -signal.SIGKILL:
        return None
    assert process.exitcode == 0, f"{name} ended with {process.exitcode}"
    return 0


# comparing ---------------------------------------------------------------------------------------------------------


def different(whole: Path, other: Path) -> Iterator[str]:
    """Return the differences between two results, except times."""
    names = [
        {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        for folder in (whole, other)
    ]
    for name in sorted(names[0] ^ names[1]):
        yield f"{name} is only in {'the uninterrupted' if name in names[0] else 'the killed'} one"
    for name in sorted(names[0] & names[1]):
        if not _equal(whole / name, other / name, whole, other):
            yield f"{name} differs"


def _equal(first: Path, second: Path, whole: Path, other: Path) -> bool:
    if first.suffix == ".safetensors":
        a, b = load_file(first), load_file(second)
        return a.keys() == b.keys() and all(np.array_equal(a[key].numpy(), b[key].numpy(), equal_nan=True) for key in a)
    if first.suffix == ".tiff":  # each file has an identity of its own
        return np.array_equal(tifffile.imread(first), tifffile.imread(second), equal_nan=True)
    if first.suffix == ".png":  # which says when its labels were made
        with Image.open(first) as a, Image.open(second) as b:
            return np.array_equal(a, b)
    if first.suffix not in (".json", ".geojson", ".csv", ".html", ".yaml"):
        return first.read_bytes() == second.read_bytes()
    texts = first.read_text(encoding="utf-8"), second.read_text(encoding="utf-8").replace(str(other), str(whole))
    if first.suffix in (".json", ".geojson"):
        a, b = (_timeless(json.loads(text)) for text in texts)
        return bool(a == b)
    if first.name == "tiles.csv":  # paths are relative to the file
        return _rows(first) == _rows(second)
    if first.suffix == ".csv":
        a, b = ([_timeless(row) for row in csv.DictReader(text.splitlines())] for text in texts)
        return bool(a == b)
    return first.suffix == ".html" or texts[0] == texts[1]  # the page has times in its tables


def _rows(tiles: Path) -> list[dict[str, str]]:
    with tiles.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {key: str((tiles.parent / row[key]).resolve()) for key in ("path", "mask") if row.get(key)}
    return rows


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in CLOCKS}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="of each job, at random moments")
    parser.add_argument("--renames", action="store_true", help="kill before each renaming of a file instead")
    parser.add_argument("--job", choices=JOBS, action="append")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(root)
        for name in options.job or JOBS:
            began = time.monotonic()
            if options.renames:
                _, renames = uninterrupted(name, root)
                outcome = kill_at_renames(name, root, range(1, renames + 1))
            else:
                outcome = torture(name, root, options.kills, rng)
            sys.stdout.write(
                f"{name}: {outcome.kills} kills, {outcome.after_a_save} after a save, {outcome.compared} runs compared "
                f"and equal ({time.monotonic() - began:.0f} s)\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    from tests.robustness import kills  # by its name: the processes then do not load this file once more

    sys.modules["__main__"].__spec__ = None
    del sys.modules["__main__"].__file__
    kills.main()
