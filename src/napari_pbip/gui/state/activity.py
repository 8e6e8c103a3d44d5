"""The jobs of a session outside their docks: in napari's activity dock, and as notifications when they end."""

from __future__ import annotations

import time
from collections.abc import Sequence

from napari.utils import progress
from napari.utils.notifications import show_error, show_info
from psygnal import SignalInstance
from qtpy.QtCore import QTimer

from napari_pbip.events import Event, Loading, Started, Step
from napari_pbip.gui.jobs import RunningJob, State, last
from napari_pbip.gui.timers import single_shot

SHORT = 1.0
"""Seconds that a job must have been running to be announced."""
_REFRESH_MS = 500


class Activity:
    """Announces jobs that take a while and say what they do.

    Parameters
    ----------
    started
        The signal that is emitted with each new job.
    """

    def __init__(self, started: SignalInstance) -> None:
        self._began: dict[RunningJob, float] = {}
        self._bars: dict[RunningJob, progress] = {}
        # by a timer, not by events of jobs: napari processes Qt's events whenever a bar changes
        self._soon = single_shot(_REFRESH_MS, self._refresh)
        started.connect(self._on_start)

    @property
    def running(self) -> list[str]:
        """What the announced jobs do that a dock shows, as phrases."""
        return [bar.desc.removesuffix(": ") for job, bar in self._bars.items() if job.followed]

    def close(self) -> None:
        """Announce nothing more."""
        self._soon.stop()
        self._began.clear()
        while self._bars:
            self._bars.popitem()[1].close()

    def _on_start(self, job: RunningJob) -> None:
        self._began[job] = time.monotonic()
        job.ended.connect(lambda _: self._on_end(job))
        self._soon.start()

    def _refresh(self) -> None:
        for job, began in list(self._began.items()):
            shown = _shown(job.recent_events)
            if shown is None or time.monotonic() - began < SHORT or job not in self._began:
                continue
            what, done, total = shown
            bar = self._bars.get(job)
            if bar is None or bar.desc.removesuffix(": ") != what or bar.total != total:  # a new phase
                if bar is not None:
                    bar.close()
                bar = self._bars[job] = progress(desc=what, total=total, initial=done)
            elif done != bar.n:
                bar.update(done - bar.n)
            if job not in self._began:  # it has ended while napari processed events
                self._close_bar(job)
        if self._began:
            self._soon.start()

    def _on_end(self, job: RunningJob) -> None:
        announced = self._began.pop(job, None) is not None and self._close_bar(job)
        # after the widgets that show the job; by a timer of Qt's own, because one that belonged to the job would be
        # deleted with it while it fires
        QTimer.singleShot(0, lambda: _announce_end(job, announced))

    def _close_bar(self, job: RunningJob) -> bool:
        bar = self._bars.pop(job, None)
        if bar is not None:
            bar.close()
        return bar is not None


def _shown(events: Sequence[Event]) -> tuple[str, int, int] | None:
    """Return what a job does, how much of it is done, and of how much, by its recent events; None if it does not say.

    While something is loaded, both numbers are 0, for which napari shows a bar that moves.
    """
    begun = next((event for event in reversed(events) if isinstance(event, Started | Loading)), None)
    if begun is None:
        return None
    if isinstance(begun, Loading):
        return f"Loading {begun.what}", 0, 0
    step: Step | None = last(events, Step)
    return begun.job, min(begun.done if step is None else step.done, begun.total), begun.total


def _announce_end(job: RunningJob, announced: bool) -> None:
    """Announce how a job ended whose dock is not visible."""
    if not job.followed or job.end_shown:
        return
    started: Started | None = last(job.recent_events, Started)
    if job.error is not None:
        show_error(str(job.error))
    elif announced and started is not None and job.state is State.FINISHED:
        show_info(f"{started.job} is finished.")
