"""Signals that stop a program (Ctrl+C, SIGTERM, a session that ends): how they are answered, and when they wait."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))
"""Signals that ask a program to stop; not every system has each of them."""
_ONE_STOP_SECONDS = 1.0
"""A second signal within this time tells of the same stop: the terminal sends one, and so does what started us."""


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
    """Let all stopping signals raise an exception in the main thread, as Python has it for Ctrl+C only.

    A job then saves what is finished. Signals that are ignored stay so, as nohup has it.
    """
    answer = _Answer()
    for number in STOPPING:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, answer)


def let_signals_kill() -> None:
    """Everything is saved: a further signal need not wait for threads that are still reading."""
    for number in STOPPING:
        if isinstance(signal.getsignal(number), _Answer):
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def held_back() -> Iterator[None]:
    """Let a stopping signal wait until the block has ended, and be answered then, as it would have been before.

    Python answers signals in the main thread, by raising an exception between any two of its instructions. In other
    threads, where that never happens, this does nothing. Where the block itself fails, its error is what leaves it:
    the program stops for that one, and the user has to hear of it.
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
