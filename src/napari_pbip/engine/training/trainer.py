"""Training a network of a method: its batches, its loss, its validations, and the best model that is kept."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Generator, Mapping
from contextlib import closing, nullcontext
from pathlib import Path

import torch
from torch import nn

from napari_pbip.bank import TileSet
from napari_pbip.engine import runs
from napari_pbip.engine.device import autocast, to_device
from napari_pbip.engine.inference.evaluate import Report, score_tiles
from napari_pbip.engine.inference.predict import Predictor
from napari_pbip.engine.jobs import cancellable
from napari_pbip.engine.loading import Batch, TileReader, ahead, steps_per_epoch, training_batches
from napari_pbip.engine.training.loop import TrainingLoop
from napari_pbip.engine.training.processes import Processes
from napari_pbip.engine.training.schedule import FEW_STEPS, peak_learning_rate, validation_interval
from napari_pbip.engine.training.synthesis import Composer, Mosaics
from napari_pbip.events import Epoch, Event, Finished, Step, Warned
from napari_pbip.models.methods.pyramid_method import PyramidMethod
from napari_pbip.models.methods.trained_method import TrainedMethod
from napari_pbip.signals import held_back

SAVE_EVERY_SECONDS = 60.0
"""Time between two saves, which limits what a power cut can cost; a training saves however else it ends. Epochs are not
saved one by one: with a few dozen tiles, one takes a second or two, and a save half a second."""

_PROGRESS = ("seconds", "epoch", "best_epoch", "best_score", "validations")
"""Fields of ``run.json`` on the progress, besides the step, that are also in the file of the state."""


class Trainer(TrainingLoop[tuple[Batch, Mosaics | None]]):
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
    fitted
        A part of the method that was fitted to the labels of now, and keeps its weights when a save is restored; None
        if there is none.
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
        *,
        fitted: nn.Module | None = None,
    ) -> None:
        settings = facts.settings.train
        if facts.learning_rate is None:
            begun = facts.step > 0
            facts.learning_rate = peak_learning_rate(facts.settings, method.backbone, of_earlier_version=begun)
        optimiser = torch.optim.AdamW(method.parameters(), lr=facts.learning_rate, weight_decay=settings.weight_decay)
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
        self._fitted = None if fitted is None else (fitted, copy.deepcopy(fitted.state_dict()))
        self.per_epoch = steps_per_epoch(len(tiles), settings.batch_size)

    def train(self, compose: Composer | None, *, resume: bool) -> Generator[Event, None, None]:
        """Return the job, which continues a stopped one if ``resume``; ``compose`` makes mosaics, if they are used."""
        facts = self.facts
        if facts.steps < FEW_STEPS and facts.settings.backbone.weights is None:
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
        every = validation_interval(settings, epochs)
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
        if self._fitted is not None:
            part, weights = self._fitted
            part.load_state_dict(weights)

    def write(self) -> None:
        """Write the models and then ``run.json``, which contains the step."""
        for name in (runs.LAST, runs.BEST) if self.validation is None else (runs.LAST,):
            runs.write_weights(self.out / name, self.method.state_dict())
        self.facts.write(self.out)
