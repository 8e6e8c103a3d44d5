"""The training loop: steps, learning rate, and saves that are whole, on every way out."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from napari_pbip.config import Settings, first_difference
from napari_pbip.engine import runs
from napari_pbip.errors import ConfigError, ModelError
from napari_pbip.events import Event, Started, Step
from napari_pbip.signals import held_back

Batch = TypeVar("Batch")


class Progress(Protocol):
    """How far a training is."""

    step: int
    """Optimiser steps done."""
    seconds: float
    """Time spent on them, over all sittings."""


class Diverged(ModelError):
    """The loss or the weights are no longer finite numbers."""


class TrainingLoop(ABC, Generic[Batch]):
    """Goes through batches; what is learned, and what is written beside the state, a subclass says.

    It saves when a subclass asks for it, when a save is overdue, after the last step, and whenever it is left: by
    closing the generator, by an error, and by Ctrl+C or another signal that raises an exception in the middle of a
    step. What is saved is of one moment: an unfinished step is undone. Only where the update of the weights
    themselves fails (there is no undoing that), or the training diverged, the save before it stays.

    Parameters
    ----------
    progress
        Is kept up to date.
    network
        What is trained, on its device.
    optimiser
        With the peak learning rate.
    out
        Folder of the state and the curves.
    steps
        Optimiser steps in all.
    seed
        Of what is random in the network (dropout), in each step anew, so that a resumed training draws the same.
    save_every
        Seconds after which a save is overdue: the longest work that a crash costs.
    """

    def __init__(
        self,
        progress: Progress,
        network: nn.Module,
        optimiser: Optimizer,
        out: Path,
        *,
        steps: int,
        seed: int,
        save_every: float,
    ) -> None:
        self.progress, self.network, self.optimiser, self.out = progress, network, optimiser, out
        self.steps, self.seed, self.save_every = steps, seed, save_every
        self.curve: runs.Curve = []
        self._whole = True
        self._buffers: list[torch.Tensor] | None = None
        self._saved_at = time.monotonic()

    # what a subclass says -----------------------------------------------------------------------------------------

    @abstractmethod
    def rate(self, step: int) -> float:
        """Share of the peak learning rate in a step, counted from 0."""

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """What is minimised, a scalar; and scalars for the curves, by name, the same names in every step."""

    @abstractmethod
    def write(self) -> None:
        """Write what belongs to a save besides curves and state."""

    def updated(self) -> None:
        """The optimiser has changed the weights; part of the step."""

    def between_steps(self) -> Generator[Event, None, bool]:
        """Before the first step and after each; says whether to save."""
        yield from ()
        return False

    def restored(self, facts: Mapping[str, str]) -> None:
        """Take up :attr:`state_facts` of the save that is gone on from; empty if an older version wrote it."""

    @property
    def state_facts(self) -> dict[str, str]:
        """Kept in the state's own file, and therefore of the same moment whatever happens."""
        return {}

    # what all have ------------------------------------------------------------------------------------------------

    def run(self, name: str, batches: Generator[Batch, None, None], *, resume: bool) -> Generator[Event, None, None]:
        """Train; yields ``Started``, a ``Step`` for each step that was not done, and what lies between.

        Parameters
        ----------
        name
            Of the job.
        batches
            What each step from ``progress.step`` on learns from; asked for after the last save was read.
        resume
            Go on from the last save, if there is one.

        Raises
        ------
        ModelError
            If the last save is damaged, or of another network.
        Diverged
            If the loss or the weights are no longer finite numbers; the last save is kept.
        """
        progress = self.progress
        if resume and (self.out / runs.STATE).exists():
            progress.step, facts = runs.read_state(self.out, self.network, self.optimiser)
            self.curve = runs.read_curves(self.out, progress.step)
            self.restored(facts)
        yield Started(name, self.steps, "steps", progress.step)
        first = progress.step
        began = time.monotonic() - progress.seconds
        schedule = LambdaLR(self.optimiser, lambda done: self.rate(first + done))
        self.network.train()
        with closing(batches):
            try:
                asked = yield from self.between_steps()  # a stop in the middle of a validation left it undone
                if asked or first:  # a kill between two files of a save left them of two moments
                    self.save()
                for batch in batches:
                    terms = self._step(batch, schedule, began)
                    yield Step(progress.step, terms)
                    asked = yield from self.between_steps()
                    overdue = time.monotonic() - self._saved_at > self.save_every
                    if asked or overdue or progress.step == self.steps:
                        self.save()
            except BaseException as error:  # whatever it is, what was computed is kept
                self._leave(error)
                raise

    def save(self) -> None:
        """Write all that going on needs; a signal waits until that is done."""
        with held_back():
            self._whole = False  # a save that fails is not tried again
            runs.write_curves(self.out, self.curve)
            runs.write_state(self.out, self.network, self.optimiser, self.progress.step, self.state_facts)
            self.write()
            self._whole = True
            self._saved_at = time.monotonic()

    def _step(self, batch: Batch, schedule: LambdaLR, began: float) -> Mapping[str, float]:
        """One optimiser step; returns the loss and the terms."""
        # networks may count what they see while they look at it: running means, a memory of features
        self._buffers = [buffer.clone() for buffer in self.network.buffers()]
        # Dropout draws from torch's global state: seeding it by the step makes a resumed run draw the same.
        with torch.random.fork_rng():
            torch.manual_seed(self.seed * 1_000_003 + self.progress.step)
            loss, terms = self.loss(batch)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        values = {"loss": float(loss.detach())} | {name: float(term.detach()) for name, term in terms.items()}
        self._require_finite(values["loss"], "the loss")
        with held_back():
            self._whole = False
            rate = float(schedule.get_last_lr()[0])
            self.optimiser.step()
            self._require_finite(float(get_total_norm(self.network.parameters())), "a weight")
            self.updated()
            schedule.step()
            self.progress.step += 1
            self.progress.seconds = time.monotonic() - began
            self.curve.append({"step": self.progress.step, "learning_rate": rate, **values})
            self._buffers = None
            self._whole = True
        return values

    def _leave(self, error: BaseException) -> None:
        """Save the last moment that was whole."""
        if self.progress.step == 0 or not self._whole or isinstance(error, Diverged):
            return
        with held_back():
            self.optimiser.zero_grad(set_to_none=True)  # room, if memory is what is lacking
            if self._buffers is not None:
                with torch.no_grad():
                    for buffer, before in zip(self.network.buffers(), self._buffers, strict=True):
                        buffer.copy_(before)
            self.save()

    def _require_finite(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            kept = (
                f"the last good model is kept in {self.out}"
                if (self.out / runs.STATE).exists()
                else "no model was saved yet"
            )
            raise Diverged(
                f"The training diverged at step {self.progress.step + 1} ({what} is no longer a number); {kept}. "
                "Try a smaller learning rate."
            )


def check_resume(
    what: str,
    out: Path,
    before: Settings,
    now: Settings,
    may_change: dict[str, Any] | set[str],
    *,
    done: int,
    steps: int,
) -> None:
    """Check that a training can go on with the settings of now.

    Parameters
    ----------
    what
        The training in words.
    out
        Its folder.
    before, now
        The settings that it was begun with, and those that it is to go on with.
    may_change
        Settings that may differ, as pydantic's ``exclude``.
    done, steps
        Optimiser steps that are done, and those of the settings of now.

    Raises
    ------
    ConfigError
        If another setting differs, or more steps are done than are asked for.
    """
    old, new = (settings.model_dump(mode="json", exclude=may_change) for settings in (before, now))
    if (different := first_difference(old, new)) is not None:
        raise ConfigError(
            f"The {what} in {out} was begun with another {different[0]}; resume with equal settings, "
            "or use `overwrite=True`."
        )
    if steps < done:
        raise ConfigError(f"The {what} in {out} has done {done} steps already, more than the {steps} asked for.")
