"""CAM, and properties that all methods share."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from napari_pbip.errors import ModelError
from napari_pbip.models.methods.cam import Cam
from napari_pbip.models.score_maps import fuse

STAGE_WEIGHTS, FUSION_WEIGHTS = (0.0, 0.1, 1.0, 1.0), (0.0, 0.3, 0.3, 0.4)


@pytest.fixture
def cam(backbone):
    return Cam(backbone, 3, STAGE_WEIGHTS, FUSION_WEIGHTS).eval()


def test_maps_are_1x1_convolutions_and_scores_their_means(cam):
    images = torch.rand(2, 3, 64, 96)
    output = cam(images)
    assert output.subclass_maps is None
    for i, features in enumerate(cam.backbone(images)):
        weight = cam.heads[i].weight[:, :, 0, 0]
        expected = torch.einsum("bchw,nc->bnhw", features, weight) + cam.heads[i].bias[:, None, None]
        torch.testing.assert_close(output.class_maps[i], expected)
        torch.testing.assert_close(output.class_scores[i], expected.mean((2, 3)))


def test_loss_is_the_weighted_sum(cam):
    images, labels = torch.rand(2, 3, 64, 64), torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    loss = cam.loss(images, labels)
    scores = cam(images).class_scores
    assert list(loss.terms) == ["classification_2", "classification_3", "classification_4"]
    expected = sum(
        w * F.binary_cross_entropy_with_logits(s, labels) for w, s in zip(STAGE_WEIGHTS, scores, strict=True)
    )
    torch.testing.assert_close(loss.total, expected)


def test_scores_are_the_fused_maps_and_presence(cam):
    images = torch.rand(2, 3, 64, 96)
    scores, output = cam.scores(images), cam(images)
    expected = fuse(list(zip(FUSION_WEIGHTS, output.class_maps, strict=True))[1:], (8, 12))
    torch.testing.assert_close(scores.maps, expected)
    torch.testing.assert_close(scores.presence, cam.presence(output))
    weighted = sum(w * s for w, s in zip(STAGE_WEIGHTS, output.class_scores, strict=True)) / 2.1
    torch.testing.assert_close(scores.presence, weighted)


@pytest.mark.parametrize("weights", [(0, 0, 0, 0), (1, 1, 1)])
def test_weights_that_cannot_be(backbone, weights):
    with pytest.raises(ModelError, match=r"`method\.fusion_weights` needs four weights"):
        Cam(backbone, 3, STAGE_WEIGHTS, weights)
