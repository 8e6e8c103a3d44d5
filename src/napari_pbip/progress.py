"""Running a job to its end with progress bars, in notebooks, scripts and on the command line."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from napari_pbip.events import Epoch, Event, Finished, Job, Loading, Noted, RunStep, Started, Step, Warned

# Names, paths and messages of libraries hold brackets and colons: nothing that is printed is read as markup.
console = Console(stderr=True, markup=False, emoji=False, highlight=False)
"""Console for everything but results: the error output."""
_UPDATE_SECONDS = 0.5
_log = logging.getLogger("napari_pbip")


def run(job: Job, progress: bool = True) -> Finished:
    """Run a job to its end.

    An interrupt (Ctrl+C, or the stop button of a notebook) stops the job, which keeps what is finished.

    Parameters
    ----------
    job
        A job, as :func:`napari_pbip.train` and similar functions return it.
    progress
        Whether progress bars are shown, with notes, warnings and scores as lines above them, on the error output or in
        the notebook; else notes and warnings go to the logger ``napari_pbip``.

    Returns
    -------
    Finished
        The last event of the job: ``output`` is the path of its result, ``summary`` its numbers, names and paths.

    Raises
    ------
    PbipError
        The error of the job, as documented there.
    """
    with closing(job):
        if not progress:
            return _follow(job, _log_event)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        bars = Progress(*columns, console=console)
        if console.is_jupyter:
            return _follow(job, _NotebookDisplay(bars).show)
        with bars:
            return _follow(job, _Display(bars).show)


def _follow(job: Job, show: Callable[[Event], None]) -> Finished:
    """Go through a job to its end."""
    finished = Finished(None)
    for event in job:
        show(event)
        if isinstance(event, Finished):
            finished = event
    return finished


def _log_event(event: Event) -> None:
    match event:
        case Noted():
            _log.info("%s", event.message)
        case Warned():
            _log.warning("%s", event.message)


class _Display:
    """Shows a bar for each phase of a job, and lines above the bars."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._bar: TaskID | None = None

    def show(self, event: Event) -> None:
        match event:
            case Started():
                self._bar = self._bars.add_task(event.job, total=event.total, completed=event.done, note=event.unit)
                if not (self._bars.console.is_terminal or self._bars.console.is_jupyter):  # a log: bars come at its end
                    self._line(event.job)
            case RunStep() if event.finished:
                self._line(f"{event.run}  {_figures(event.values)}")
                self._update(event.done, note="")
            case Step():
                note = {"note": event.run} if isinstance(event, RunStep) else {}
                if "loss" in event.values:
                    note = {"note": f"loss {event.values['loss']:.3f}"}
                self._update(event.done, **note)
            case Epoch() if event.scores:
                best = "  (best so far)" if event.best else ""
                self._line(f"epoch {event.epoch}/{event.epochs}  {_figures(event.scores)}{best}")
            case Loading():
                self._line(f"Loading {event.what}…")
            case Noted():
                self._line(event.message)
            case Warned():
                self._line(("Note:", "yellow"), f" {event.message}")

    def _update(self, done: int, **note: Any) -> None:
        """Move the bar, and change the note at it if one is given."""
        if self._bar is not None:
            self._bars.update(self._bar, completed=done, **note)

    def _line(self, *parts: str | tuple[str, str]) -> None:
        self._bars.console.print(Text.assemble(*parts), soft_wrap=True)


class _NotebookDisplay(_Display):
    """The same in a notebook, where rich itself would need ipywidgets in the kernel and in the front end."""

    def __init__(self, bars: Progress) -> None:
        super().__init__(bars)
        from IPython.display import display

        self._shown: Any = display(bars, display_id=True)  # type: ignore[no-untyped-call]  # IPython's own
        self._next_update = 0.0

    def show(self, event: Event) -> None:
        super().show(event)
        if isinstance(event, Started | Finished) or time.monotonic() >= self._next_update:
            self._shown.update(self._bars)
            self._next_update = time.monotonic() + _UPDATE_SECONDS


def _figures(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.1f}" for name, value in values.items())
