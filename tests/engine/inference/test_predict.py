from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_pbip.config import SegmentSettings
from napari_pbip.engine.inference.predict import ImageMaps, Predictor, predicted_presence, segment_image
from napari_pbip.engine.inference.windows import Windows
from napari_pbip.models.backbones import load
from napari_pbip.models.methods.base import Method
from napari_pbip.models.methods.cam import Cam


@pytest.fixture(scope="module")
def cam() -> Cam:
    torch.manual_seed(0)
    return Cam(load("mit-b0"), 2, stage_weights=(0, 0.1, 1, 1), fusion_weights=(0, 0.3, 0.3, 0.4)).eval()


def predictor(method: Method, tile: int) -> Predictor:
    return Predictor(method, Windows.plan(tile, SegmentSettings()), torch.device("cpu"))


def test_a_small_image_is_looked_at_in_one_piece(cam: Cam) -> None:
    images = [np.random.default_rng(i).integers(0, 255, (64, 60, 3), dtype=np.uint8) for i in range(2)]
    together = predictor(cam, 64).maps(images)
    alone = predictor(cam, 64).maps(images[1:])
    assert [m.shape[-2:] for m in together[0].stages] == [(16, 15), (8, 8), (4, 4), (4, 4)]
    for a, b in zip(together[1].stages, alone[0].stages, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(200, 136), (97, 64), (130, 300)])
def test_a_plain_large_image_has_seamless_maps(cam: Cam, size: tuple[int, int]) -> None:
    """All windows of a constant image are equal, so blended maps repeat with the windows and have the same range."""
    image = np.full((*size, 3), 180, np.uint8)
    maps = predictor(cam, 64).maps([image])[0]
    whole = predictor(cam, 64).maps([image[:64, :64]])[0]
    cells = tuple(-(-n // 8) for n in size)
    for stage, one in zip(maps.stages, whole.stages, strict=True):
        assert stage.shape == (1, 2, *cells)
        one = F.interpolate(one, (8, 8), mode="bilinear")
        assert stage.amin() >= one.amin() - 1e-3
        assert stage.amax() <= one.amax() + 1e-3
    torch.testing.assert_close(maps.presence, whole.presence.expand(1, 2, *cells), atol=1e-4, rtol=1e-4)


def test_a_model_of_small_tiles_sees_large_images_in_windows_that_its_network_takes(cam: Cam) -> None:
    image = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    maps = predictor(cam, 24).maps([image])[0]
    assert {m.shape[-2:] for m in maps.stages} == {(9, 12)}


def test_the_first_stage_keeps_its_resolution_where_it_carries_weight() -> None:
    """In the corner of a large image, which only one window covers, the blended map equals that of the stage."""
    torch.manual_seed(0)
    fine = Cam(load("mit-b0"), 2, stage_weights=(1, 1, 1, 0), fusion_weights=(1, 1, 1, 0)).eval()
    image = np.random.default_rng(0).integers(0, 255, (160, 128, 3), dtype=np.uint8)
    (maps,) = predictor(fine, 64).maps([image])
    (corner,) = predictor(fine, 64).maps([image[:64, :64]])
    assert {stage.shape[-2:] for stage in maps.stages} == {(40, 32)}
    torch.testing.assert_close(maps.stages[0][..., :8, :8], corner.stages[0][..., :8, :8], atol=1e-3, rtol=1e-3)


def test_only_present_classes_are_chosen() -> None:
    stage = torch.stack([torch.full((4, 4), 0.9), torch.linspace(0, 1, 16).reshape(4, 4)])[None]
    maps = ImageMaps((stage,) * 4, torch.tensor([0.1, 0.9])[None, :, None, None], (0, 0.3, 0.3, 0.4))
    labels = segment_image(maps, predicted_presence(maps.presence), (32, 32))
    assert labels.shape == (32, 32)
    assert (labels == 1).all()


def test_calibrated_maps_are_compared_as_they_are() -> None:
    sure, faint = torch.linspace(0.4, 0.6, 16).reshape(4, 4), torch.linspace(0.2, 0.01, 16).reshape(4, 4)
    stage = torch.stack([sure, faint])[None]
    present, weights = torch.ones(1, 2, 1, 1, dtype=torch.bool), (0, 0.3, 0.3, 0.4)
    stretched = segment_image(ImageMaps((stage,) * 4, present.float(), weights), present, (32, 32))
    as_they_are = segment_image(ImageMaps((stage,), present.float(), None), present, (32, 32))
    assert 0.4 < stretched.mean() < 0.6  # each class reaches the same somewhere
    assert (as_they_are == 0).all()
    only_the_other = torch.tensor([False, True])[None, :, None, None]
    alone = segment_image(ImageMaps((stage,), present.float(), None), only_the_other, (32, 32))
    assert (alone == 1).all()


def test_presence_falls_back_to_the_likeliest_class() -> None:
    probability = torch.tensor([[0.2, 0.4, 0.1], [0.7, 0.6, 0.1]])[:, :, None, None]
    present = predicted_presence(probability)[..., 0, 0]
    assert present.tolist() == [[False, True, False], [True, True, False]]
