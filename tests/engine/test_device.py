"""The way to a graphics card and back, as far as it can be tried without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from napari_pbip import samples
from napari_pbip.config import SegmentSettings
from napari_pbip.engine.inference.slide_tiles import SlideTiles, TileWork
from napari_pbip.engine.inference.windows import Windows
from napari_pbip.engine.runs import load_model
from napari_pbip.slides import open_slide


def test_jobs_on_another_device_do_what_they_do_on_the_processor(weak_data: Path, tmp_path: Path) -> None:
    """In a process of its own, because torch does not forget that there is another device."""
    command = [sys.executable, "-m", "tests.engine.on_pretended_device", str(weak_data), str(tmp_path)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def test_results_are_those_of_their_tiles_if_another_batch_is_begun_before_they_are_used() -> None:
    model = load_model(samples.project() / "model")
    settings = SegmentSettings(device="cpu", precision="float32", batch_size=2)
    places = [(4, 4), (4, 5), (5, 4), (5, 5), (6, 4)]
    with open_slide(samples.slide()) as slide:
        mpp = slide.require_mpp()
        grid = Windows.plan(model.facts.tile_size, settings).grid(slide.width, slide.height, mpp, mpp)
        tiles = SlideTiles(TileWork(settings, False, grid, mpp, 0), slide, model)
        expected = list(tiles(places))
        tiles._others = 1  # as on a graphics card
        found = list(tiles(places))
    assert [len(one) for one in found] == [2, 2, 1]
    for one, other in zip(expected, found, strict=True):
        assert np.array_equal(one.tiles.places, other.tiles.places)
        assert np.array_equal(one.tiles.scores, other.tiles.scores)
        assert np.array_equal(one.tiles.presence, other.tiles.presence)
