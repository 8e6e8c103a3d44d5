"""The one bridge between a job, which runs in a thread, and the window, which must never wait for it.

A job is a generator of events. The thread puts them into a queue; a timer of the main thread empties it a few times
a second and hands everything that came to the widgets in one piece. No Qt object is touched outside the main thread.
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
from napari_pbip.events import Event, Finished, Job, Noted, Started, Step, Warned

DRAIN_MS = 100
"""Time between two looks into the queue."""
_FURTHER_DOWN = 10
"""What a job's thread adds to the niceness of the process: about a tenth of a core while the window wants all of it."""


class State(Enum):
    """What a job is doing."""

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
    """A job in a thread. Made, used and watched on the main thread; begins at once.

    Parameters
    ----------
    make
        Makes the job's generator; called in the thread, so that slow beginnings do not stop the window.

    Attributes
    ----------
    state
        What it is doing now.
    result
        The last event of a job that ran to its end.
    error
        Why it failed: a sentence for the user; the original error is its ``__cause__``.
    said
        What somebody who comes late has to hear: the last ``Started`` and ``Step``, the notes and the warnings.
    followed
        Whether a widget shows or showed how far it is.
    told
        Whether a widget told the user how it ended.
    """

    events = Signal(list)
    """Events since the last time, oldest first; never empty."""
    state_changed = Signal(object)
    """The new :class:`State`."""
    ended = Signal(object)
    """The last :class:`State`; comes once, after the last events."""

    def __init__(self, make: JobMaker) -> None:
        super().__init__()
        self.state = State.RUNNING
        self.result: Finished | None = None
        self.error: PbipError | None = None
        self.said: list[Event] = []
        self.followed = self.told = False
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
        """Stop after the present step until :meth:`resume`."""
        if self.state is State.RUNNING:
            self._go.clear()
            self._become(State.PAUSED)

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        if self.state is State.PAUSED:
            self._go.set()
            self._become(State.RUNNING)

    def cancel(self) -> None:
        """Stop after the present step; what is finished is kept. :attr:`ended` tells when."""
        if not self.state.ended:
            self._stop.set()
            self._go.set()
            self._become(State.CANCELLING)

    def wait(self, seconds: float = 30.0) -> bool:
        """Block until the thread is over, for closing the window; whether it is."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            return False
        self.drain()
        return True

    def drain(self) -> None:
        """Hand over what has come; the timer calls this."""
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
            self.said = _summary([*self.said, *batch])
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
        _give_way()
        _queues[threading.get_ident()] = self._queue.put
        try:
            self._queue.put(self._follow(make))
        finally:
            del _queues[threading.get_ident()]

    def _follow(self, make: JobMaker) -> _End:
        job: Job | None = None
        try:
            job = make()
            for event in job:
                self._queue.put(event)
                if isinstance(event, Finished):
                    return _End(State.FINISHED, result=event)
                self._go.wait()
                if self._stop.is_set():
                    job.close()  # saves what is finished, and may fail in it
                    return _End(State.CANCELLED)
        except PbipError as error:
            return _End(State.FAILED, error=error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the user must hear of it
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
        """Start a job as soon as none runs; ``begun`` is told then, unless there is a newer one by that time."""
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


def _give_way() -> None:
    """Let the thread that draws go first, also before those that this one starts, such as torch's.

    A network takes all cores that there are. Only Linux lets a thread lower itself and not the whole process.
    """
    if sys.platform == "linux":
        os.nice(_FURTHER_DOWN)


class _End:
    """What the thread says last."""

    def __init__(self, state: State, result: Finished | None = None, error: PbipError | None = None) -> None:
        self.state, self.result, self.error = state, result, error


_queues: dict[int, Callable[[Event], None]] = {}
"""Where the warnings of a job's thread go, by the thread's identifier."""


def _route_warnings() -> None:
    """Turn warnings of job threads into events: napari would open a notification, in the wrong thread."""
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
    """The last ``Started``, the last ``Step`` since, and all notes and warnings."""
    begun: list[Event] = []
    for event in events:
        if isinstance(event, Started):
            begun = [event]
        elif isinstance(event, Step):
            begun = [*begun[:1], event]
    return [*begun, *(event for event in events if isinstance(event, Noted | Warned))]


def returning(work: Callable[[], object]) -> Job:
    """A function as a job of one step; its value is ``summary["value"]`` of the result."""
    yield Finished(None, {"value": work()})


def last(events: Sequence[Event], kind: type[Any]) -> Any:
    """The newest event of a kind, or None."""
    return next((event for event in reversed(events) if isinstance(event, kind)), None)
