"""The patch of a label image to which a cell belongs, without reading more of the image than necessary."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.ndimage import label

from napari_pbip.results.label_image import CHUNK

Rectangle = tuple[slice, slice]


def patch_at(
    read: Callable[[slice, slice], npt.NDArray[np.uint8]], shape: tuple[int, int], row: int, column: int
) -> tuple[Rectangle, npt.NDArray[np.bool_]]:
    """Return the patch of a cell: cells with its label that are connected with it by sides.

    Parameters
    ----------
    read
        Returns the labels of a rectangle (rows, columns).
    shape
        Size of the label image, (height, width).
    row, column
        The cell.

    Returns
    -------
    rectangle, patch
        A rectangle with the whole patch, and which of its cells belong to it, bool (h, w).
    """
    reach = CHUNK // 2
    while True:
        y, x = (slice(max(0, at - reach), min(side, at + reach)) for at, side in zip((row, column), shape, strict=True))
        labels = read(y, x)
        at = row - y.start, column - x.start
        parts, _ = label(labels == labels[at])
        patch = parts == parts[at]
        ends = (
            (patch[0], y.start),
            (patch[-1], shape[0] - y.stop),
            (patch[:, 0], x.start),
            (patch[:, -1], shape[1] - x.stop),
        )
        if not any(beyond and end.any() for end, beyond in ends):
            return (y, x), patch
        reach *= 2
