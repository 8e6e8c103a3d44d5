"""Small pictures for lists and tables, read in a thread and cached."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from qtpy.QtGui import QImage, QPixmap

from napari_pbip.bank import BankTile
from napari_pbip.bank.bank_folder import thumbnail_path
from napari_pbip.engine.jobs import JobMaker
from napari_pbip.errors import DataError
from napari_pbip.gui.jobs import RunningJob
from napari_pbip.gui.state.lazy import LazyValues
from napari_pbip.pictures import read_rgb

SIDE = 72
"""Longer side of a tile's thumbnail in screen pixels."""

Pixels = npt.NDArray[np.uint8]


class Thumbnails(LazyValues[Pixels | None, QPixmap]):
    """Thumbnails by any key, such as the hash of a tile's file; one that cannot be read is a null pixmap."""

    def __init__(self, start: Callable[[JobMaker], RunningJob]) -> None:
        super().__init__(start, pixmap)


def read_tile(folder: Path, tile: BankTile) -> Pixels | None:
    """Read the thumbnail of a tile in the folder of a bank, else the tile's own file; None if neither can be read."""
    for path in (thumbnail_path(folder, tile), Path(tile.path)):
        try:
            picture = Image.fromarray(read_rgb(path))
        except DataError:
            continue
        picture.thumbnail((SIDE, SIDE))
        return np.asarray(picture)
    return None


def pixmap(pixels: Pixels | None) -> QPixmap:
    """Return a picture for the screen; a null pixmap for None."""
    if pixels is None:
        return QPixmap()
    height, width, _ = pixels.shape
    return QPixmap.fromImage(QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888))
