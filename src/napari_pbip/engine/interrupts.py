"""Signals that stop a program (Ctrl+C, SIGTERM), held back while something must not be left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))
"""Signals that ask a program to stop; not every system has each of them."""


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
