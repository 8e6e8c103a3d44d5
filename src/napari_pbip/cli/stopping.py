"""Being stopped from outside: Ctrl+C, SIGTERM (as timeout and scancel send it), the end of a remote session."""

from __future__ import annotations

import signal
import time
from types import FrameType

from napari_pbip.engine.interrupts import STOPPING

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


class _Answer:
    """Answers a signal with an exception in the main thread, as Python itself does for Ctrl+C only."""

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


def answer_signals() -> None:
    """Let stopping signals end the program as Ctrl+C does: a job saves what is finished.

    Those that are ignored stay so, as nohup has it.
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
