"""A reader of OME-Zarr 0.1 to 0.5, which uses zarr."""

from __future__ import annotations

import asyncio
import hashlib
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.core.sync

from napari_pbip.errors import SlideError
from napari_pbip.slides.channels import why_not_rgb
from napari_pbip.slides.mpp import from_header, number, to_microns
from napari_pbip.slides.reader import LARGEST_PIECE, Image, brief, over_white, pyramid
from napari_pbip.slides.unpacking import bounded, read_as_one

_FILES_HASHED = 64
_FIRST_AXES = ("t", "c", "z", "y", "x")
"""Axes of OME-Zarr 0.1 and 0.2, whose metadata do not name them."""
_SETTLE_SECONDS = 10
_SETTLING = threading.Lock()
"""Held while waiting for zarr, so that two threads never wait for each other."""


def open_ngff(path: Path) -> NgffReader | None:
    """Open an OME-Zarr folder; return None for anything else.

    Raises
    ------
    SlideError
        If the folder is a zarr that holds a stack or no RGB image of 8 bits per colour.
    """
    if not path.is_dir() or not any((path / name).exists() for name in ("zarr.json", ".zattrs", ".zgroup", ".zarray")):
        return None
    opened = zarr.open(path, mode="r")
    if isinstance(opened, zarr.Array):
        raise SlideError(f"{path.name} is a single zarr array without OME metadata; give the OME-Zarr folder above it.")
    attributes: dict[str, Any] = dict(opened.attrs)
    ome = attributes.get("ome", attributes)  # only 0.5 has the key "ome"
    if "bioformats2raw.layout" in ome and (path / "0").is_dir():
        return open_ngff(path / "0")
    try:
        multiscale = ome["multiscales"][0]
        paths = [str(dataset["path"]) for dataset in multiscale["datasets"]]
        axes = _axes(multiscale)
    except (KeyError, IndexError, TypeError, AttributeError):
        raise SlideError(
            f"{path.name} is a zarr folder without an OME-Zarr image; give the folder of the image itself."
        ) from None
    arrays = [opened[one] for one in paths]
    if not arrays or any(not isinstance(array, zarr.Array) or array.ndim != len(axes) for array in arrays):
        raise SlideError(f"{path.name} has levels that do not fit its axes ({brief(' '.join(axes))}); export it again.")
    for array in arrays:
        _require_rgb(path.name, axes, array, ome.get("omero"))
    return NgffReader(path, [path / one for one in paths], arrays, axes, multiscale)


class NgffReader:
    """A reader of an OME-Zarr image. Chunks that were never written have the fill value of their array."""

    associated: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        path: Path,
        folders: Sequence[Path],
        arrays: Sequence[Any],
        axes: Sequence[str],
        multiscale: Mapping[str, Any],
    ) -> None:
        self._axes = axes
        y, x = axes.index("y"), axes.index("x")
        self.levels = pyramid(
            path.name,
            [(array.shape[x], array.shape[y]) for array in arrays],
            [(array.chunks[x], array.chunks[y]) for array in arrays],
        )
        self._arrays = [bounded(arrays[level.stored]) for level in self.levels]
        self._folders = folders
        self.mpp = _mpp(multiscale, self.levels[0].stored, axes)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        spans = {"y": slice(y, y + height), "x": slice(x, x + width), "c": slice(0, 4)}
        try:
            block = np.asarray(self._arrays[level][tuple(spans.get(axis, 0) for axis in self._axes)])
        except Exception:
            # zarr goes on reading the other chunks; if Python ended meanwhile, it would print their errors.
            with _SETTLING:
                zarr.core.sync.sync(_settled())
            raise
        kept = [axis for axis in self._axes if axis in spans]
        return over_white(np.ascontiguousarray(block.transpose([kept.index(axis) for axis in "yxc"])))

    def read_associated(self, name: str) -> Image:
        raise KeyError(name)

    def identity(self) -> str:
        """Hash of all levels' array metadata and of the names, sizes and first bytes of the coarsest level's chunks.

        Group metadata is left out, so that adding label images to the folder does not change the identity.
        """
        sha = hashlib.sha256()
        for folder in self._folders:
            for name in (".zarray", "zarr.json"):
                if (folder / name).exists():
                    sha.update((folder / name).read_bytes())
        coarsest = self._folders[self.levels[-1].stored]
        for i, file in enumerate(sorted(f for f in coarsest.rglob("*") if f.is_file())):
            sha.update(f"{file.relative_to(coarsest).as_posix()} {file.stat().st_size}".encode())
            if i < _FILES_HASHED:
                with file.open("rb") as chunk:
                    sha.update(chunk.read(4096))
        return sha.hexdigest()

    def close(self) -> None:
        """Do nothing: zarr keeps no file open."""


async def _settled() -> None:
    """Wait until zarr has read all chunks that it is reading."""
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others, timeout=_SETTLE_SECONDS)


def _axes(multiscale: Mapping[str, Any]) -> list[str]:
    """Return the names of the axes as t, c, z, y and x; axes of type channel or time may have any name in the file."""
    named = multiscale.get("axes", _FIRST_AXES)
    return [_axis({"name": axis} if isinstance(axis, str) else axis) for axis in named]


def _axis(axis: Mapping[str, Any]) -> str:
    return {"channel": "c", "time": "t"}.get(axis.get("type", ""), str(axis["name"]).lower())


def _require_rgb(name: str, axes: Sequence[str], array: Any, omero: Any) -> None:
    shape = dict(zip(axes, array.shape, strict=True))
    described = brief(" x ".join(f"{n} {axis}" for axis, n in shape.items()) + f" of {array.dtype}")
    if not {"x", "y"} <= shape.keys() or shape.get("c") not in (3, 4) or array.dtype != np.uint8:
        raise SlideError(f"{name} is not RGB of 8 bits per channel (it is {described}); export it as RGB.")
    if any(size > 1 for axis, size in shape.items() if axis not in "cyx"):
        raise SlideError(f"{name} is a stack ({described}); export a single plane.")
    pieces = dict(zip(axes, read_as_one(array), strict=True))
    if math.prod(pieces.values()) * -(-shape["c"] // pieces["c"]) > 4 * LARGEST_PIECE:
        stored = brief(" x ".join(f"{n} {axis}" for axis, n in pieces.items()))
        raise SlideError(f"{name} is stored in chunks too large to be read ({stored}); export it again.")
    names, colours = _channels(omero)
    if shape["c"] == 4 and [one.strip().lower() for one in names[3:]] == ["alpha"]:
        names, colours = names[:3], colours[:3]
    elif shape["c"] == 3 and not names:
        return
    if why := why_not_rgb(names or [""] * shape["c"], colours):
        raise SlideError(f"{name} is not RGB ({why}); export it as RGB, as it is seen through a microscope.")


def _channels(omero: Any) -> tuple[list[str], list[tuple[int, int, int] | None]]:
    """Return the labels and colours of the channels, where they can be parsed."""
    channels = omero.get("channels") if isinstance(omero, Mapping) else None
    if not isinstance(channels, list):
        return [], []
    known = [channel if isinstance(channel, Mapping) else {} for channel in channels]
    return [str(channel.get("label") or "") for channel in known], [_colour(c.get("color")) for c in known]


def _colour(text: Any) -> tuple[int, int, int] | None:
    try:
        red, green, blue = bytes.fromhex(text)
    except (TypeError, ValueError):
        return None
    return red, green, blue


def _mpp(multiscale: Mapping[str, Any], finest: int, axes: Sequence[str]) -> tuple[float, float] | None:
    """Return the size of a level-0 pixel in x and y, or None if scale or unit are missing or cannot be parsed."""
    try:
        scale = _scale(multiscale, finest, len(axes))
        units = [axis.get("unit", "") for axis in multiscale["axes"]]
        sizes = [to_microns(scale[i], units[i]) for i in (axes.index("x"), axes.index("y"))] if scale else (None, None)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return from_header(*sizes)


def _scale(multiscale: Mapping[str, Any], finest: int, n_axes: int) -> list[float] | None:
    """Return the scale of the finest level times that of the whole image, or None if neither is given.

    Raises
    ------
    KeyError, TypeError, ValueError
        If a scale is not where the format puts it, or is not one number per axis.
    """
    scales = [
        [number(one) for one in transform["scale"]]
        for holder in (multiscale["datasets"][finest], multiscale)
        for transform in holder.get("coordinateTransformations") or ()
        if transform["type"] == "scale"
    ]
    if any(len(scale) != n_axes or None in scale for scale in scales):
        raise ValueError("not a number for every axis")
    return [math.prod(float(one or 0) for one in along) for along in zip(*scales, strict=True)] if scales else None
