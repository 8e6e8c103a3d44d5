"""Jobs in threads, and the transfer of their events to the window, which never waits for them.

A job is a generator of events. Its thread puts them into a queue. A timer of the main thread empties the queue several
times a second and emits all new events at once. No Qt object is used outside the main thread.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, TextIO

from qtpy.QtCore import QObject, QTimer, Signal

from napari_pbip.engine.jobs import JobMaker, explained
from napari_pbip.errors import JobFailed, PbipError
from napari_pbip.events import Event, Finished, Job, Loading, Noted, Started, Step, Warned
from napari_pbip.wording import Interface

DRAIN_MS = 100
"""Milliseconds between two times that the queue is emptied."""
_NICENESS = 5
"""Niceness of job threads relative to the process: they get about a quarter of a core that the window, or another
program, uses fully."""


class State(Enum):
    """The state of a job."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (State.FINISHED, State.FAILED, State.CANCELLED)


class RunningJob(QObject):
    """A job in a thread, which starts at once. This object must be used on the main thread only.

    Parameters
    ----------
    make
        Makes the job's generator; it is called in the thread, because it may be slow.

    Attributes
    ----------
    state
        The present state.
    result
        The last event of a job that ran to its end, else None.
    error
        The error of a job that failed, with a sentence for the user; the original error is its ``__cause__``.
    recent_events
        Events for a widget that connects late: the last ``Started`` and ``Step``, and all notes and warnings.
    followed
        Whether a widget has shown the progress.
    end_shown
        Whether a widget has shown how the job ended.
    reads_maps
        Whether it reads maps of the project, which have to stay where they are until it ends.
    """

    events = Signal(list)
    """Emitted with the events since the last time, oldest first; never with an empty list."""
    state_changed = Signal(object)
    """Emitted with the new :class:`State`."""
    ended = Signal(object)
    """Emitted once, after the last events, with the last :class:`State`."""

    def __init__(self, make: JobMaker) -> None:
        super().__init__()
        self.state = State.RUNNING
        self.result: Finished | None = None
        self.error: PbipError | None = None
        self.recent_events: list[Event] = []
        self.followed = self.end_shown = self.reads_maps = False
        self._queue: queue.SimpleQueue[Event | _End] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._go = threading.Event()
        self._go.set()
        self._thread = threading.Thread(target=self._run, args=(make,), name="napari-pbip-job", daemon=True)
        self._timer = QTimer(self)
        self._timer.setInterval(DRAIN_MS)
        self._timer.timeout.connect(self.drain)
        _route_warnings()
        self._thread.start()
        self._timer.start()

    def pause(self) -> None:
        """Pause after the present step until :meth:`resume` is called."""
        if self.state is State.RUNNING:
            self._go.clear()
            self._become(State.PAUSED)

    def resume(self) -> None:
        """Continue after :meth:`pause`."""
        if self.state is State.PAUSED:
            self._go.set()
            self._become(State.RUNNING)

    def cancel(self) -> None:
        """Stop after the present step, keeping what is finished; :attr:`ended` is emitted when the job has stopped."""
        if not self.state.ended:
            self._stop.set()
            self._go.set()
            self._become(State.CANCELLING)

    def wait(self, seconds: float = 30.0) -> bool:
        """Block until the thread has ended, for closing the window; return whether it has."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            return False
        self.drain()
        return True

    def drain(self) -> None:
        """Emit the events in the queue; the timer calls this."""
        batch: list[Event] = []
        end: _End | None = None
        while end is None:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if isinstance(item, _End):
                end = item
            else:
                batch.append(item)
        if batch:
            self.recent_events = _summary([*self.recent_events, *batch])
            self.events.emit(batch)
        if end is not None:
            self._timer.stop()
            self.result, self.error = end.result, end.error
            self._become(end.state)
            self.ended.emit(end.state)

    def _become(self, state: State) -> None:
        self.state = state
        self.state_changed.emit(state)

    # in the thread -------------------------------------------------------------------------------------------

    def _run(self, make: JobMaker) -> None:
        _lower_priority()
        _queues[threading.get_ident()] = self._queue.put
        try:
            self._queue.put(self._follow(make))
        finally:
            del _queues[threading.get_ident()]

    def _follow(self, make: JobMaker) -> _End:
        job: Job | None = None
        try:
            job = Interface.WINDOW.job(make)
            for event in job:
                self._queue.put(event)
                if isinstance(event, Finished):
                    return _End(State.FINISHED, result=event)
                self._go.wait()
                if self._stop.is_set():
                    job.close()  # saves what is finished, which may fail
                    return _End(State.CANCELLED)
        except PbipError as error:
            return _End(State.FAILED, error=error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the user must see it
            failed = explained(error)
            failed.__cause__ = error
            return _End(State.FAILED, error=failed)
        return _End(State.FAILED, error=JobFailed("The job ended without a result."))


class NewestJob:
    """One job at a time: a newer one stops the one that runs, and begins when that has ended.

    Parameters
    ----------
    start
        Starts a job in a thread.
    """

    def __init__(self, start: Callable[[JobMaker], RunningJob]) -> None:
        self._start = start
        self._next: tuple[JobMaker, Callable[[RunningJob], object]] | None = None
        self.job: RunningJob | None = None
        """The one that runs, or None."""

    def start(self, make: JobMaker, begun: Callable[[RunningJob], object]) -> None:
        """Start a job as soon as none runs; ``begun`` is called then, unless there is a newer one by that time."""
        self._next = make, begun
        if self.job is None:
            self._go()
        else:
            self.job.cancel()

    def stop(self) -> None:
        """Stop the one that runs, and begin none."""
        self._next = None
        if self.job is not None:
            self.job.cancel()

    def _go(self) -> None:
        if self._next is not None:
            (make, begun), self._next = self._next, None
            self.job = self._start(make)
            begun(self.job)
            self.job.ended.connect(self._on_end)

    def _on_end(self, state: State) -> None:
        self.job = None
        self._go()


def _lower_priority() -> None:
    """Lower the priority of this thread, and of those that it starts (such as torch's), below that of drawing.

    A network uses all cores. Only on Linux can a thread lower its own priority without that of the whole process.
    """
    if sys.platform == "linux":
        os.nice(_NICENESS)


class _End:
    """The last entry in the queue: how the job ended."""

    def __init__(self, state: State, result: Finished | None = None, error: PbipError | None = None) -> None:
        self.state, self.result, self.error = state, result, error


_queues: dict[int, Callable[[Event], None]] = {}
"""Functions that take the warnings of a job's thread, by the thread's identifier."""


def _route_warnings() -> None:
    """Turn Python warnings in job threads into events; napari would show a notification from the wrong thread."""
    show = warnings.showwarning
    if getattr(show, "routes_jobs", False):
        return

    def routed(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        put = _queues.get(threading.get_ident())
        if put is not None:
            put(Warned(str(message)))
        else:
            show(message, category, filename, lineno, file, line)

    routed.routes_jobs = True  # type: ignore[attr-defined]
    warnings.showwarning = routed


def _summary(events: Sequence[Event]) -> list[Event]:
    """Return the last ``Started`` or ``Loading``, the last ``Step`` after it, and all notes and warnings."""
    begun: list[Event] = []
    for event in events:
        if isinstance(event, Started | Loading):
            begun = [event]
        elif isinstance(event, Step):
            begun = [*begun[:1], event]
    return [*begun, *(event for event in events if isinstance(event, Noted | Warned))]


def returning(work: Callable[[], object], name: str = "") -> Job:
    """Make a job of a function; its value is ``summary["value"]`` of the result. A name announces it to the user."""
    if name:
        yield Started(name, 1, "parts")
    yield Finished(None, {"value": work()})


def loading(what: str) -> str:
    """Return the sentence that says what is being loaded, and that this takes a while only once."""
    return f"Loading {what}; the first time this takes up to half a minute…"


def last(events: Sequence[Event], kind: type[Any]) -> Any:
    """Return the newest event of a kind, or None."""
    return next((event for event in reversed(events) if isinstance(event, kind)), None)
