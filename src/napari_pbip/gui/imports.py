"""Modules that are imported in a thread as soon as the first dock opens, so that the window need not wait for them.

The panel *Workflow* comes first, then the docks that are its pages, then what jobs need, of which torch is the largest.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

_PANEL = "napari_pbip.gui.workflow_panel"
_DOCKS = ("project", "slides", "label_tiles", "bank", "train", "segment", "legend", "tune", "evaluate")
_JOBS = ("banks.build_bank", "training.train", "inference.segment")

_panel = threading.Event()
_begun = False


def begin() -> None:
    """Begin to import the modules; further calls do nothing."""
    global _begun
    if not _begun:
        _begun = True
        threading.Thread(target=_import_all, name="imports of napari-pbip").start()


def panel_imported() -> bool:
    """Return whether the modules of the panel *Workflow* have been imported, or could not be."""
    return _panel.is_set()


def _import_all() -> None:
    try:
        import_module(_PANEL)
    finally:
        _panel.set()  # after an error, who needs the module imports it again and reports the error
    for name in _DOCKS:
        import_module(f"napari_pbip.gui.docks.{name}")
    _load_torch()
    for name in _JOBS:
        import_module(f"napari_pbip.engine.{name}")


def _load_torch() -> None:
    """Load the libraries of torch while other threads run.

    Python's lock is held while the import of a module loads a library, which for those of torch is a second, and the
    window stands still; a function that is called through ctypes does not hold it. On Windows, where torch looks for
    libraries in places of its own, the import loads them.
    """
    spec = None if sys.platform == "win32" or "torch" in sys.modules else find_spec("torch")
    for folder in (spec and spec.submodule_search_locations) or ():
        for library in Path(folder, "lib").glob("libtorch_python.*"):
            load = ctypes.CDLL(None).dlopen
            load.argtypes, load.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
            load(os.fsencode(library), os.RTLD_NOW)  # if this fails, the import says why
