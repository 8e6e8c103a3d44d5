"""Slides that are made of arrays of pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr

from napari_pbip import Slide, open_slide
from napari_pbip.errors import SlideError
from tests.slides.conftest import pyramid_of


def in_zarr(pixels: np.ndarray) -> zarr.Array:
    return zarr.array(pixels, chunks=(256, 256, 3))


HOLDERS: dict[str, Callable[[np.ndarray], Any]] = {
    "numpy": np.asarray,
    "dask": lambda pixels: da.from_array(pixels, chunks=(256, 512, 3)),
    "zarr": in_zarr,
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_it_reads_as_a_file_of_the_same_pixels(hold: Callable[[np.ndarray], Any], pixels: np.ndarray, tmp_path: Path):
    tifffile.imwrite(tmp_path / "slide.tif", pixels, tile=(256, 256), photometric="rgb")
    with open_slide(tmp_path / "slide.tif", 0.5) as file, Slide.from_array(hold(pixels), 0.5, "biopsy 3.1") as slide:
        assert (slide.name, slide.mpp, slide.width, slide.height) == ("biopsy 3.1", 0.5, file.width, file.height)
        for box in ((-20.5, 300.25, 200, 150, 0.6), (0, 0, 100, 120, 3.0), (500, 600, 300, 400, 0.5)):
            np.testing.assert_array_equal(slide.read(*box), file.read(*box))


def test_it_is_the_same_slide_however_it_is_held(pixels: np.ndarray):
    identities = {name: Slide.from_array(hold(pixels), 0.5).identity for name, hold in HOLDERS.items()}
    assert len(set(identities.values())) == 1
    assert Slide.from_array(pixels[:, ::-1], 0.5).identity not in identities.values()
    assert Slide.from_array(pixels[:-1], 0.5).identity not in identities.values()


def test_the_levels_of_a_pyramid_are_used(pixels: np.ndarray):
    levels = pyramid_of(pixels, 3)
    levels[2] = np.full_like(levels[2], 77)
    with Slide.from_array(levels, 0.25) as slide:
        assert [level.downsample for level in slide.levels] == [1, 2, 4]
        assert (slide.read(100, 100, 50, 50, 1.0) == 77).all()


def test_of_a_dask_array_only_what_is_read_is_computed():
    """The array has 100,000 x 100,000 pixels, which would take 30 GB."""
    computed = []

    def chunk(block_info: Any) -> np.ndarray:
        computed.append(block_info[None]["chunk-location"][:2])
        return np.full((1000, 1000, 3), 200, np.uint8)

    chunks = ((1000,) * 100, (1000,) * 100, (3,))
    virtual = da.map_blocks(chunk, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    with Slide.from_array(virtual, 0.25) as slide:
        assert (slide.read(50_100, 20_900, 500, 500, 0.5) == 200).all()
    assert set(computed) == {(row, column) for row in (20, 21) for column in (50, 51)}


@pytest.mark.parametrize(
    ("pixels", "mpp", "sentence"),
    [
        (
            np.zeros((50, 50), np.uint8),
            0.5,
            "shape (50, 50) and the type uint8; give RGB of the shape (height, width, 3)",
        ),
        (np.zeros((3, 50, 50), np.uint8), 0.5, "shape (3, 50, 50)"),
        (np.zeros((50, 50, 3)), 0.5, "type float64; give RGB"),
        (np.zeros((0, 50, 3), np.uint8), 0.5, "has no pixels"),
        ([], 0.5, "has no arrays"),
        (np.zeros((50, 50, 3), np.uint8), 500, "500 microns per pixel, which no slide has"),
        (da.zeros((20_000, 20_000, 3), dtype=np.uint8, chunks=-1), 0.5, "such as array.rechunk((1024, 1024, 3))"),
    ],
)
def test_what_is_no_slide_is_said_so(pixels: Any, mpp: float, sentence: str):
    with pytest.raises(SlideError) as caught:
        Slide.from_array(pixels, mpp)
    assert sentence in str(caught.value)
