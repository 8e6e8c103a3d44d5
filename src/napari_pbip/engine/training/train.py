"""The job that trains a method on image-level labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from napari_pbip.bank import LabelledTile, TileSet, find_splits, load_tiles
from napari_pbip.bank.layouts.tile_table import TABLE, write_tiles
from napari_pbip.claims import claims
from napari_pbip.config import (
    DataSettings,
    JobSettings,
    PbipSettings,
    ProbeSettings,
    PyramidSettings,
    TrainedSettings,
)
from napari_pbip.engine import runs
from napari_pbip.engine.jobs import job
from napari_pbip.engine.loading import TileReader
from napari_pbip.engine.tile_notes import tile_notes
from napari_pbip.engine.training.advice import advise
from napari_pbip.engine.training.automatic import settled
from napari_pbip.engine.training.loop import check_resume
from napari_pbip.engine.training.probe import fit_probe, load_probe, train_probe
from napari_pbip.engine.training.processes import Processes, joined
from napari_pbip.engine.training.prototypes import Start, build_start, existing_start
from napari_pbip.engine.training.schedule import planned_steps
from napari_pbip.engine.training.synthesis import Composer
from napari_pbip.engine.training.trainer import Trainer
from napari_pbip.errors import ConfigError, DataError, ModelError, OutputError
from napari_pbip.events import Job, Loading, Noted, Warned
from napari_pbip.files import prepare_folder
from napari_pbip.models.backbones.catalogue import SMALLEST
from napari_pbip.models.methods.pbip import Pbip
from napari_pbip.models.methods.trained_method import TrainedMethod
from napari_pbip.models.seeding import seeded
from napari_pbip.provenance import Made

_MAY_CHANGE = {"train": {"epochs", "steps", "device"}, "segment": True, "refine": True, "thresholds": True}
"""Settings that may change when a run is resumed."""


@job(less_memory="use a smaller `train.batch_size`")
def train(settings: JobSettings, out: Path | str, *, resume: bool = False, overwrite: bool = False) -> Job:
    """Train a method; yields a ``Step`` with the loss terms for each step, and an ``Epoch`` with validation scores.

    A linear probe is fitted instead, in seconds: a ``Step`` then counts tiles and mosaics, and resuming fits it again.
    One that has a share in the scores of PBIP is fitted first, with its own ``Started`` and such steps.

    If ``torchrun`` has started several processes that all call this function with the same arguments, they share each
    batch. Losses and weights are those of a single process up to rounding, but for random numbers in the network. The
    first process writes the files and yields the events of validations; it is also the one that fits a probe.

    Validation uses the split ``val`` if it has masks. A method with the prototypes of a bank uses the one in
    ``settings.bank_folder``, or builds one in ``out/bank`` from the single-class tiles of the data. The state is saved
    however the job ends. :mod:`napari_pbip.engine.runs` describes the files.

    Parameters
    ----------
    settings
        Settings of data, bank, method, backbone and training.
    out
        The run folder.
    resume
        Whether to continue a stopped run. On the same processor, the weights are then bit for bit those of a run that
        was not stopped; a graphics card adds up gradients in any order. The settings must be the same, except that
        there may be more epochs or steps, and another device. The number of processes may be another one.
    overwrite
        Whether to replace an earlier run.

    Raises
    ------
    ConfigError
        If no data folder is given, or the settings differ from those of the run to be resumed.
    DataError
        If tiles are missing or wrong, differ in size, are too small, or have fewer than two classes.
    BankError
        If the bank cannot be used, or cannot be built.
    WeightsUnavailable
        If weights of the encoder or the backbone are missing.
    ModelError
        If the run to be resumed cannot be read or has other classes, or if the loss is no longer a number; the last
        save is then kept.
    OutputError
        If the folder contains another run or other files, or cannot be written.
    JobFailed
        If another process of the same training has ended too early.
    """
    with joined(settings.train.device) as processes:
        run = claims("out", "training")(_train) if processes.leads else _train
        yield from run(settings, Path(out), processes, resume=resume, overwrite=overwrite)


def _train(settings: JobSettings, out: Path, processes: Processes, *, resume: bool, overwrite: bool) -> Job:
    """Train as one of the processes."""
    if not processes.leads:
        if isinstance(settings.method, ProbeSettings):
            return
        processes.wait()  # until the leader has prepared the folder
    if settings.data.folder is None:
        raise ConfigError("Training needs labelled tiles; name their folder with `data.folder`.")
    tiles = load_tiles(settings.data.folder, "train", settings.data)
    tiles.require_two_classes()
    if settings.method.learns_from == "masks":
        tiles.require_masks(f"{settings.method.name} learns from them; make some with napari-pbip pseudo")
    side = smaller_side(tiles)
    validation, notes = _validation_tiles(settings.data.folder, settings.data)
    if validation is not None and validation.taxonomy.names != tiles.taxonomy.names:
        raise DataError("The classes of the training and the validation tiles differ; give them one classes.txt.")
    read = TileReader()
    device = processes.device
    if isinstance(settings.method, ProbeSettings):
        yield Loading(f"the encoder {settings.bank.encoder}")
        probe, remembered = load_probe(settings, tiles)
        facts = _begin(settings, tiles, side, out, len(tiles), resume=resume, overwrite=overwrite)
        _record_tiles(out, settings.data, tiles, validation, None)
        facts.device, facts.fit = str(device), remembered
        yield from (*tile_notes(tiles), *notes, *_recommended(settings, tiles, side))
        yield from train_probe(facts, settings.method, probe.to(device), tiles, validation, out, read)
        return
    yield Loading("the networks")
    start = existing_start(settings, tiles)
    if start is not None:  # the encoder of a bank may differ from the default of the settings
        settings = _with_encoder(settings, start.facts["encoder"]["name"])
    settings, settled_notes = settled(settings, tiles, runs.RunFacts.read(out).settings if resume else None)
    synthesis = isinstance(settings.method, PyramidSettings) and settings.method.options()["synthesis"]
    compose = Composer(tiles, settings.train, read) if synthesis else None
    steps = planned_steps(settings.train, len(tiles))
    if processes.leads:
        facts = _begin(settings, tiles, side, out, steps, resume=resume, overwrite=overwrite)
        relabelled = _record_tiles(out, settings.data, tiles, validation, start)
        recommended = _recommended(settings, tiles, side) if isinstance(settings.method, PbipSettings) else ()
        yield from (*tile_notes(tiles), *notes, *settled_notes, *recommended)
    else:
        facts, relabelled = runs.RunFacts.read(out), False
        facts.settings, facts.steps = settings, steps
    if start is None and settings.method.learns_from == "bank":
        start = yield from build_start(settings, tiles, out / "bank", resume=resume or not processes.leads)
    if processes.leads:
        processes.wait()
    prototypes, encoder = None, None
    if start is not None:
        prototypes, encoder, facts.prototypes = start.prototypes, start.encoder, start.facts
    with seeded(settings.train.seed):
        # a resumed training loads its weights from its state; built-in weights of an earlier version may not exist
        begun = settings.backbone.weights == "builtin" and resume and (out / runs.STATE).exists()
        network = runs.without_start(settings) if begun else settings
        method = runs.build_method(network, len(tiles.taxonomy), prototypes, encoder).to(device)
    assert isinstance(method, TrainedMethod)
    facts.device = str(device)
    beside = method.probe if isinstance(method, Pbip) and processes.leads else None
    if beside is not None and (relabelled or not facts.fit or not (out / runs.STATE).exists()):
        facts.fit = {}  # until it is fitted, also if it is stopped here
        facts.write(out)
        facts.fit = (yield from fit_probe(facts, ProbeSettings(), beside, tiles, read)).facts
        facts.write(out)
    else:
        beside = None  # that of the save stays as it is, to the last bit
    trainer = Trainer(facts, method, processes, tiles, validation, out, read, fitted=beside)
    yield from trainer.train(compose, resume=resume)


def smaller_side(tiles: TileSet) -> int:
    """Return the shorter side of the tiles, which all have one size, in pixels.

    Raises
    ------
    DataError
        If they are too small for a network.
    """
    height, width = tiles.tiles[0].read().shape[:2]
    if min(height, width) < SMALLEST:
        raise DataError(
            f"The tiles are {width} x {height} pixels, and a network needs {SMALLEST} x {SMALLEST} or more; "
            "cut larger ones, or enlarge them."
        )
    return int(min(height, width))


def _recommended(settings: JobSettings, tiles: TileSet, side: int) -> Sequence[Noted]:
    """Return a note on which of PBIP and the probe suits the tiles."""
    advice = advise(settings, tiles, planned_steps(settings.train, len(tiles)), side)
    return [] if advice is None else [Noted(advice.sentences)]


def _with_encoder(settings: JobSettings, name: str) -> JobSettings:
    return settings.model_copy(update={"bank": settings.bank.model_copy(update={"encoder": name})})


def _validation_tiles(folder: Path, data: DataSettings) -> tuple[TileSet | None, Sequence[Noted | Warned]]:
    """Return the validation tiles, or None if they have no masks, and notes about them."""
    without = "the last model counts as the best."
    if "val" not in find_splits(folder, data):
        return None, [Noted(f"There are no validation masks (no split val): {without}")]
    validation = load_tiles(folder, "val", data)
    notes = list(tile_notes(validation))
    masked = sum(tile.mask is not None for tile in validation)
    if masked == len(validation):
        return validation, notes
    if masked:
        few = Warned(f"Only {masked} of {len(validation)} validation tiles have masks, so none is used: {without}")
        return None, [*notes, few]
    return None, [*notes, Noted(f"There are no validation masks (the split val has labels only): {without}")]


def _begin(
    settings: JobSettings, tiles: TileSet, side: int, out: Path, steps: int, *, resume: bool, overwrite: bool
) -> runs.RunFacts:
    """Create the run folder, or check that the run in it can be resumed; return the facts about the run."""
    if not resume:
        ways = "`resume=True` to continue it, `overwrite=True` to replace it"
        prepare_folder(out, runs.MARKER, overwrite=overwrite, ways=ways)
        begun = Made.now().model_dump(mode="json")
        facts = runs.RunFacts(
            settings, tiles.taxonomy, tile_size=side, steps=steps, versions=runs.versions(), made=begun
        )
        facts.write(out)
        return facts
    facts = runs.RunFacts.read(out)
    if facts.taxonomy.names != tiles.taxonomy.names:
        raise ModelError(
            f"The run was begun with the classes {', '.join(facts.taxonomy.names)}, and the data have "
            f"{', '.join(tiles.taxonomy.names)}; train a new model."
        )
    if not isinstance(settings.method, TrainedSettings):
        facts.step = 0  # a probe is fitted again
    check_resume("run", out, facts.settings, settings, _MAY_CHANGE, done=facts.step, steps=steps)
    if facts.step and not (out / runs.STATE).exists():
        raise OutputError(f"{out} holds a model, but no {runs.STATE} to resume it from; train a new model.")
    if facts.step and steps != facts.steps:
        facts.earlier = [*facts.earlier, (facts.steps, facts.step)]
    facts.settings, facts.steps = settings, steps
    return facts


def _record_tiles(
    out: Path, data: DataSettings, tiles: TileSet, validation: TileSet | None, start: Start | None
) -> bool:
    """Write the tiles of a training, and of the bank it starts from, as a data set into the folder of the run.

    Labels and bank may change afterwards, and the training can be repeated all the same. Returns whether they are other
    ones than those of the training that is resumed.
    """
    table = out / TABLE
    before = table.read_bytes() if table.exists() else None
    sets: dict[str, Iterable[LabelledTile]] = {tiles.split: tiles}
    if start is not None and start.tiles:
        sets["train_single"] = start.tiles
    elif "train_single" in tiles.splits:
        sets["train_single"] = load_tiles(tiles.folder, "train_single", data)
    if validation is not None:
        sets[validation.split] = validation
    write_tiles(out, tiles.taxonomy, sets)
    return table.read_bytes() != before
