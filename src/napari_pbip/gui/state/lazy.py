"""Values that are read in a thread when they are first asked for, and cached."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from cachetools import LRUCache
from psygnal import Signal

from napari_pbip.engine.jobs import JobMaker
from napari_pbip.events import Finished, Job, Step
from napari_pbip.gui.jobs import RunningJob, State

Read = TypeVar("Read")
Value = TypeVar("Value")


class LazyValues(Generic[Read, Value]):
    """Values by key, which are read newest request first.

    Parameters
    ----------
    start
        Function that starts a job in a thread and keeps it until it ends.
    finish
        Makes the value of what was read, on the main thread.
    kept
        Largest number of values.
    wanted
        Largest number of waiting requests; the oldest, such as those that were scrolled past, are dropped.
    """

    arrived = Signal()
    """Emitted when requested values have been read."""

    def __init__(
        self,
        start: Callable[[JobMaker], RunningJob],
        finish: Callable[[Read], Value],
        *,
        kept: int = 4000,
        wanted: int = 300,
    ) -> None:
        self._start = start
        self._finish = finish
        self._values: LRUCache[Hashable, Value] = LRUCache(kept)
        self._most = wanted
        self._wanted: dict[Hashable, Callable[[], Read]] = {}  # oldest first
        self._reading: set[Hashable] = set()
        self._stale: set[Hashable] = set()
        self._lock = threading.Lock()
        self._read: queue.SimpleQueue[tuple[Hashable, Read]] = queue.SimpleQueue()
        self._job: RunningJob | None = None

    def get(self, key: Hashable, read: Callable[[], Read]) -> Value | None:
        """Return the value of a key, or None while this function reads it in a thread."""
        value = self._values.get(key)
        with self._lock:
            if (value is None or key in self._stale) and key not in self._reading:
                self._wanted.pop(key, None)
                self._wanted[key] = read
                while len(self._wanted) > self._most:
                    del self._wanted[next(iter(self._wanted))]
        self._begin()
        return value

    def renew(self, key: Hashable) -> None:
        """Have a value read again when it is next asked for; until it is there, the present one is given."""
        with self._lock:
            self._wanted.pop(key, None)  # that request would read what was there before
            self._stale.add(key)

    def renew_those(self, which: Callable[[Value], bool]) -> None:
        """Have the values that fulfil a condition read again, as :meth:`renew` does."""
        for key, value in list(self._values.items()):
            if which(value):
                self.renew(key)

    def outdated(self, key: Hashable) -> bool:
        """Return whether a value is to be read, or read again."""
        with self._lock:
            return key in self._stale or key in self._wanted or key in self._reading

    def _begin(self) -> None:
        if self._job is None and self._wanted:
            self._job = self._start(self._reading_job)
            self._job.events.connect(lambda _: self._collect())
            self._job.ended.connect(self._end)

    def _collect(self) -> None:
        while not self._read.empty():
            key, read = self._read.get_nowait()
            self._values[key] = self._finish(read)
            self._reading.discard(key)
        self.arrived.emit()

    def _end(self, state: State) -> None:
        self._job = None
        if state is not State.CANCELLED:
            self._begin()

    # in the thread -------------------------------------------------------------------------------------------

    def _reading_job(self) -> Job:
        done = 0
        while (wanted := self._newest()) is not None:
            key, read = wanted
            self._read.put((key, read()))
            done += 1
            yield Step(done)
        yield Finished(None)

    def _newest(self) -> tuple[Hashable, Callable[[], Read]] | None:
        with self._lock:
            if not self._wanted:
                return None
            key, read = self._wanted.popitem()
            self._reading.add(key)
            self._stale.discard(key)
            return key, read
