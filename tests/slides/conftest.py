"""Small files in common formats, written by the libraries that write them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

PIECE = slice(500, 1401), slice(300, 1003)
"""Rows and columns of the sample slide that the made files hold: odd sizes, no multiple of any tile."""


@pytest.fixture(scope="session")
def pixels(sample_pixels: np.ndarray) -> np.ndarray:
    """Return a piece of tissue, shape (901, 703, 3)."""
    return np.ascontiguousarray(sample_pixels[PIECE])


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def pyramid_of(pixels: np.ndarray, levels: int) -> list[np.ndarray]:
    """Return repeated averages of 2 x 2 pixels; odd rows and columns are cut off, as writers do."""
    images = [pixels]
    while len(images) < levels:
        height, width = images[-1].shape[0] // 2, images[-1].shape[1] // 2
        cells = images[-1][: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
        images.append(cells.mean((1, 3)).round().astype(np.uint8))
    return images


@dataclass
class Maker:
    """Writes slides of given pixels, shape (H, W, 3), into a folder."""

    folder: Path

    pyramid = staticmethod(pyramid_of)

    def ome_tiff(self, pixels: np.ndarray, levels: int = 3, **metadata: object) -> Path:
        """Write OME-TIFF with its pyramid in SubIFDs, like QuPath and Bio-Formats."""
        path = self.folder / "slide.ome.tif"
        first, *rest = pyramid_of(pixels, levels)
        options = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib"}
        with tifffile.TiffWriter(path, ome=True) as tiff:
            tiff.write(first, subifds=len(rest), metadata={"axes": "YXS", **metadata}, **options)
            for image in rest:
                tiff.write(image, subfiletype=1, **options)
        return path

    def tiff(self, pixels: np.ndarray, levels: int = 1, **options: object) -> Path:
        """Write TIFF without OME, with its pyramid in the chain of pages, like libvips."""
        path = self.folder / "slide.tif"
        options = {"tile": (256, 256), "photometric": "rgb", "metadata": None, **options}
        with tifffile.TiffWriter(path) as tiff:
            for number, image in enumerate(pyramid_of(pixels, levels)):
                tiff.write(image, subfiletype=int(number > 0), **options)
        return path

    def ome_zarr(
        self,
        pixels: np.ndarray,
        axes: str = "cyx",
        version: str = "0.5",
        levels: int = 2,
        unit: str | None = "micrometer",
    ) -> Path:
        """Write OME-Zarr 0.4 (zarr format 2) or 0.5 (format 3), half a unit per pixel; t and z have size 1."""
        path = self.folder / "slide.ome.zarr"
        group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
        datasets = []
        for number, image in enumerate(pyramid_of(pixels, levels)):
            data = image.transpose(["yxc".index(axis) for axis in axes if axis in "cyx"])
            for axis in [axis for axis in axes if axis not in "cyx"]:
                data = np.expand_dims(data, axes.index(axis))
            chunks = tuple(300 if axis in "yx" else 1 for axis in axes)
            group.create_array(str(number), shape=data.shape, chunks=chunks, dtype="uint8")[:] = data
            scale = [0.5 * 2**number if axis in "yx" else 1.0 for axis in axes]
            datasets.append({"path": str(number), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
        kinds = {"t": "time", "c": "channel"}
        units = {"unit": unit} if unit else {}
        multiscale = {
            "axes": [
                {"name": axis, "type": kinds.get(axis, "space"), **(units if axis in "yx" else {})} for axis in axes
            ],
            "datasets": datasets,
        }
        if version == "0.4":
            group.attrs["multiscales"] = [{"version": "0.4", **multiscale}]
        else:
            group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
        return path
