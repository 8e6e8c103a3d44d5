"""The job that trains a method on image-level labels."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from napari_pbip.bank import TileSet, find_splits, load_tiles
from napari_pbip.claims import claims
from napari_pbip.config import DataSettings, JobSettings, TrainSettings
from napari_pbip.engine import runs
from napari_pbip.engine.device import autocast, choose_device
from napari_pbip.engine.evaluate import Report, score_tiles
from napari_pbip.engine.jobs import job
from napari_pbip.engine.loading import Batch, TileReader, ahead, steps_per_epoch, training_batches
from napari_pbip.engine.prototypes import build_start, existing_start
from napari_pbip.engine.recognised import recognised
from napari_pbip.engine.synthesis import Composer, Mosaics
from napari_pbip.errors import ConfigError, DataError, ModelError, OutputError
from napari_pbip.events import Epoch, Event, Finished, Job, Noted, Started, Step, Warned
from napari_pbip.files import prepare_folder
from napari_pbip.models.backbones import Backbone, Pyramid
from napari_pbip.models.methods.base import Method

SAVE_EVERY_SECONDS = 60.0
"""Longest work that a crash (not a cancel: that saves first) can cost. Not every epoch is saved: of a few dozen tiles
it takes a second or two, and saving it with the state of the optimiser half a second."""

_EPOCHS = 8
"""Of an automatic training on many tiles, and validations of one on few."""
_FEW_STEPS = 200
"""Fewer than these teach a network from scratch nothing; on few tiles an automatic training takes as many."""


@job
@claims("out", "training")
def train(settings: JobSettings, out: Path, *, resume: bool = False, overwrite: bool = False) -> Job:
    """Train a method; yields ``Step`` with the loss terms, and ``Epoch`` with validation scores.

    Validation runs on the split ``val`` when it has masks. A method with prototypes takes the bank of
    ``settings.bank_folder``, or builds one into ``out/bank`` from the single-class tiles of the data.
    Cancelling saves the state first. What is written is described in :mod:`napari_pbip.engine.runs`.

    Parameters
    ----------
    settings
        Data, bank, method, backbone and training settings.
    out
        The run folder.
    resume
        Go on with a run that was stopped: on one machine the weights come out bit for bit as if it had not
        been. The settings have to be the same, but for a larger number of epochs or steps.
    overwrite
        Replace an earlier run.

    Raises
    ------
    ConfigError
        If no data folder is given, or the settings differ from those of the run to be resumed.
    DataError, BankError, ModelError, OutputError
        If what is read cannot be used, or the output folder not be written.
    ModelError
        If the loss is no longer a number; the last save is kept.
    """
    if settings.data.folder is None:
        raise ConfigError("Training needs labelled tiles; name their folder with --data or the setting data.folder.")
    tiles = load_tiles(settings.data.folder, "train", settings.data)
    tiles.require_two_classes()
    validation, told = _validation_tiles(settings.data.folder, settings.data)
    if validation is not None and validation.taxonomy.names != tiles.taxonomy.names:
        raise DataError("The classes of the training and the validation tiles differ; give them one classes.txt.")
    read = TileReader()
    compose = Composer(tiles, settings.train, read) if settings.method.synthesis else None
    device = choose_device(settings.train.device)
    start = existing_start(settings, tiles)
    facts = _begin(settings, tiles, out, resume=resume, overwrite=overwrite)
    yield from (*recognised(tiles), *told)
    if start is None and settings.method.learns_from == "bank":
        start = yield from build_start(settings, tiles, out / "bank", resume=resume)
    prototypes, encoder = None, None
    if start is not None:
        prototypes, encoder, facts.prototypes = start.prototypes, start.encoder.to(device), start.facts
    with torch.random.fork_rng():
        torch.manual_seed(settings.train.seed)
        method = runs.build_method(settings, len(tiles.taxonomy), prototypes, encoder).to(device)
    facts.device = str(device)
    yield from _Trainer(facts, method, device, tiles, validation, out, read, compose).run(resume)


def _validation_tiles(folder: Path, data: DataSettings) -> tuple[TileSet | None, Sequence[Noted | Warned]]:
    """The validation split, if it has masks to score on, and what there is to say of it."""
    without = "the model of the last epoch counts as the best."
    if "val" not in find_splits(folder, data):
        return None, [Noted(f"There are no validation masks (no split val): {without}")]
    validation = load_tiles(folder, "val", data)
    told = list(recognised(validation))
    masked = sum(tile.mask is not None for tile in validation)
    if masked == len(validation):
        return validation, told
    if masked:
        few = Warned(f"Only {masked} of {len(validation)} validation tiles have masks, so none is used: {without}")
        return None, [*told, few]
    return None, [*told, Noted(f"There are no validation masks (the split val has labels only): {without}")]


def _begin(settings: JobSettings, tiles: TileSet, out: Path, *, resume: bool, overwrite: bool) -> runs.RunFacts:
    """Make the run folder, or check that it can be resumed."""
    steps = planned_steps(settings.train, len(tiles.tiles))
    if not resume:
        ways = "--resume to go on with it, --overwrite to replace it"
        prepare_folder(out, runs.MARKER, overwrite=overwrite, ways=ways)
        height, width = tiles.tiles[0].read().shape[:2]
        facts = runs.RunFacts(
            settings, tiles.taxonomy, tile_size=min(height, width), steps=steps, versions=runs.versions()
        )
        facts.write(out)
        return facts
    facts = runs.RunFacts.read(out)
    if facts.taxonomy.names != tiles.taxonomy.names:
        raise ModelError(
            f"The run was begun with the classes {', '.join(facts.taxonomy.names)}, and the data have "
            f"{', '.join(tiles.taxonomy.names)}; train a new model."
        )
    if (different := _difference(facts.settings, settings)) is not None:
        raise ConfigError(
            f"The run in {out} was begun with another {different}; resume with equal settings, or --overwrite."
        )
    if facts.step and not (out / runs.STATE).exists():
        raise OutputError(f"{out} holds a model and no {runs.STATE} to go on from; train a new model.")
    if steps < facts.step:
        raise ConfigError(f"The run in {out} has done {facts.step} steps already, more than the {steps} asked for.")
    facts.settings, facts.steps = settings, steps
    return facts


def planned_steps(settings: TrainSettings, tiles: int) -> int:
    """Optimiser steps of a training on so many tiles."""
    if settings.steps is not None:
        return settings.steps
    per_epoch = steps_per_epoch(tiles, settings.batch_size)
    epochs = max(_EPOCHS, math.ceil(_FEW_STEPS / per_epoch)) if settings.epochs == "auto" else settings.epochs
    return epochs * per_epoch


def peak_learning_rate(settings: JobSettings, backbone: Pyramid) -> float:
    """What ``train.learning_rate`` means for this backbone."""
    rate = settings.train.learning_rate
    if rate != "auto":
        return rate
    # ours saw little and has much to learn still; those of a million pictures are to be kept
    ours = isinstance(backbone, Backbone) and backbone.from_run
    return 5e-5 if settings.backbone.weights and not ours else 5e-4


_MAY_CHANGE: dict[str, Any] = {
    "train": {"epochs", "steps", "device"},
    "segment": True,
    "refine": True,
    "thresholds": True,
}


def _difference(before: JobSettings, now: JobSettings) -> str | None:
    """First setting that differs and would change the trajectory, or None."""
    old, new = (settings.model_dump(mode="json", exclude=_MAY_CHANGE) for settings in (before, now))
    for section, values in old.items():
        if not isinstance(values, dict):
            if values != new[section]:
                return section
            continue
        for name in {**values, **new[section]}:
            if values.get(name) != new[section].get(name):
                return f"{section}.{name}"
    return None


@dataclass
class _Trainer:
    """The training loop and what it saves."""

    facts: runs.RunFacts
    method: Method
    device: torch.device
    tiles: TileSet
    validation: TileSet | None
    out: Path
    read: TileReader
    compose: Composer | None

    def __post_init__(self) -> None:
        settings = self.facts.settings.train
        self.settings = settings
        self.peak = peak_learning_rate(self.facts.settings, self.method.backbone)
        self.optimiser = torch.optim.AdamW(self.method.parameters(), lr=self.peak, weight_decay=settings.weight_decay)
        self.curve: runs.Curve = []
        self.saved_at = time.monotonic()

    def run(self, resume: bool) -> Job:
        facts, settings = self.facts, self.settings
        if resume and (self.out / runs.STATE).exists():
            facts.step = runs.read_state(self.out, self.method, self.optimiser)
            self.curve = runs.read_curves(self.out, facts.step)
        name = f"Training {facts.settings.method.name} on {self.device}"
        yield Started(name, total=facts.steps, unit="steps", done=facts.step)
        if facts.steps < _FEW_STEPS and facts.settings.backbone.weights is None:
            yield Warned(
                f"{facts.steps} steps with {len(self.tiles)} tiles are planned, and a network that starts from scratch "
                "needs some hundreds: ask for more epochs (train.epochs, or train.steps)."
            )
        per_epoch = steps_per_epoch(len(self.tiles), settings.batch_size)
        before, began = facts.seconds, time.monotonic()
        batches = training_batches(self.tiles.tiles, len(facts.taxonomy), settings, self.read, facts.step, facts.steps)
        mosaics = ahead(self.compose, range(facts.step, facts.steps)) if self.compose else None
        self.method.train()
        try:
            if (yield from self._end_epoch(per_epoch)):  # a stop in the middle of a validation left it undone
                self.save()
            for batch in batches:
                rate = self._set_learning_rate(facts.step)
                terms = self._step(batch, next(mosaics) if mosaics else None)
                facts.step += 1
                facts.seconds = before + time.monotonic() - began
                self.curve.append({"step": facts.step, "learning_rate": rate, **terms})
                yield Step(facts.step, terms)
                validated = yield from self._end_epoch(per_epoch)
                overdue = time.monotonic() - self.saved_at > SAVE_EVERY_SECONDS
                if validated or overdue or facts.step == facts.steps:
                    self.save()
        except GeneratorExit:
            self.save()
            raise
        finally:
            batches.close()
            if mosaics:
                mosaics.close()
        summary = {"steps": facts.step, "seconds": facts.seconds, "epoch": facts.best_epoch, "miou": facts.best_score}
        yield Finished(self.out, summary)

    def _set_learning_rate(self, step: int) -> float:
        """Linear warm-up, then linear decay to zero (the released schedule: poly with power 1)."""
        settings = self.settings
        warm = min(1.0, (step + 1) / (settings.warmup + 1))
        rate = self.peak * warm * (1 - step / self.facts.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return rate

    def _step(self, batch: Batch, mosaics: Mosaics | None) -> dict[str, float]:
        """One optimiser step; returns the loss terms.

        Raises
        ------
        ModelError
            If the loss is not a finite number; the weights are as before the step.
        """
        # Dropout draws from torch's global state: seeding it by the step makes a resumed run draw the same.
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed * 1_000_003 + self.facts.step)
            with autocast(self.device, self.settings.precision):
                progress = self.facts.step / self.facts.steps
                loss = self.method.loss(batch.images.to(self.device), batch.labels.to(self.device), progress)
                if mosaics is not None:
                    pixels = self.method.pixel_loss(mosaics.images.to(self.device), mosaics.masks.to(self.device))
                    loss = loss.plus("synthesis", self.method.synthesis, pixels)
            self.optimiser.zero_grad(set_to_none=True)
            loss.total.backward()  # type: ignore[no-untyped-call]  # torch's own
        terms = {"loss": float(loss.total.detach())} | {n: float(t.detach()) for n, t in loss.terms.items()}
        if not math.isfinite(terms["loss"]):
            kept = (
                f"the last good model is kept in {self.out}"
                if (self.out / runs.STATE).exists()
                else "no model was saved yet"
            )
            raise ModelError(
                f"The training diverged at step {self.facts.step + 1} (the loss is no longer a number); {kept}. "
                "Try a smaller train.learning_rate."
            )
        self.optimiser.step()
        return terms

    def _end_epoch(self, per_epoch: int) -> Generator[Event, None, bool]:
        """At the end of an epoch that was not ended yet: validate if it is time to, and keep the best model.

        Says whether it validated.
        """
        facts, settings = self.facts, self.settings
        last = facts.step == facts.steps
        epoch = math.ceil(facts.step / per_epoch)
        if epoch <= facts.epoch or (facts.step % per_epoch and not last):
            return False
        scores: dict[str, float] = {}
        epochs = math.ceil(facts.steps / per_epoch)
        every = max(1, round(epochs / _EPOCHS)) if settings.validate_every == "auto" else settings.validate_every
        if self.validation is not None and (last or epoch % every == 0):
            report = yield from self._validate(self.validation)
            scores = {f"{p}/{m}": report[p][m] for p in report for m in ("miou", "fwiou", "biou", "dice")}
            facts.validations.append({"epoch": epoch, "step": facts.step, **report})
        score = scores.get(f"{settings.select_by}/miou")
        best = self.validation is None or (score is not None and score > (facts.best_score or -1))
        if best:
            facts.best_epoch, facts.best_score = epoch, score
        if best and scores:  # where nothing validates every save is the best
            runs.write_weights(self.out / "best.safetensors", self.method.state_dict())
        facts.epoch = epoch
        yield Epoch(epoch, epochs, scores, best)
        return bool(scores)

    def _validate(self, validation: TileSet) -> Generator[Step, None, Report]:
        self.method.eval()
        try:
            scoring = score_tiles(
                self.method, validation, self.facts.tile_size, self.device, self.settings.precision, self.read
            )
            while True:
                try:
                    next(scoring)
                except StopIteration as end:
                    report: Report = end.value
                    return report
                yield Step(self.facts.step)  # so that a cancel is heard
        finally:
            self.method.train()

    def save(self) -> None:
        """Write everything that resuming and looking need; ``run.json``, which names the step, comes last."""
        runs.write_state(self.out, self.method, self.optimiser, self.facts.step)
        runs.write_curves(self.out, self.curve)
        for name in ("last", "best") if self.validation is None else ("last",):
            runs.write_weights(self.out / f"{name}.safetensors", self.method.state_dict())
        self.facts.write(self.out)
        self.saved_at = time.monotonic()
