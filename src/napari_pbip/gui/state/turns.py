"""Slow functions that are called in threads one at a time, in the order in which they were asked for."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_pbip.errors import PbipError
from napari_pbip.gui.jobs import RunningJob

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session

Work = Callable[[], Any]


class Turns:
    """Calls slow functions in threads, each when those before it have ended.

    Attributes
    ----------
    busy
        Whether one of them is running.
    """

    busy_changed = Signal(bool)
    """Emitted with :attr:`busy` when it has changed; a function that follows at once is another one."""

    def __init__(self, session: Session) -> None:
        # a part of the session, which has only a proxy of it, may pass that
        self._session: Session = session if isinstance(session, weakref.ProxyTypes) else weakref.proxy(session)
        self._waiting: deque[
            tuple[Callable[[], Work | None], Callable[[Any], None], Callable[[PbipError], None], str]
        ] = deque()
        self._job: RunningJob | None = None
        self.busy = False

    def add(
        self,
        make: Callable[[], Work | None],
        then: Callable[[Any], None],
        otherwise: Callable[[PbipError], None],
        name: str = "",
    ) -> None:
        """Call a function in a thread when its turn has come.

        Parameters
        ----------
        make
            Returns the function, or None if there is nothing to do any more; called on the main thread when the turn
            has come, which is at once if nothing is running.
        then, otherwise
            Take the value or the error of the function, as with ``Session.in_thread``.
        name
            What napari's activity dock says of it, as with ``Session.in_thread``.
        """
        self._waiting.append((make, then, otherwise, name))
        self._next()

    def after(self, act: Callable[[], object]) -> None:
        """Call a quick function on the main thread when all before it have ended: at once if nothing is running."""

        def make() -> None:
            act()

        self.add(make, lambda _: None, lambda _: None)

    def wait(self) -> None:
        """Wait until all have ended."""
        while self._job is not None:
            self._job.wait()

    def _next(self) -> None:
        while self._waiting and not self.busy:
            make, then, otherwise, name = self._waiting.popleft()
            work = make()
            if work is not None:
                self._become(True)
                self._job = self._session.in_thread(work, partial(self._end, then), partial(self._end, otherwise), name)

    def _end(self, act: Callable[[Any], None], value: Any) -> None:
        self._job = None
        self._become(False)
        act(value)
        self._next()

    def _become(self, busy: bool) -> None:
        self.busy = busy
        self.busy_changed.emit(busy)
