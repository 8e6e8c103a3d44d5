"""The training loop: optimiser steps, learning rate, and consistent saves, however the training ends."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from napari_pbip.config import Settings, first_difference
from napari_pbip.engine import runs
from napari_pbip.engine.training.processes import Processes
from napari_pbip.errors import ConfigError, ModelError
from napari_pbip.events import Event, Started, Step
from napari_pbip.models.seeding import seeded
from napari_pbip.models.shares import share_batch_norms, shared
from napari_pbip.signals import held_back

Batch = TypeVar("Batch")
Loss = tuple[torch.Tensor, Mapping[str, torch.Tensor]]
"""The loss of a batch, and scalars for the curves by name."""


class Progress(Protocol):
    """The progress of a training."""

    step: int
    """Number of finished optimiser steps."""
    seconds: float
    """Seconds spent on them, including those before the training was resumed."""


class Diverged(ModelError):
    """The loss or the weights are no longer finite numbers."""


class TrainingLoop(ABC, Generic[Batch]):
    """Trains a network batch by batch; a subclass defines the loss, and what is saved besides the state.

    The loop saves when a subclass asks for it, when a save is overdue, after the last step, and whenever it is left: by
    closing the generator, by an error, and by Ctrl+C or another signal that raises an exception in the middle of a
    step. A save is always of a finished step; an unfinished step is undone. If the update of the weights itself fails,
    which cannot be undone, or the training diverges, the loop does not save, and the previous save remains.

    Of several processes, each goes through the same loop with the same batches; only the leader saves.

    Parameters
    ----------
    progress
        Progress of the training, which the loop updates.
    network
        The network to be trained, on its device.
    optimiser
        Its optimiser, with the peak learning rate.
    out
        Folder of the state and the curves.
    steps
        Total number of optimiser steps.
    seed
        Seed of randomness in the network (dropout); it is set for every step, so that a resumed training is the same.
    save_every
        Seconds after which a save is overdue: a crash costs no more than that.
    processes
        The processes that train together.
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
        processes: Processes,
    ) -> None:
        self.processes = processes
        self.progress, self.network, self.optimiser, self.out = progress, network, optimiser, out
        self.steps, self.seed, self.save_every = steps, seed, save_every
        self.curve: runs.Curve = []
        self._whole = True
        self._buffers: list[torch.Tensor] | None = None
        self._saved_at = time.monotonic()
        self._loss: Callable[[Batch], Loss] = self.loss

    # what a subclass defines --------------------------------------------------------------------------------------

    @abstractmethod
    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0, as a share of the peak."""

    @abstractmethod
    def loss(self, batch: Batch) -> Loss:
        """Return the loss, a scalar, and scalars for the curves by name; the names are the same in every step."""

    @abstractmethod
    def write(self) -> None:
        """Write the files of a save other than curves and state."""

    def updated(self) -> None:
        """Called in a step after the optimiser has changed the weights."""

    def between_steps(self) -> Generator[Event, None, bool]:
        """Called before the first step and after each step; yields events, and returns whether to save.

        It is called in the leader only; the other processes wait for it in their next step.
        """
        yield from ()
        return False

    def restored(self, facts: Mapping[str, str]) -> None:
        """Called with the :attr:`state_facts` of the save that is resumed; empty if an older version wrote it."""

    @property
    def state_facts(self) -> dict[str, str]:
        """Facts that are saved in the file of the state, so that they always belong to the same step as the weights."""
        return {}

    # what all trainings share -------------------------------------------------------------------------------------

    def run(self, name: str, batches: Generator[Batch, None, None], *, resume: bool) -> Generator[Event, None, None]:
        """Train; yields ``Started``, a ``Step`` with the loss terms for each step, and the events of ``between_steps``.

        Parameters
        ----------
        name
            Name of the job.
        batches
            Batches of the steps from ``progress.step``; the first is requested after the last save was read.
        resume
            Whether to continue from the last save, if there is one.

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
        if self.processes.several:
            self._loss = self._shared_loss()  # the others have read the last save when this returns
        yield Started(name, self.steps, "steps", progress.step)
        first = progress.step
        began = time.monotonic() - progress.seconds
        schedule = LambdaLR(self.optimiser, lambda done: self.rate(first + done))
        self.network.train()
        with closing(batches):
            try:
                asked = yield from self._between_steps()  # a stop during a validation may have left it undone
                if asked or first:  # a kill during a save may have left files of different steps
                    self.save()
                for batch in batches:
                    terms = self._step(batch, schedule, began)
                    yield Step(progress.step, terms)
                    asked = yield from self._between_steps()
                    overdue = time.monotonic() - self._saved_at > self.save_every
                    if asked or overdue or progress.step == self.steps:
                        self.save()
            except BaseException as error:  # cancelling and signals included: save what was computed
                self._leave(error)
                raise

    def save(self) -> None:
        """Write everything that resuming needs; signals are delayed until it is written."""
        if not self.processes.leads:
            return
        with held_back():
            self._whole = False  # so that a save that fails is not repeated
            runs.write_curves(self.out, self.curve)
            runs.write_state(self.out, self.network, self.optimiser, self.progress.step, self.state_facts)
            self.write()
            self._whole = True
            self._saved_at = time.monotonic()

    def _step(self, batch: Batch, schedule: LambdaLR, began: float) -> Mapping[str, float]:
        """Do one optimiser step; return the loss and its terms."""
        # a forward pass may change buffers, such as running means or a memory of features
        self._buffers = [buffer.clone() for buffer in self.network.buffers()]
        # Dropout draws from torch's global state: seeding it by the step makes a resumed run draw the same.
        with seeded(self.seed * 1_000_003 + self.progress.step, self.processes.device):
            loss, terms = self._loss(batch)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        # together, because a graphics card is waited for
        numbers = torch.stack([loss.detach(), *(term.detach() for term in terms.values())]).cpu().tolist()
        values = dict(zip(("loss", *terms), numbers, strict=True))
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

    def _between_steps(self) -> Generator[Event, None, bool]:
        return (yield from self.between_steps()) if self.processes.leads else False

    def _shared_loss(self) -> Callable[[Batch], Loss]:
        """Return the loss as all processes compute it together; the gradients are then those of the whole batch."""
        share_batch_norms(self.network)
        module = _LossModule(self.network, self.loss)
        return DistributedDataParallel(module, find_unused_parameters=True)  # the heads of some stages may not be used

    def _leave(self, error: BaseException) -> None:
        """Undo an unfinished step and save, if that is possible."""
        if self.progress.step == 0 or not self._whole or isinstance(error, Diverged):
            return
        with held_back():
            self.optimiser.zero_grad(set_to_none=True)  # frees memory, which may be full
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


class _LossModule(nn.Module, Generic[Batch]):
    """The loss of a training as a module, which ``DistributedDataParallel`` asks for."""

    def __init__(self, network: nn.Module, loss: Callable[[Batch], Loss]) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, batch: Batch) -> Loss:
        with shared():
            loss, terms = self.loss(batch)
        return loss, {name: term.detach() for name, term in terms.items()}  # gradients come from the loss alone


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
    """Check that a training can be resumed with these settings.

    Parameters
    ----------
    what
        What the message calls the training.
    out
        Folder of the training.
    before, now
        The earlier and the present settings.
    may_change
        Settings that may differ, as pydantic's ``exclude``.
    done, steps
        Finished optimiser steps, and those that the present settings ask for.

    Raises
    ------
    ConfigError
        If another setting differs, or more steps are finished than are asked for.
    """
    old, new = (settings.model_dump(mode="json", exclude=may_change) for settings in (before, now))
    if (different := first_difference(old, new)) is not None:
        raise ConfigError(
            f"The {what} in {out} was begun with another {different[0]}; resume with equal settings, "
            "or use `overwrite=True`."
        )
    if steps < done:
        raise ConfigError(f"The {what} in {out} has done {done} steps already, more than the {steps} asked for.")
