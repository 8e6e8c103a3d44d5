"""Backbones, encoders, score maps, losses and methods: pure torch."""

import ctypes
import importlib.util
import os
import sys
from contextlib import suppress
from pathlib import Path


def _load_triton_apart() -> None:
    """Load the library of triton so that it uses the LLVM that it brings.

    Where Mesa draws the window, another LLVM is in the process already. Triton, which torch and transformers import
    when it is installed, would bind to that one and end the process with a segmentation fault.
    """
    spec = importlib.util.find_spec("triton") if sys.platform == "linux" else None
    if spec is None or "triton" in sys.modules:
        return
    for folder in spec.submodule_search_locations or ():
        for library in Path(folder, "_C").glob("libtriton*.so"):
            with suppress(OSError):  # then importing it would fail just as well, and torch does without
                ctypes.CDLL(str(library), mode=os.RTLD_NOW | os.RTLD_DEEPBIND)


_load_triton_apart()
