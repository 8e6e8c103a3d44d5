"""Small pictures for lists and tables, read in a thread and cached."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from qtpy.QtGui import QPixmap

from napari_pbip.bank import BankTile
from napari_pbip.bank.bank_folder import thumbnail_path
from napari_pbip.engine.jobs import JobMaker
from napari_pbip.errors import DataError
from napari_pbip.gui.jobs import RunningJob
from napari_pbip.gui.pixmaps import READ, RGB, pixmap
from napari_pbip.gui.state.lazy import LazyValues
from napari_pbip.pictures import read_rgb

SIDE = 72
"""Longer side of a tile's thumbnail in points."""


class Thumbnails(LazyValues[RGB | None, QPixmap]):
    """Thumbnails by any key, such as the hash of a tile's file; one that cannot be read is a null pixmap.

    Parameters
    ----------
    start
        Function that starts a job in a thread and keeps it until it ends.
    side
        Longer side of a thumbnail in points.
    """

    def __init__(self, start: Callable[[JobMaker], RunningJob], side: int = SIDE) -> None:
        super().__init__(start, partial(pixmap, side=side))


def read_tile(folder: Path, tile: BankTile) -> RGB | None:
    """Read the thumbnail of a tile in the folder of a bank, else the tile's own file; None if neither can be read."""
    for path in (thumbnail_path(folder, tile), Path(tile.path)):
        try:
            picture = Image.fromarray(read_rgb(path))
        except DataError:
            continue
        picture.thumbnail((READ * SIDE, READ * SIDE))
        return np.asarray(picture)
    return None
