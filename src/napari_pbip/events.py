"""The events of jobs. A job is a generator of events; closing the generator cancels the job.

The command line and notebooks show them as progress bars, and the window in its widgets.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Started:
    """First event of every job and of each of its phases; only notes on its data, and loading, may come before."""

    job: str
    """Description of the work for the user, for example ``"Training pbip"``."""
    total: int
    """Number of units of work, including those that are already done (a resumed job starts above zero)."""
    unit: str
    """Name of the units: ``"tiles"``, ``"steps"`` ..."""
    done: int = 0
    """Units that an earlier, resumed run has finished."""


@dataclass(frozen=True, slots=True)
class Loading:
    """Something large is being loaded before the work begins, which may take half a minute the first time."""

    what: str
    """What it is, for the user, for example ``"the encoder conch"``."""


@dataclass(frozen=True, slots=True)
class Step:
    """One unit of work, or a batch of them, is done."""

    done: int
    """Number of finished units, out of ``Started.total``."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Values of this step by name, such as the loss terms."""


@dataclass(frozen=True, slots=True)
class RunStep(Step):
    """Progress in one of several runs; ``done`` counts the finished runs."""

    run: str = ""
    """Name of the run."""
    finished: bool = False
    """Whether that run has ended; ``values`` are then its metrics in percent."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch of training has ended, with the validation scores if there are validation masks."""

    epoch: int
    """Number of finished epochs, from 1."""
    epochs: int
    scores: Mapping[str, float] = field(default_factory=dict)
    """Validation metrics in percent, for example ``oracle/miou`` and ``predicted/miou``."""
    best: bool = False
    """Whether this is the best epoch so far, whose model was saved as ``best``."""


@dataclass(frozen=True, slots=True)
class RegionDone:
    """A rectangle of the score store was written and can be shown."""

    x: int
    """Left edge in cells of the store's level 0."""
    y: int
    width: int
    height: int
    complete: bool = True
    """Whether the rectangle is finished; else it will be written again."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A note to the user that needs no action, such as what was recognised in a folder of tiles."""

    message: str
    """One or several sentences."""


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning to the user that does not stop the job."""

    message: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Last event of a job that ran to its end."""

    output: Path | None
    """Path of the result, or None if it is not on disk."""
    summary: Mapping[str, Any] = field(default_factory=dict)
    """Summary of the result: numbers, names and paths for JSON."""


Event = Started | Loading | Step | Epoch | RegionDone | Noted | Warned | Finished
Job = Generator[Event, None, None]
