"""Overlapping squares that are cut from blocks are those that the slide gives for their places."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from napari_pbip import samples
from napari_pbip.slides import Slide, open_slide
from napari_pbip.slides.plane import Plane


@pytest.mark.parametrize("mpp", [0.499, 0.5, 0.7, 4.0])
def test_squares_are_those_of_the_slide(mpp: float) -> None:
    with open_slide(samples.slide()) as slide:
        scale = mpp / slide.require_mpp()
        right, bottom = int(slide.width / scale), int(slide.height / scale)
        places = [(0, 0), (500, 480), (511, 512), (right - 100, bottom - 70), (right - 3, 5)]
        plane = Plane(slide, mpp)
        with ThreadPoolExecutor(3) as pool:
            cut = list(pool.map(lambda place: plane.read(*place, 130, 111), places))
        for (x, y), square in zip(places, cut, strict=True):
            expected = slide.read(x * scale, y * scale, 130, 111, mpp)
            differences = np.abs(square.astype(int) - expected)
            assert differences.max() <= 2
            assert (differences > 0).mean() < 0.01


def test_pixels_at_the_resolution_of_the_slide_are_its_own(sample_pixels: np.ndarray) -> None:
    with Slide.from_array(sample_pixels, 0.25) as slide:
        np.testing.assert_array_equal(Plane(slide, 0.25).read(900, 1001, 301, 77), sample_pixels[1001:1078, 900:1201])
