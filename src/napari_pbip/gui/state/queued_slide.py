"""A slide of the queue, its state, and what is said when it cannot be segmented."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from napari_pbip.config import JobSettings
from napari_pbip.errors import OtherResult, PbipError, UnreadableResult
from napari_pbip.gui.jobs import RunningJob
from napari_pbip.wording import Interface

Rectangle = tuple[float, float, float, float]


class Status(Enum):
    """The state of a slide in the queue."""

    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    LEFT = "waiting (stopped when the project was closed)"
    """It was not done when the project was closed, and waits until the user resumes it."""
    DONE = "done"
    FAILED = "failed"
    OCCUPIED = "see 5 Segment"
    """There is a result that cannot be resumed; the user may keep it beside the new one, replace it, or mend it."""

    @property
    def active(self) -> bool:
        return self in (Status.WAITING, Status.RUNNING, Status.STOPPING)

    @property
    def resumable(self) -> bool:
        return self in (Status.STOPPED, Status.LEFT)


@dataclass(eq=False)
class QueuedSlide:
    """A slide of the queue and its progress."""

    path: Path
    run: Path
    """Folder of the model."""
    settings: JobSettings
    """All settings at the time when the slide was queued."""
    results: Path
    """The project's folder of results at that time."""
    status: Status = Status.WAITING
    sentence: str = ""
    """Sentence for the user: an error or warnings."""
    error: PbipError | None = None
    done: int = 0
    """Number of finished tiles."""
    total: int = 0
    store: Path | None = None
    """Path of the score store, or None while unknown."""
    tissue_mm2: float = 0.0
    advice: str = ""
    """Why most of the finished map is not assigned, and what to change, as sentences; empty if it is not so."""
    view: Rectangle | None = None
    """Rectangle in view in level-0 pixels; written by the window, read by the job."""
    overwrite: bool = False
    """Whether the earlier map is replaced."""
    beside: bool = False
    """Whether the map is made beside those by other models or with other settings."""
    earlier: str = ""
    """Title of the map that was found in the place of this one."""
    job: RunningJob | None = None
    """The job that segments it now, or did last."""
    warnings: list[str] = field(default_factory=list)
    first: int = 0
    """Number of tiles that were finished when the job started."""
    since: float = 0.0
    """When it started, by the monotonic clock; 0 before and after."""

    @property
    def can_keep_both(self) -> bool:
        """Whether there is a map by another model or with other settings, which can be kept beside the new one."""
        other = isinstance(self.error, OtherResult) and self.error.what in ("model", "setting")
        return self.status is Status.OCCUPIED and other

    @property
    def rate(self) -> float:
        """Tiles per second since the job started, or 0 while unknown."""
        took = time.monotonic() - self.since
        return (self.done - self.first) / took if took > 1 and self.since else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Expected seconds to the end, or None while unknown."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None


def what_failed(slide: QueuedSlide, error: PbipError | None) -> str:
    """Return what went wrong with a slide; of a result that exists already, with what the buttons of its row do."""
    if isinstance(error, UnreadableResult):
        return f"There is a result already, but {error.reason}; replace it, or restore it and try again."
    if not isinstance(error, OtherResult):
        return str(error)
    if error.what == "slide":
        return "Its results folder holds another slide; move that away, or choose another project folder."
    if error.what == "model":
        return (
            f"There is a map already, made with another model, “{slide.earlier}”; keep both, replace that one, or "
            "remove this row."
        )
    if error.what == "setting":
        return Interface.WINDOW.sentence(
            f"There is a map already, made by this model with other settings ({error.difference}); keep both, replace "
            "that one, or remove this row."
        )
    return (
        "There is a map already, made by this model when the slide had other microns per pixel; replace it, or remove "
        "this row to keep it."
    )
