"""Modules that are imported in a thread as soon as the first dock opens, so that the window need not wait for them.

The panel *Workflow* comes first, then what napari imports itself when it makes its first layers, then the docks that
are the pages of the panel, then what jobs need, of which torch is the largest.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import threading
import time
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qtpy.QtCore import QTimer

_PANEL = "napari_pbip.gui.workflow_panel"
_LAYERS = ("scipy.ndimage", "pandas", "skimage.color", "skimage.exposure")
"""Modules that napari imports on the main thread when the first layers of pictures and labels are made."""
_DOCKS = ("project", "slides", "label_tiles", "bank", "train", "segment", "legend", "tune", "evaluate")
_JOBS = ("banks.build_bank", "training.train", "inference.segment")
_BEFORE_TORCH = "scipy.stats"
"""A module that asks, while it is being imported, whether its values are torch's, and fails if another thread has
imported a part of torch only."""

_SWITCH_S = 0.0005
"""Seconds after which Python takes its lock from the thread; by default it is ten times as many.

The main thread releases the lock many times while it opens a slide, and waits so long each time to have it again.
"""
_NEVER = 1_000_000_000
_BEAT_MS = 10
_IMPORTLIB = "<frozen importlib._bootstrap>"
_BUSY_S, _LONGEST_S = 0.03, 0.4
"""Seconds since the last beat from which the main thread is busy, and from which it is not waited for."""

_panel = threading.Event()
_stop = threading.Event()
_thread: threading.Thread | None = None
_timer: QTimer | None = None
_beat = 0.0
"""When the main thread last ran its event loop."""
_thresholds: tuple[int, int, int] | None = None


def begin() -> None:
    """Begin to import the modules; further calls do nothing.

    Until :func:`collect_again` is called, Python collects garbage only among the newest objects: the modules make it
    collect all garbage six times, and each time every thread stands still for up to a second.
    """
    global _thread, _thresholds, _timer
    if _thread is None:
        _thresholds = gc.get_threshold()
        gc.set_threshold(*_thresholds[:2], _NEVER)
        _thread = threading.Thread(target=_import_all, name="imports of napari-pbip")
        sys.meta_path.insert(0, _Follower(_thread))
        _timer = QTimer()
        _timer.setInterval(_BEAT_MS)
        _timer.timeout.connect(_on_beat)
        _on_beat()
        _timer.start()
        _thread.start()


def stop() -> None:
    """Import no further module in the thread, because the application ends and Python waits for its threads."""
    _stop.set()
    if _timer is not None:
        _timer.stop()


def collect_again() -> None:
    """Let Python collect all garbage from time to time, as before :func:`begin`; further calls do nothing."""
    global _thresholds
    if _thresholds is not None:
        gc.set_threshold(*_thresholds)
        _thresholds = None


def panel_imported() -> bool:
    """Return whether the modules of the panel *Workflow* have been imported, or could not be."""
    return _panel.is_set()


def finished() -> bool:
    """Return whether the thread has ended."""
    return _thread is not None and not _thread.is_alive()


class _Stopped(BaseException):
    """Ends the imports; no Exception, which a module might catch when another one cannot be imported."""


def _on_beat() -> None:
    global _beat
    _beat = time.monotonic()
    if _timer is not None and finished():
        _timer.stop()


def _give_way() -> None:
    """Wait while the main thread is busy, unless it waits for a module that is being imported here; and not for long.

    Else the two have the lock in turns, and what the main thread does takes twice as long.
    """
    while _BUSY_S < time.monotonic() - _beat < _LONGEST_S and not (_stop.is_set() or _imports_are_awaited()):
        time.sleep(0.001)


def _imports_are_awaited() -> bool:
    """Return whether the main thread waits for a lock of imports: that of a module, or that of all."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return frame is not None and frame.f_code.co_filename == _IMPORTLIB


class _Follower:
    """A finder of modules that finds none, at which the thread of the imports looks at what the window does.

    It waits there while the main thread is busy, and ends at its next module once it shall stop. Importing torch is one
    statement that takes seconds and imports more than a thousand modules. Whichever thread begins it, perhaps that of a
    job, first imports what would fail meanwhile in another one.
    """

    def __init__(self, thread: threading.Thread) -> None:
        self._thread = thread

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if threading.current_thread() is self._thread:
            _give_way()
            if _stop.is_set():
                raise _Stopped
        if name == "torch":
            import_module(_BEFORE_TORCH)
        return None


def _import_all() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
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
        sys.setswitchinterval(interval)
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Follower)]


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
