"""DeepLab: its loss trains its scores, and its decoders are those of the papers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torchvision
from torch.nn import functional as F

from napari_pbip.errors import ModelError
from napari_pbip.models import backbones
from napari_pbip.models.backbones import Backbone
from napari_pbip.models.backbones.resnet import to_stages
from napari_pbip.models.decoders import DeepLabV2, DeepLabV3Plus
from napari_pbip.models.losses.pixels import pixel_cross_entropy
from napari_pbip.models.methods.deeplab import DeepLab
from napari_pbip.models.score_maps import log_odds


@pytest.fixture
def resnet() -> Backbone:
    """Return a small ResNet that ends at stride 8, like DeepLab-v2's ResNet-101."""
    torch.manual_seed(0)
    row = backbones.catalogue()["resnet101"]
    backbone = Backbone(replace(row, channels=(32, 64, 96, 128), depths=(1, 1, 2, 1)))
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # the last of a block begins at 0, and hides the others
            torch.nn.init.ones_(module.weight)
    return backbone


def test_imagenet_weights_fit_the_backbone_of_the_paper():
    with torch.device("meta"):
        published = torchvision.models.resnet101().state_dict()
        stages = backbones.load("resnet101").stages.state_dict()
    assert {n: t.shape for n, t in to_stages(published).items()} == {n: t.shape for n, t in stages.items()}


def test_scores_say_what_the_softmax_says(backbone):
    method = DeepLab(backbone, 3).eval()
    images = torch.rand(2, 3, 64, 100)
    scores, output, logits = method.scores(images), method(images), method.logits(images)
    assert scores.maps.shape == (2, 3, 8, 13)
    torch.testing.assert_close(scores.maps, output.class_maps[0])
    torch.testing.assert_close(scores.maps.exp() / 3, logits.softmax(1))
    torch.testing.assert_close(scores.presence.sigmoid(), logits.softmax(1).amax((2, 3)))
    torch.testing.assert_close(method.presence(output), scores.presence)
    assert method.calibrated
    assert method.cell == 8


def test_log_odds_of_a_sure_network_are_finite():
    logits = torch.tensor([90.0, -90.0, 0.0])[None, :, None, None]
    assert log_odds(logits).flatten().tolist() == pytest.approx([90, -180, -90])


@pytest.mark.parametrize("version", ["v3+", "v2"])
def test_every_weight_learns_from_pixels(resnet, version):
    method = DeepLab(resnet, 2, version=version)
    masks = torch.randint(0, 2, (2, 72, 72))
    loss = method.loss(torch.rand(2, 3, 72, 72), masks)
    loss.total.backward()
    assert loss.terms.keys() == {"pixels"}
    assert [name for name, p in method.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_second_version_sums_convolutions_of_four_dilations(resnet):
    head = DeepLabV2(resnet.channels, 1)
    impulse = torch.zeros(1, resnet.channels[3], 101, 101)
    impulse[:, 0, 50, 50] = 1
    seen = (head([impulse] * 4) - head([0 * impulse] * 4))[0, 0]
    rows, columns = torch.nonzero(seen.abs() > 1e-6, as_tuple=True)
    places = {(int(r) - 50, int(c) - 50) for r, c in zip(rows, columns, strict=True)}
    around = {(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)}
    assert places == {(d * y, d * x) for d in (6, 12, 18, 24) for y, x in around}
    maps = resnet(torch.rand(1, 3, 72, 64))
    assert head(maps).shape == (1, 1, 9, 8)
    branches = zip(head.branches, head.DILATIONS, strict=True)
    expected = sum(F.conv2d(maps[3], branch.weight, branch.bias, 1, rate, rate) for branch, rate in branches)
    torch.testing.assert_close(head(maps), expected)


def test_the_default_joins_coarse_and_fine(resnet):
    head = DeepLabV3Plus(resnet.channels, 2).eval()
    maps = [torch.rand(1, c, 128 // s, 128 // s) for c, s in zip(resnet.channels, (4, 8, 16, 16), strict=True)]
    before = head(maps)
    assert before.shape == (1, 2, 16, 16)
    for stage, changes in ((0, False), (1, True), (2, False), (3, True)):
        other = [m + (i == stage) for i, m in enumerate(maps)]
        assert torch.equal(head(other), before) is not changes


def test_the_loss_is_that_of_torch_over_the_pixels_that_count():
    torch.manual_seed(0)
    logits, masks = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    masks[0, :4] = 255
    expected = torch.nn.CrossEntropyLoss(ignore_index=255)(logits, masks)
    torch.testing.assert_close(pixel_cross_entropy(logits, masks, easy=False), expected)
    assert pixel_cross_entropy(logits, torch.full_like(masks, 255), easy=True) == 0


def test_what_the_network_does_not_believe_counts_less():
    logits = torch.tensor([2.0, -2.0])[None, :, None, None].repeat(1, 1, 1, 2).requires_grad_()
    masks = torch.tensor([[[0, 1]]])  # the second is labelled against the evidence
    gradients = []
    for easy in (False, True):
        (gradient,) = torch.autograd.grad(pixel_cross_entropy(logits, masks, easy=easy), logits)
        gradients.append(gradient.abs().sum(1)[0, 0])
    p = torch.tensor(2.0 - -2.0).sigmoid()
    torch.testing.assert_close(gradients[0], torch.stack([1 - p, p]))
    torch.testing.assert_close(gradients[1], torch.stack([p * (1 - p), p * (1 - p)]) * 2)


def test_one_tile_a_step_is_one_sentence(backbone):
    with pytest.raises(ModelError, match=r"`train\.batch_size` to 2"):
        DeepLab(backbone, 2).loss(torch.rand(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.int64))
