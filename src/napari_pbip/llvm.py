"""Separation of two copies of LLVM in one process: that of Mesa, which draws the window, and that of triton."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from contextlib import suppress
from pathlib import Path


def keep_triton_apart() -> None:
    """Load the library of triton with its own LLVM; do nothing if triton is not installed.

    It must be called before transformers is imported. If Mesa draws a window, its LLVM is in the process already.
    Triton, which torch and transformers import if it is installed, would then use that one and crash the process with a
    segmentation fault. This also happens without the window of this package, in a notebook with a napari viewer.
    """
    spec = importlib.util.find_spec("triton") if sys.platform == "linux" else None
    if spec is None or "triton" in sys.modules:
        return
    for folder in spec.submodule_search_locations or ():
        for library in Path(folder, "_C").glob("libtriton*.so"):
            with suppress(OSError):  # importing triton would fail too, and torch works without it
                ctypes.CDLL(str(library), mode=os.RTLD_NOW | os.RTLD_DEEPBIND)
