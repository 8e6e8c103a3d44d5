"""The job that trains a method on image-level labels."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

import torch

from napari_pbip.bank import LabelledTile, TileSet, find_splits, load_tiles
from napari_pbip.bank.layouts.tile_table import write_tiles
from napari_pbip.claims import claims
from napari_pbip.config import (
    DataSettings,
    JobSettings,
    PbipSettings,
    ProbeSettings,
    PyramidSettings,
    TrainedSettings,
    TrainSettings,
)
from napari_pbip.config.methods import ImgMatchSettings
from napari_pbip.engine import runs
from napari_pbip.engine.device import autocast, to_device
from napari_pbip.engine.inference.evaluate import Report, score_tiles
from napari_pbip.engine.inference.predict import Predictor
from napari_pbip.engine.inference.windows import SMALLEST
from napari_pbip.engine.jobs import cancellable, job
from napari_pbip.engine.loading import Batch, TileReader, ahead, steps_per_epoch, training_batches
from napari_pbip.engine.tile_notes import tile_notes
from napari_pbip.engine.training.advice import advise
from napari_pbip.engine.training.loop import TrainingLoop, check_resume
from napari_pbip.engine.training.probe import fit_probe, load_probe
from napari_pbip.engine.training.processes import Processes, joined
from napari_pbip.engine.training.prototypes import Start, build_start, existing_start
from napari_pbip.engine.training.synthesis import Composer, Mosaics, missing_alone
from napari_pbip.errors import ConfigError, DataError, ModelError, OutputError
from napari_pbip.events import Epoch, Event, Finished, Job, Loading, Noted, Step, Warned
from napari_pbip.files import prepare_folder
from napari_pbip.models.backbones import Backbone, Pyramid
from napari_pbip.models.methods.pyramid_method import PyramidMethod
from napari_pbip.models.methods.trained_method import TrainedMethod
from napari_pbip.models.seeding import seeded
from napari_pbip.provenance import Made
from napari_pbip.signals import held_back

SAVE_EVERY_SECONDS = 60.0
"""Time between two saves, which limits what a power cut can cost; a training saves however else it ends. Epochs are not
saved one by one: with a few dozen tiles, one takes a second or two, and a save half a second."""

_EPOCHS = 8
"""Number of epochs of an automatic training on many tiles, and of validations of one on few tiles."""
_MAY_CHANGE = {"train": {"epochs", "steps", "device"}, "segment": True, "refine": True, "thresholds": True}
"""Settings that may change when a run is resumed."""
_PROGRESS = ("seconds", "epoch", "best_epoch", "best_score", "validations")
"""Fields of ``run.json`` on the progress, besides the step, that are also in the file of the state."""
_FEW_STEPS = 200
"""Smallest number of steps in which a network learns something from scratch; an automatic training has at least as
many."""


@job(less_memory="use a smaller `train.batch_size`")
def train(settings: JobSettings, out: Path | str, *, resume: bool = False, overwrite: bool = False) -> Job:
    """Train a method; yields a ``Step`` with the loss terms for each step, and an ``Epoch`` with validation scores.

    A linear probe is fitted instead, in seconds: a ``Step`` then counts tiles, and resuming fits it again.

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
        window = max(side, ProbeSettings.window)
        facts = _begin(settings, tiles, window, out, len(tiles), resume=resume, overwrite=overwrite)
        _record_tiles(out, settings.data, tiles, validation, None)
        facts.device, facts.fit = str(device), remembered
        yield from (*tile_notes(tiles), *notes, *_recommended(settings, tiles, side))
        yield from fit_probe(facts, settings.method, probe.to(device), tiles, validation, out, read)
        return
    earlier = runs.RunFacts.read(out).settings if resume else None
    settings, without = _with_synthesis(settings, tiles, earlier)
    settings = _masked_as_begun(settings, earlier)
    synthesis = isinstance(settings.method, PyramidSettings) and settings.method.options()["synthesis"]
    compose = Composer(tiles, settings.train, read) if synthesis else None
    yield Loading("the networks")
    start = existing_start(settings, tiles)
    if start is not None:  # the encoder of a bank may differ from the default of the settings
        settings = _with_encoder(settings, start.facts["encoder"]["name"])
    steps = planned_steps(settings.train, len(tiles))
    if processes.leads:
        facts = _begin(settings, tiles, side, out, steps, resume=resume, overwrite=overwrite)
        _record_tiles(out, settings.data, tiles, validation, start)
        recommended = _recommended(settings, tiles, side) if isinstance(settings.method, PbipSettings) else ()
        yield from (*tile_notes(tiles), *notes, *without, *recommended)
    else:
        facts = runs.RunFacts.read(out)
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
    yield from _Trainer(facts, method, processes, tiles, validation, out, read).train(compose, resume=resume)


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


def _with_synthesis(
    settings: JobSettings, tiles: TileSet, earlier: JobSettings | None
) -> tuple[JobSettings, Sequence[Noted]]:
    """Return settings with a number for ``method.synthesis``, or that of the run to be resumed, and a note about it."""
    method, notes = settings.method, list[Noted]()
    if not isinstance(method, PyramidSettings) or method.synthesis != "auto":
        return settings, notes
    if earlier is not None and isinstance(earlier.method, PyramidSettings):
        weight = earlier.method.synthesis  # a run of a version without mosaics has none, and is built without them
    elif missing := missing_alone(tiles):
        weight = 0.0
        notes.append(
            Noted(
                f"No tile shows {missing[0]} alone, so that no mosaics are composed for training; maps are usually "
                "more exact with some such tiles of each class."
            )
        )
    else:
        weight = 1.0
    return settings.model_copy(update={"method": method.model_copy(update={"synthesis": weight})}), notes


def _masked_as_begun(settings: JobSettings, earlier: JobSettings | None) -> JobSettings:
    """Return settings that leave it to the run to be resumed whether the contrast masks images."""
    method = settings.method
    if isinstance(method, ImgMatchSettings) and method.masked == "auto" and earlier is not None:
        method = method.model_copy(update={"masked": getattr(earlier.method, "masked", "auto")})
    return settings.model_copy(update={"method": method})


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
) -> None:
    """Write the tiles of a training, and of the bank it starts from, as a data set into the folder of the run.

    Labels and bank may change afterwards, and the training can be repeated all the same.
    """
    sets: dict[str, Iterable[LabelledTile]] = {tiles.split: tiles}
    if start is not None and start.tiles:
        sets["train_single"] = start.tiles
    elif "train_single" in tiles.splits:
        sets["train_single"] = load_tiles(tiles.folder, "train_single", data)
    if validation is not None:
        sets[validation.split] = validation
    write_tiles(out, tiles.taxonomy, sets)


def planned_steps(settings: TrainSettings, tiles: int) -> int:
    """Return the number of optimiser steps of a training with this number of tiles."""
    if settings.steps is not None:
        return settings.steps
    per_epoch = steps_per_epoch(tiles, settings.batch_size)
    epochs = max(_EPOCHS, math.ceil(_FEW_STEPS / per_epoch)) if settings.epochs == "auto" else settings.epochs
    return epochs * per_epoch


def peak_learning_rate(settings: JobSettings, backbone: Pyramid) -> float:
    """Return the peak learning rate for this backbone, which is chosen here if ``train.learning_rate`` is ``auto``."""
    rate = settings.train.learning_rate
    if rate != "auto":
        return rate
    weights = settings.backbone.weights
    # weights from our own trainings have seen few images and may change fast; others have the low rate of the release
    fast = isinstance(backbone, Backbone) and (weights == "builtin" or backbone.from_run)
    return 5e-5 if weights and not fast else 5e-4


class _Trainer(TrainingLoop[tuple[Batch, Mosaics | None]]):
    """Trains a method, validates it, and keeps the best model.

    Parameters
    ----------
    facts
        Facts about the run, which are updated.
    method
        The method, on ``device``.
    processes
        The processes that train together, with the device of this one.
    tiles, validation
        Tiles for training, and tiles with masks for validation or None.
    out
        The run folder.
    read
        The reader of tiles.
    """

    def __init__(
        self,
        facts: runs.RunFacts,
        method: TrainedMethod,
        processes: Processes,
        tiles: TileSet,
        validation: TileSet | None,
        out: Path,
        read: TileReader,
    ) -> None:
        settings = facts.settings.train
        peak = peak_learning_rate(facts.settings, method.backbone)
        optimiser = torch.optim.AdamW(method.parameters(), lr=peak, weight_decay=settings.weight_decay)
        super().__init__(
            facts,
            method,
            optimiser,
            out,
            steps=facts.steps,
            seed=settings.seed,
            save_every=SAVE_EVERY_SECONDS,
            processes=processes,
        )
        self.facts, self.method, self.device = facts, method, processes.device
        self.tiles, self.validation, self.read = tiles, validation, read
        self.settings = settings
        self.per_epoch = steps_per_epoch(len(tiles), settings.batch_size)

    def train(self, compose: Composer | None, *, resume: bool) -> Job:
        """Return the job, which continues a stopped one if ``resume``; ``compose`` makes mosaics, if they are used."""
        facts = self.facts
        if facts.steps < _FEW_STEPS and facts.settings.backbone.weights is None:
            yield Warned(
                f"{facts.steps} steps with {len(self.tiles)} tiles are planned, and a network that starts from scratch "
                "needs some hundreds: ask for more epochs (`train.epochs`, or `train.steps`)."
            )
        name = f"Training {facts.settings.method.name} on {self.processes.names}"
        yield from self.run(name, self._batches(compose), resume=resume)
        summary = {"steps": facts.step, "seconds": facts.seconds, "epoch": facts.best_epoch, "miou": facts.best_score}
        yield Finished(self.out, summary)

    def _batches(self, compose: Composer | None) -> Generator[tuple[Batch, Mosaics | None], None, None]:
        """Yield the tiles and mosaics of each step, which threads prepare ahead of it."""
        facts = self.facts
        first, last = facts.step, facts.steps
        masks = facts.settings.method.learns_from == "masks"
        batches = training_batches(
            self.tiles.tiles, len(facts.taxonomy), self.settings, self.read, first, last, masks=masks
        )
        mosaics = ahead(compose, range(first, last)) if compose else None
        with closing(batches), closing(mosaics) if mosaics else nullcontext():
            for batch in batches:
                yield batch, next(mosaics) if mosaics else None

    def rate(self, step: int) -> float:
        """Return the share of the peak: linear warm-up, linear decay to zero (poly with power 1, as released)."""
        return min(1.0, (step + 1) / (self.settings.warmup + 1)) * (1 - step / self.facts.steps)

    def loss(self, batch: tuple[Batch, Mosaics | None]) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        tiles, mosaics = batch
        with autocast(self.device, self.settings.precision):
            progress = self.facts.step / self.facts.steps
            labels = tiles.labels if tiles.masks is None else tiles.masks
            loss = self.method.loss(to_device(tiles.images, self.device), to_device(labels, self.device), progress)
            if mosaics is not None:
                assert isinstance(self.method, PyramidMethod)
                pieces, classes = (to_device(one, self.device) for one in (mosaics.images, mosaics.masks))
                pixels = self.method.pixel_loss(pieces, classes)
                loss = loss.plus("synthesis", self.method.synthesis, pixels)
        return loss.total, loss.terms

    def between_steps(self) -> Generator[Event, None, bool]:
        """At the end of an epoch, validate if it is due, and save the best model; return whether to save the state."""
        facts, settings = self.facts, self.settings
        last = facts.step == facts.steps
        epoch = math.ceil(facts.step / self.per_epoch)
        if epoch <= facts.epoch or (facts.step % self.per_epoch and not last):
            return False
        epochs = math.ceil(facts.steps / self.per_epoch)
        every = max(1, round(epochs / _EPOCHS)) if settings.validate_every == "auto" else settings.validate_every
        report: Report | None = None
        if self.validation is not None and (last or epoch % every == 0):
            report = yield from self._validate(self.validation)
        scores = {f"{p}/{m}": report[p][m] for p in report for m in ("miou", "fwiou", "biou", "dice")} if report else {}
        score = scores.get(f"{settings.select_by}/miou")
        best = self.validation is None or (score is not None and (facts.best_score is None or score > facts.best_score))
        with held_back():  # so that the facts and the best model belong to the same step
            if best and scores:  # without validation, write() saves the best model
                runs.write_weights(self.out / runs.BEST, self.method.state_dict())
            if report:
                facts.validations.append({"epoch": epoch, "step": facts.step, **report})
            if best:
                facts.best_epoch, facts.best_score = epoch, score
            facts.epoch = epoch
        yield Epoch(epoch, epochs, scores, best)
        return bool(scores)

    def _validate(self, validation: TileSet) -> Generator[Step, None, Report]:
        self.method.eval()
        try:
            predictor = Predictor.of_run(self.method, self.facts, self.device, precision=self.settings.precision)
            return (yield from cancellable(score_tiles(predictor, validation, self.read), self.facts.step))
        finally:
            self.method.train()

    @property
    def state_facts(self) -> dict[str, str]:
        return {"progress": json.dumps({name: getattr(self.facts, name) for name in _PROGRESS})}

    def restored(self, facts: Mapping[str, str]) -> None:
        for name, value in json.loads(facts.get("progress", "{}")).items():
            setattr(self.facts, name, value)

    def write(self) -> None:
        """Write the models and then ``run.json``, which contains the step."""
        for name in (runs.LAST, runs.BEST) if self.validation is None else (runs.LAST,):
            runs.write_weights(self.out / name, self.method.state_dict())
        self.facts.write(self.out)
