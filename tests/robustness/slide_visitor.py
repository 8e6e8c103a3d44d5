"""A process that opens slides whose paths come in, one a line, and says what became of each, one line of JSON.

It dies (by the system's hand) of a slide that costs more than ten seconds of processor time; whoever started it then
starts another.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np

from napari_pbip.config import TissueSettings
from napari_pbip.errors import SlideError
from napari_pbip.slides import Slide, find_tissue, is_slide, open_slide

SECONDS = 10
MEMORY = 2 << 30
"""Bytes that may be added to what a process that has just imported the package has."""
_WHOLE = 100_000_000
"""Pixels of the coarsest level that are read as a whole; a damaged header can make it larger than time allows."""


def visit(path: Path) -> dict[str, str]:
    """Do everything with a slide; return the outcome and, if it was refused, the sentences."""
    said = []
    is_slide(path)
    try:
        with open_slide(path) as slide:
            said += [*slide.notes, *_read(slide)]
        with open_slide(path, mpp=0.5) as slide:
            if slide.levels[-1].width * slide.levels[-1].height < _WHOLE:
                find_tissue(slide, TissueSettings(smallest_um=0))
    except SlideError as error:
        said.append(str(error))
    wrong = [one for one in said if "\n" in one or not one.endswith(".") or len(one) > 1000]
    if wrong:
        return {"outcome": "no sentence", "said": wrong[0]}
    return {"outcome": "refused or told" if said else "read", "said": said[-1] if said else ""}


def _read(slide: Slide) -> list[str]:
    """Read parts of a slide; return in words what went wrong."""
    said = []
    rng = np.random.default_rng(zlib.crc32(slide.path.name.encode()))
    parts = [lambda: slide.identity]
    if slide.levels[-1].width * slide.levels[-1].height < _WHOLE:
        parts.append(lambda: slide.thumbnail(256))
    for number, level in enumerate(slide.levels):
        for _ in range(3):
            x, y = rng.integers(0, max(1, level.width)), rng.integers(0, max(1, level.height))
            parts.append(lambda n=number, x=int(x), y=int(y): slide.read_level(n, x, y, 300, 300))
    parts += [lambda name=name: slide.read_associated(name) for name in slide.associated]
    parts.append(lambda: slide.read(-50, 30, 224, 224, 1.0) if slide.mpp else None)
    for part in parts:
        try:
            part()
        except SlideError as error:
            said.append(str(error))
    return said


def _peak() -> int:
    """Return the peak memory of this process in bytes; ``ru_maxrss`` of Linux starts with that of the parent."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """Answer paths until the input ends."""
    with suppress(ValueError, OSError):  # macOS has no such limit
        pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
        limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            answer = visit(Path(line.rstrip("\n")))
        except BaseException:  # noqa: BLE001 (what is to be found)
            answer = {"outcome": "traceback", "said": traceback.format_exc()[-3000:]}
        signal.setitimer(signal.ITIMER_PROF, 0)
        answer["peak"] = str(_peak())
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
