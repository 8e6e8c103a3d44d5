"""What a running job says. A job is a generator of these; closing the generator cancels the job.

The command line prints them, the window relays them, a test collects them, a cluster worker logs them.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Started:
    """First event of every job (and of each of its phases) but for what was noted of its data."""

    job: str
    """What is being done, in the user's words, for example ``"Training pbip"``."""
    total: int
    """Units of work ahead, already done ones included (a resumed job starts above zero)."""
    unit: str
    """What is counted: ``"tiles"``, ``"steps"`` ..."""
    done: int = 0
    """Units finished by an earlier run that this one resumes."""


@dataclass(frozen=True, slots=True)
class Step:
    """One unit of work, or a batch of them, is done."""

    done: int
    """Units finished so far, out of ``Started.total``."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Figures of this step, such as the loss terms by name."""


@dataclass(frozen=True, slots=True)
class RunStep(Step):
    """Something was done in one of several runs; ``done`` counts the runs that are finished."""

    run: str = ""
    """Name of the run."""
    finished: bool = False
    """Whether that run has come to its end; ``values`` then are its figures in percent."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """The training data were seen once more, and the model was scored if there is anything to score on."""

    epoch: int
    """Epochs finished, from 1."""
    epochs: int
    scores: Mapping[str, float] = field(default_factory=dict)
    """Validation figures in percent, for example ``oracle/miou`` and ``predicted/miou``."""
    best: bool = False
    """Whether this is the best epoch so far (its model was kept as ``best``)."""


@dataclass(frozen=True, slots=True)
class RegionDone:
    """A rectangle of the score store was written and can be shown."""

    x: int
    """Left edge in score-store pixels (level 0 of the store)."""
    y: int
    width: int
    height: int
    complete: bool = True
    """Whether the rectangle is finished; else more of it will follow."""


@dataclass(frozen=True, slots=True)
class Noted:
    """Something the user should know and need not act on, such as what was recognised in a folder of tiles."""

    message: str
    """One sentence, or a few."""


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the user should know that does not stop the job."""

    message: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Last event of a job that ran to its end."""

    output: Path | None
    """Where the result lies, if it is on disk."""
    summary: Mapping[str, Any] = field(default_factory=dict)
    """The result in short: JSON-ready figures, names and paths."""


Event = Started | Step | Epoch | RegionDone | Noted | Warned | Finished
Job = Generator[Event, None, None]
