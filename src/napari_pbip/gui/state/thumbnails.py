"""Small pictures of the bank's tiles, read in a thread and kept while they are likely to be looked at."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache
from PIL import Image
from psygnal import Signal
from qtpy.QtGui import QImage, QPixmap

from napari_pbip.bank import BankTile
from napari_pbip.bank.bank_folder import thumbnail_path
from napari_pbip.engine.jobs import JobMaker
from napari_pbip.errors import DataError
from napari_pbip.events import Finished, Job, Step
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.pictures import read_rgb

SIDE = 72
"""Longest side of a picture, in pixels of the screen."""
_KEPT = 4000
_WANTED = 300
"""Pictures that may wait; what was scrolled past long ago is not read."""
_AT_ONCE = 16

Pixels = npt.NDArray[np.uint8]


class Thumbnails:
    """Pictures by the hash of the tile's file.

    Parameters
    ----------
    start
        Starts a job in a thread and keeps it until it ends.
    """

    arrived = Signal()
    """Pictures that were asked for are there now."""

    def __init__(self, start: Callable[[JobMaker], RunningJob]) -> None:
        self._start = start
        self._pictures: LRUCache[str, QPixmap] = LRUCache(_KEPT)
        self._wanted: dict[str, tuple[Path, Path]] = {}  # oldest first
        self._lock = threading.Lock()
        self._read: queue.SimpleQueue[tuple[str, Pixels | None]] = queue.SimpleQueue()
        self._job: RunningJob | None = None

    def get(self, folder: Path, tile: BankTile) -> QPixmap | None:
        """The picture of a tile, null if it cannot be read; None while it is being read.

        Parameters
        ----------
        folder
            Folder of the bank, in which the pictures of many tiles lie.
        tile
            The tile; its own file is read where the bank has no picture of it.
        """
        picture = self._pictures.get(tile.hash)
        if picture is None:
            with self._lock:
                self._wanted.pop(tile.hash, None)
                self._wanted[tile.hash] = (thumbnail_path(folder, tile), Path(tile.path))
                while len(self._wanted) > _WANTED:
                    del self._wanted[next(iter(self._wanted))]
            self._begin()
        return picture

    def _begin(self) -> None:
        if self._job is None:
            self._job = self._start(self._reading)
            self._job.events.connect(lambda _: self._collect())
            self._job.ended.connect(self._end)

    def _collect(self) -> None:
        while not self._read.empty():
            tile_hash, pixels = self._read.get_nowait()
            self._pictures[tile_hash] = _pixmap(pixels) if pixels is not None else QPixmap()
        self.arrived.emit()

    def _end(self, state: State) -> None:
        self._job = None
        if self._wanted and state is not State.CANCELLED:
            self._begin()

    # in the thread -------------------------------------------------------------------------------------------

    def _reading(self) -> Job:
        done = 0
        while newest := self._newest():
            for tile_hash, paths in newest:
                self._read.put((tile_hash, _small(paths)))
            done += len(newest)
            yield Step(done)
        yield Finished(None)

    def _newest(self) -> list[tuple[str, tuple[Path, Path]]]:
        with self._lock:
            return [self._wanted.popitem() for _ in range(min(_AT_ONCE, len(self._wanted)))]


def _small(paths: tuple[Path, Path]) -> Pixels | None:
    for path in paths:
        try:
            picture = Image.fromarray(read_rgb(path))
        except DataError:
            continue
        picture.thumbnail((SIDE, SIDE))
        return np.asarray(picture)
    return None


def _pixmap(pixels: Pixels) -> QPixmap:
    height, width, _ = pixels.shape
    image = QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
    return QPixmap.fromImage(image)
