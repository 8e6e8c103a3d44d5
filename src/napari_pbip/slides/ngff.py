"""OME-Zarr 0.4 and 0.5 through zarr."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from napari_pbip.errors import SlideError
from napari_pbip.slides.mpp import from_header, to_microns
from napari_pbip.slides.reader import Image, over_white, pyramid

_FILES_HASHED = 64


def open_ngff(path: Path) -> NgffReader | None:
    """Open an OME-Zarr folder, or return None for anything else.

    Raises
    ------
    SlideError
        If the folder is a zarr but holds no RGB image of 8 bits, or a stack.
    """
    if not path.is_dir() or not any((path / name).exists() for name in ("zarr.json", ".zattrs", ".zgroup", ".zarray")):
        return None
    if (path / ".zarray").exists():
        raise SlideError(f"{path.name} is a single zarr array without OME metadata; give the OME-Zarr folder above it.")
    group = zarr.open_group(path, mode="r")
    attributes: dict[str, Any] = dict(group.attrs)
    ome = attributes.get("ome", attributes)  # 0.5 has an "ome" key, 0.4 has not
    if "bioformats2raw.layout" in ome:
        return open_ngff(path / "0")
    if "multiscales" not in ome:
        raise SlideError(
            f"{path.name} is a zarr folder without an OME-Zarr image; give the folder of the image itself."
        )
    return NgffReader(path, group, ome["multiscales"][0])


class NgffReader:
    """An OME-Zarr image; chunks that were never written hold the fill value of their array."""

    associated: tuple[str, ...] = ()

    def __init__(self, path: Path, group: Any, multiscale: Mapping[str, Any]) -> None:
        axes = [axis["name"] for axis in multiscale["axes"]]
        datasets = multiscale["datasets"]
        self._folders = [path / dataset["path"] for dataset in datasets]
        self._arrays = [group[dataset["path"]] for dataset in datasets]
        shape = dict(zip(axes, self._arrays[0].shape, strict=True))
        if not {"x", "y"} <= shape.keys() or shape.get("c") not in (3, 4) or self._arrays[0].dtype != np.uint8:
            raise SlideError(f"{path.name} is not RGB of 8 bits a colour (it is {_describe(shape, self._arrays[0])}).")
        if any(size > 1 for axis, size in shape.items() if axis not in "cyx"):
            raise SlideError(f"{path.name} is a stack ({_describe(shape, self._arrays[0])}); export a single plane.")
        self._axes = axes
        y, x = axes.index("y"), axes.index("x")
        self.levels = pyramid(
            [(a.shape[x], a.shape[y]) for a in self._arrays], [(a.chunks[x], a.chunks[y]) for a in self._arrays]
        )
        scale = _scale(multiscale, len(axes))
        sizes = [to_microns(scale[i], multiscale["axes"][i].get("unit", "")) for i in (x, y)]
        self.mpp = from_header(*sizes)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        spans = {"y": slice(y, y + height), "x": slice(x, x + width), "c": slice(None)}
        block = np.asarray(self._arrays[level][tuple(spans.get(axis, 0) for axis in self._axes)])
        kept = [axis for axis in self._axes if axis in spans]
        return over_white(np.ascontiguousarray(block.transpose([kept.index(axis) for axis in "yxc"])))

    def read_associated(self, name: str) -> Image:
        raise KeyError(name)

    def identity(self) -> str:
        """Array metadata of all levels, and names, sizes and beginnings of the coarsest level's chunk files.

        Group metadata is left out: label images that are added beside the image do not make it another slide.
        """
        sha = hashlib.sha256()
        for folder in self._folders:
            for name in (".zarray", "zarr.json"):
                if (folder / name).exists():
                    sha.update((folder / name).read_bytes())
        coarsest = self._folders[-1]
        for i, file in enumerate(sorted(f for f in coarsest.rglob("*") if f.is_file())):
            sha.update(f"{file.relative_to(coarsest).as_posix()} {file.stat().st_size}".encode())
            if i < _FILES_HASHED:
                with file.open("rb") as chunk:
                    sha.update(chunk.read(4096))
        return sha.hexdigest()

    def close(self) -> None:
        """Zarr keeps no file open."""


def _scale(multiscale: Mapping[str, Any], n_axes: int) -> Sequence[float]:
    """Size of a level-0 pixel along each axis: its own scale times the scale of the whole image."""
    scale = np.ones(n_axes)
    for holder in (multiscale["datasets"][0], multiscale):
        for transform in holder.get("coordinateTransformations", ()):
            if transform["type"] == "scale":
                scale *= transform["scale"]
    return [float(s) for s in scale]


def _describe(shape: Mapping[str, int], array: Any) -> str:
    return " x ".join(f"{n} {axis}" for axis, n in shape.items()) + f" of {array.dtype}"
