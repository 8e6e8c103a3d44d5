"""Handling of the signals that stop a program (Ctrl+C, SIGTERM, the end of a session), and delaying them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))
"""Signals that ask a program to stop; not every operating system has all of them."""
_ONE_STOP_SECONDS = 1.0
"""Seconds in which a second signal counts as the same stop: the terminal and the parent process may both send one."""


class Stopped(SystemExit):
    """A signal other than Ctrl+C asked the program to stop.

    Attributes
    ----------
    status
        Exit code of the program: 128 and the signal's number.
    """

    def __init__(self, number: int) -> None:
        self.status = 128 + number
        super().__init__(self.status)


def answer_signals() -> None:
    """Make all stopping signals raise an exception in the main thread, as Python does for Ctrl+C only.

    A job then saves what is finished. Ignored signals stay ignored, as ``nohup`` needs it.
    """
    answer = _Answer()
    for number in STOPPING:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, answer)


def let_signals_kill() -> None:
    """Let a further signal kill the process at once; to be called when everything is saved."""
    for number in STOPPING:
        if isinstance(signal.getsignal(number), _Answer):
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def held_back() -> Iterator[None]:
    """Delay stopping signals until the block has ended.

    Python handles signals in the main thread by raising an exception between any two instructions. In other threads,
    where that never happens, this does nothing. If the block itself raises an error, that error is raised instead of
    the signal's, because the user needs to see it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[tuple[int, FrameType | None]] = []

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append((number, frame))

    # a signal that is ignored, or kills the process at once, raises nothing
    handlers = {number: handler for number in STOPPING if callable(handler := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number, frame in arrived[:1]:
        handlers[number](number, frame)


class _Answer:
    def __init__(self) -> None:
        self._before = -_ONE_STOP_SECONDS

    def __call__(self, number: int, _: FrameType | None) -> None:
        now, before = time.monotonic(), self._before
        if now - before < _ONE_STOP_SECONDS:
            return
        self._before = now
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Stopped(number)
