"""Two copies of LLVM in one process: that of Mesa, which draws the window, and that of triton, which torch brings."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from contextlib import suppress
from pathlib import Path


def keep_triton_apart() -> None:
    """Load the library of triton so that it uses the LLVM that it brings; nothing happens where there is no triton.

    Call it before anything imports transformers. Where Mesa draws the window, another LLVM is in the process already,
    and triton, which torch and transformers import if it is installed, would bind to that one and end the process with
    a segmentation fault. Our window is not needed for that: a notebook with a napari viewer meets it in its first job.
    """
    spec = importlib.util.find_spec("triton") if sys.platform == "linux" else None
    if spec is None or "triton" in sys.modules:
        return
    for folder in spec.submodule_search_locations or ():
        for library in Path(folder, "_C").glob("libtriton*.so"):
            with suppress(OSError):  # then importing it would fail just as well, and torch does without
                ctypes.CDLL(str(library), mode=os.RTLD_NOW | os.RTLD_DEEPBIND)
