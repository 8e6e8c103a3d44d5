"""Code that benchmarks share: work in a process of its own, and its memory."""

from __future__ import annotations

import ctypes
import multiprocessing
import queue
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

SPAWN = multiprocessing.get_context("spawn")


def in_process(work: Callable[..., Any], *given: Any) -> Any:
    """Return what a function returns in a process of its own."""
    answers = SPAWN.Queue()
    process = SPAWN.Process(target=_answer, args=(answers, work, *given))
    process.start()
    while True:
        try:
            answer = answers.get(timeout=1)
            break
        except queue.Empty:
            if not process.is_alive():
                raise RuntimeError(f"the process of {work.__name__} ended with {process.exitcode}") from None
    process.join()
    return answer


def _answer(answers: Any, work: Callable[..., Any], *given: Any) -> None:
    answers.put(work(*given))


def memory(name: str = "VmHWM") -> float:
    """Return the peak (or present, ``VmRSS``) memory of this process alone in MB."""
    [kilobytes] = re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) / 1024


def forget_peak() -> None:
    """Give freed memory back to the system, and let the peak begin with what is used now."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
