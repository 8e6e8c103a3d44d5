"""Modules that are imported in a thread as soon as the first dock opens, so that the window need not wait for them.

The panel *Workflow* comes first, then what napari imports itself when it makes its first layers, then the docks that
are the pages of the panel, then what jobs need, of which torch is the largest.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_PANEL = "napari_pbip.gui.workflow_panel"
_LAYERS = ("scipy.ndimage", "pandas", "skimage.color", "skimage.exposure")
"""Modules that napari imports on the main thread when the first layers of pictures and labels are made."""
_DOCKS = ("project", "slides", "label_tiles", "bank", "train", "segment", "legend", "tune", "evaluate")
_JOBS = ("banks.build_bank", "training.train", "inference.segment")

_panel = threading.Event()
_stop = threading.Event()
_thread: threading.Thread | None = None


def begin() -> None:
    """Begin to import the modules; further calls do nothing."""
    global _thread
    if _thread is None:
        _thread = threading.Thread(target=_import_all, name="imports of napari-pbip")
        sys.meta_path.insert(0, _Stopping(_thread))
        _thread.start()


def stop() -> None:
    """Import no further module in the thread, because the application ends and Python waits for its threads."""
    _stop.set()


def panel_imported() -> bool:
    """Return whether the modules of the panel *Workflow* have been imported, or could not be."""
    return _panel.is_set()


def finished() -> bool:
    """Return whether the thread has ended."""
    return _thread is not None and not _thread.is_alive()


class _Stopped(BaseException):
    """Ends the imports; no Exception, which a module might catch when another one cannot be imported."""


class _Stopping:
    """A finder of modules that finds none, and ends the thread of the imports at its next module once it shall stop.

    Importing torch is one statement that takes seconds and imports more than a thousand modules.
    """

    def __init__(self, thread: threading.Thread) -> None:
        self._thread = thread

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if _stop.is_set() and threading.current_thread() is self._thread:
            raise _Stopped
        return None


def _import_all() -> None:
    try:
        try:
            import_module(_PANEL)
        finally:
            _panel.set()  # after an error, who needs the module imports it again and reports the error
        _prepare_layers()
        for name in _DOCKS:
            import_module(f"napari_pbip.gui.docks.{name}")
        _load_catalogues()
        _load_torch()
        for name in _JOBS:
            import_module(f"napari_pbip.engine.{name}")
    except _Stopped:
        pass
    finally:
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Stopping)]


def _prepare_layers() -> None:
    """Import what napari needs for its first layers, and have vispy compute the dashes that each labels layer has."""
    for name in _LAYERS:
        with contextlib.suppress(ImportError):  # other versions of napari may need other modules
            import_module(name)
    import_module("vispy.visuals.line.dash_atlas").DashAtlas()


def _load_catalogues() -> None:
    """Look through the entry points of all packages for plugins, whose catalogues are kept."""
    from napari_pbip.config.methods import methods
    from napari_pbip.models.encoders import catalogue
    from napari_pbip.slides.reader import readers

    methods()
    catalogue()
    readers()


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
