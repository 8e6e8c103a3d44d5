"""Which size of tile is proposed for a slide."""

from __future__ import annotations

import numpy as np
import pytest

from napari_pbip import samples
from napari_pbip.bank.tile_sizes import advise, propose_size
from napari_pbip.config import TissueSettings
from napari_pbip.errors import SlideError
from napari_pbip.slides import SlideFacts, TileSize, TissueMask, open_slide, save_mpp


@pytest.mark.parametrize(
    ("mpp", "mm2", "pixels", "proposed_mpp"),
    [
        (0.25, 100.0, 224, 0.5),
        (0.5, 2.6, 224, 0.5),  # room for 207 tiles
        (0.5, 2.4, 112, 0.5),
        (0.25, 0.01, 112, 0.5),  # less than a tile for each class, yet the smallest one
        (0.53, 100.0, 224, 0.5),
        (1.003, 100.0, 224, 1.0),  # finer pixels would be made up
        (1.003, 5.0, 112, 1.0),
    ],
)
def test_the_larger_of_the_usual_sizes_for_which_there_is_room(mpp, mm2, pixels, proposed_mpp):
    side = round(np.sqrt(mm2) * 1000 / 10)
    tissue = TissueMask(np.ones((side, side), bool), 10 / mpp, 10.0)
    assert propose_size(mpp, tissue) == TileSize(pixels=pixels, mpp=proposed_mpp)


def test_the_example_is_where_there_is_most_tissue(sample_pixels):
    with open_slide(samples.slide()) as slide:
        facts = SlideFacts.from_slide(slide)
    for size in (TileSize(), TileSize(pixels=96, mpp=1.0)):
        advice = advise(facts, size, TissueSettings())
        assert advice.example.shape == (size.pixels, size.pixels, 3)
        assert (advice.example.mean(2) > 215).mean() < 0.25  # hardly any glass; half of the slide is
    assert advice.proposed == TileSize(pixels=112, mpp=0.5)


def test_a_slide_without_tissue_gets_no_advice(tmp_path):
    from PIL import Image

    Image.new("RGB", (600, 600), (240, 240, 240)).save(tmp_path / "glass.png")
    save_mpp(tmp_path / "glass.png", 0.5)
    with open_slide(tmp_path / "glass.png") as slide:
        facts = SlideFacts.from_slide(slide)
    with pytest.raises(SlideError, match="No tissue was found"):
        advise(facts, TileSize(), TissueSettings())
