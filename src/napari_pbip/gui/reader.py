"""The napari reader of slides, score stores, label images and banks.

napari calls it for folders and for files with suffixes of slides (``napari.yaml``). Microscopes write TIFF for other
purposes too: a TIFF file or folder counts as a slide if it is RGB, and tiled, pyramidal or in the format of a slide
scanner. All others are opened as napari itself does, so that making this reader the default is never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any

import napari
import npe2
import numpy as np
from napari.utils.notifications import show_error

from napari_pbip.errors import PbipError
from napari_pbip.folders import STORE_MARKER
from napari_pbip.gui.announcing import announce
from napari_pbip.results.label_image import is_label_image
from napari_pbip.slides import is_slide, open_slide

LayerData = tuple[Any, ...]
Paths = str | Sequence[str]
Reader = Callable[[Paths], list[LayerData]]
_BETWEEN_SHEETS = 12
"""Distance between contact sheets in pixels."""
_OF_OTHERS_TOO = (".tif", ".tiff")
"""Suffixes of slides that other pictures and microscope stacks have too."""
_NOTHING: list[LayerData] = [(None,)]
"""The layer data that mean for napari that the file was read and has no layers."""


def get_reader(path: Paths) -> Reader:
    """Return the function that reads these paths: as slides, as results of one kind, or as napari itself does."""
    paths = [Path(one) for one in _listed(path)]
    for ours, read in ((is_store, read_stores), (is_label_image, read_labels), (is_bank, read_banks)):
        if all(ours(one) for one in paths):
            return read
    unknown = [one for one in paths if one.is_dir() or one.suffix.lower() in _OF_OTHERS_TOO]
    if not unknown:  # a suffix that only slides have suffices, so that damage is reported clearly
        return read_slides
    viewer = napari.current_viewer()
    if viewer is None or not _user_waits():
        return read_slides if all(is_slide(one) for one in unknown) else read_as_napari
    return partial(_find_out, viewer, unknown)


def _listed(path: Paths) -> list[str]:
    return [path] if isinstance(path, str) else list(path)


def _in_one_sentence(read: Reader) -> Reader:
    """Show an error of the reader as one sentence if there is a window, where napari would show a traceback."""

    @wraps(read)
    def read_or_report(path: Paths) -> list[LayerData]:
        try:
            return read(path)
        except PbipError as error:
            if napari.current_viewer() is None:
                raise
            announce(error)
            return _NOTHING

    return read_or_report


def read_as_napari(path: Paths) -> list[LayerData]:
    """Read files that are not of this plugin as napari itself does."""
    layers: list[LayerData] = npe2.read(_listed(path), stack=not isinstance(path, str), plugin_name="napari")
    return layers


def _find_out(viewer: napari.Viewer, unknown: Sequence[Path], path: Paths) -> list[LayerData]:
    """Read files and folders as slides if a thread finds that all are slides, else as napari does.

    napari gets no layers. A viewer without a session gets none for files that are no slides.

    Parameters
    ----------
    viewer
        The viewer, whose window is running.
    unknown
        Those of the paths of which their names do not tell whether they are slides.
    path
        The paths.
    """
    from napari_pbip.gui.sessions import session_begun, session_of

    paths, session = _listed(path), session_begun()

    def as_napari(_: object = None) -> None:
        viewer.open(path, stack=not isinstance(path, str), plugin="napari")

    def then(all_are: bool) -> None:
        if all_are:
            for one in paths:
                session_of(viewer).opening.slide(Path(one))
        else:
            as_napari()

    def look() -> bool:
        return all(is_slide(one) for one in unknown)

    if session is None:
        _in_thread(viewer, look, then)
    elif len(paths) == 1:  # its file is read once
        session.opening.slide(Path(paths[0]), otherwise=as_napari, pictures=False)
    else:
        folder = session.folder
        session.in_thread(
            look,
            lambda all_are: then(all_are) if session.folder == folder else None,
            name=f"Looking at {Path(paths[0]).name} and {len(paths) - 1} more",
        )
    return _NOTHING


def _in_thread(viewer: napari.Viewer, work: Callable[[], bool], then: Callable[[bool], None]) -> None:
    """Call a function in a thread, and then another one with its value, unless the window was closed meanwhile."""
    from napari_pbip.gui.jobs import RunningJob, returning

    def ended(_: object) -> None:
        if job.result is not None:
            then(job.result.summary["value"])
        elif job.error is not None:
            show_error(str(job.error))
        job.deleteLater()

    job = RunningJob(lambda: returning(work))
    job.setParent(viewer.window._qt_window)
    job.ended.connect(ended)


@_in_one_sentence
def read_slides(path: Paths) -> list[LayerData]:
    """Read slides as multiscale RGB layers, in micrometres if their microns per pixel are known.

    In a running window they are read in threads, and the session adds their layers; napari gets none. A script gets
    the layers.
    """
    from napari_pbip.gui.layers.slides import layer_data
    from napari_pbip.gui.sessions import begin_session

    session = begin_session()
    if session is not None and _user_waits():
        for one in _listed(path):
            session.opening.slide(Path(one))
        return _NOTHING
    return [layer_data(open_slide(one)) for one in _listed(path)]


def is_store(path: Path) -> bool:
    """Return whether a folder is a score store, which reads one small file."""
    return path.is_dir() and (path / STORE_MARKER).exists()


@_in_one_sentence
def read_stores(path: Paths) -> list[LayerData]:
    """Read score stores as layers of labels, which are computed from the scores and thresholds.

    In a running window they are read in threads, and the session adds their layers, with those of their slides below
    them; napari gets none. A script gets the layers of what it names.
    """
    from napari_pbip.gui.layers.results import layer_data
    from napari_pbip.gui.sessions import begin_session

    session = begin_session()
    if session is not None and _user_waits():
        for one in _listed(path):
            session.opening.result_with_slide(Path(one))
        return _NOTHING
    thresholds = None if session is None else session.display.thresholds
    return [layer_data(Path(one), thresholds) for one in _listed(path)]


def _user_waits() -> bool:
    """Return whether this is called from the event loop of a window, which stands still until it returns.

    It is not in a script, and neither while napari opens the files that were named in the shell, before its event loop
    runs and its window is shown.
    """
    from qtpy.QtCore import QThread

    thread = QThread.currentThread()
    return thread is not None and thread.loopLevel() > 0


@_in_one_sentence
def read_labels(path: Paths) -> list[LayerData]:
    """Read label images of this package as layers of labels."""
    from napari_pbip.gui.layers.label_images import layer_data

    return [layer_data(Path(one)) for one in _listed(path)]


def is_bank(path: Path) -> bool:
    """Return whether a folder is an image bank."""
    from napari_pbip.bank.bank_folder import FACTS

    return (path / FACTS).is_file()


@_in_one_sentence
def read_banks(path: Paths) -> list[LayerData]:
    """Read image banks as layers: the contact sheet of each class, one below the other."""
    from napari_pbip.bank import ImageBank
    from napari_pbip.bank.sheet import contact_sheets
    from napari_pbip.gui.layers.units import PIXELS

    layers: list[LayerData] = []
    for one in _listed(path):
        folder, top = Path(one), 0
        for name, sheet in contact_sheets(ImageBank.read(folder), folder):
            # napari's own unit, the pixel, is not a length and cannot be combined with slides in one viewer
            options = {"name": f"{folder.name}: {name}", "translate": (top, 0), "units": PIXELS}
            layers.append((np.asarray(sheet), options, "image"))
            top += sheet.height + _BETWEEN_SHEETS
    return layers
