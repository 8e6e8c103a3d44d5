"""Pixels that are an array already: numpy, dask, zarr, and whatever else is sliced as these are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import product
from typing import Any, Protocol

import numpy as np

from napari_pbip.errors import SlideError
from napari_pbip.slides.reader import LARGEST_PIECE, Image, pyramid

_PIECE = (1024, 1024)
"""Width and height that are read as one where an array has no chunks."""
_SQUARES, _SIDE = 6, 64
"""Squares across and down, and their side in pixels, that tell one array from another."""


class Pixels(Protocol):
    """An array of shape (height, width, 3), uint8; a part of it is read by slicing, and may be computed then."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, place: Any, /) -> Any: ...


class ArrayReader:
    """The levels of a pyramid as arrays; of an array with chunks, such as dask's, only those asked for are computed.

    Parameters
    ----------
    name
        What messages call it.
    levels
        RGB, shape (height, width, 3), uint8 each; the largest is level 0.

    Raises
    ------
    SlideError
        If there is no array, one has another shape or type, or chunks too large to be read one by one.
    """

    associated: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    mpp: tuple[float, float] | None = None

    def __init__(self, name: str, levels: Sequence[Pixels]) -> None:
        for array in levels:
            if len(array.shape) != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
                raise SlideError(
                    f"{name} has the shape {tuple(array.shape)} and the type {array.dtype}; give RGB of the shape "
                    "(height, width, 3) and the type uint8."
                )
        if not levels:
            raise SlideError(f"{name} has no arrays; give at least one.")
        pieces = [_piece(array) for array in levels]
        if largest := [piece for piece in pieces if piece[0] * piece[1] > LARGEST_PIECE]:
            raise SlideError(
                f"{name} has chunks of {largest[0][0]:,} x {largest[0][1]:,} pixels, too large to be read one by one; "
                "give it with smaller ones, such as array.rechunk((1024, 1024, 3))."
            )
        self.levels = pyramid(name, [(array.shape[1], array.shape[0]) for array in levels], pieces)
        self._arrays = [levels[level.stored] for level in self.levels]

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        return np.ascontiguousarray(self._arrays[level][y : y + height, x : x + width])

    def read_associated(self, name: str) -> Image:
        raise KeyError(name)

    def identity(self) -> str:
        """Hash of the sizes, and of squares all over the coarsest level: the same however the array is held."""
        coarsest = self.levels[-1]
        width, height = min(_SIDE, coarsest.width), min(_SIDE, coarsest.height)
        sha = hashlib.sha256(repr([(level.width, level.height) for level in self.levels]).encode())
        for row, column in product(range(_SQUARES), repeat=2):
            x = (coarsest.width - width) * column // (_SQUARES - 1)
            y = (coarsest.height - height) * row // (_SQUARES - 1)
            sha.update(self.read(len(self.levels) - 1, x, y, width, height).tobytes())
        return sha.hexdigest()

    def close(self) -> None:
        """Nothing is open."""


def _piece(array: Pixels) -> tuple[int, int]:
    """Width and height of an array's chunks: dask says ``chunksize``, zarr and h5py ``chunks``."""
    chunks = getattr(array, "chunksize", None) or getattr(array, "chunks", None)
    return (int(chunks[1]), int(chunks[0])) if chunks else _PIECE
