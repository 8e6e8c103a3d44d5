"""What napari calls when a file is opened or dropped: slides, score stores, label images and banks.

Only files whose names slides have are ours (``napari.yaml``). Microscopes write TIFF for other ends, and napari asks
the reader of any folder: there a slide is what opens as one, that is RGB, and tiled, pyramidal or of a scanner's own
format. All other TIFF files and folders are opened as napari opens them, so that choosing this reader once, and for
good, is never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import napari
import npe2
import numpy as np
from napari.utils.notifications import show_error

from napari_pbip.errors import PbipError
from napari_pbip.folders import STORE_MARKER
from napari_pbip.results.label_image import is_label_image
from napari_pbip.slides import is_slide, open_slide

LayerData = tuple[Any, ...]
Paths = str | Sequence[str]
Reader = Callable[[Paths], list[LayerData]]
_BETWEEN_SHEETS = 12
"""Pixels."""
_OF_OTHERS_TOO = (".tif", ".tiff")
"""Endings of slides that pictures and stacks of microscopes have as well."""
_NOTHING: list[LayerData] = [(None,)]
"""What napari takes for "read, and there are no layers"."""


def get_reader(path: Paths) -> Reader:
    """The function that reads these paths: as slides, as stores of ours of one kind, or as napari does."""
    paths = [Path(one) for one in _listed(path)]
    for ours, read in ((is_store, read_stores), (is_label_image, read_labels), (is_bank, read_banks)):
        if all(ours(one) for one in paths):
            return read
    return read_slides if all(_is_meant_as_slide(one) for one in paths) else read_as_napari


def _is_meant_as_slide(path: Path) -> bool:
    """By its name where only slides have it: what is wrong with a damaged one is then said in a sentence."""
    shared = path.is_dir() or path.suffix.lower() in _OF_OTHERS_TOO
    return not shared or is_slide(path)


def _listed(path: Paths) -> list[str]:
    return [path] if isinstance(path, str) else list(path)


def _in_one_sentence(read: Reader) -> Reader:
    """Say what is wrong with a file in a sentence where there is a window; napari would show a traceback."""

    @wraps(read)
    def told(path: Paths) -> list[LayerData]:
        try:
            return read(path)
        except PbipError as error:
            if napari.current_viewer() is None:
                raise
            show_error(str(error))
            return _NOTHING

    return told


def read_as_napari(path: Paths) -> list[LayerData]:
    """Layers of what is not ours."""
    layers: list[LayerData] = npe2.read(_listed(path), stack=not isinstance(path, str), plugin_name="napari")
    return layers


@_in_one_sentence
def read_slides(path: Paths) -> list[LayerData]:
    """Layers of slides: multiscale, RGB, in micrometres where they say how large they are."""
    from napari_pbip.gui.layers.slides import layer_data
    from napari_pbip.gui.state.session import begin_session

    begin_session()
    return [layer_data(open_slide(one)) for one in _listed(path)]


def is_store(path: Path) -> bool:
    """Whether this is a score store of ours; a look at one small file."""
    return path.is_dir() and (path / STORE_MARKER).exists()


@_in_one_sentence
def read_stores(path: Paths) -> list[LayerData]:
    """Label layers of score stores, computed from the scores as thresholds ask."""
    from napari_pbip.gui.layers.results import layer_data
    from napari_pbip.gui.state.session import begin_session

    session = begin_session()
    thresholds = None if session is None else session.display.thresholds
    return [layer_data(Path(one), thresholds) for one in _listed(path)]


@_in_one_sentence
def read_labels(path: Paths) -> list[LayerData]:
    """Label layers of label images of ours."""
    from napari_pbip.gui.layers.label_images import layer_data

    return [layer_data(Path(one)) for one in _listed(path)]


def is_bank(path: Path) -> bool:
    """Whether this is an image bank; a look at the folder."""
    from napari_pbip.bank.bank_folder import FACTS

    return (path / FACTS).is_file()


@_in_one_sentence
def read_banks(path: Paths) -> list[LayerData]:
    """The contact sheet of each class of image banks, one below the other."""
    from napari_pbip.bank import ImageBank
    from napari_pbip.bank.sheet import contact_sheets
    from napari_pbip.gui.layers.units import PIXELS

    layers: list[LayerData] = []
    for one in _listed(path):
        folder, top = Path(one), 0
        for name, sheet in contact_sheets(ImageBank.read(folder), folder):
            # napari's own pixel is no length, and would not go with a slide in the same viewer
            options = {"name": f"{folder.name}: {name}", "translate": (top, 0), "units": PIXELS}
            layers.append((np.asarray(sheet), options, "image"))
            top += sheet.height + _BETWEEN_SHEETS
    return layers
