"""Similarity maps, merging, fusing and masking, compared with their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch.nn import functional as F

from napari_pbip.models import masks
from napari_pbip.models.prototypes import SimilarityHead, standardise
from napari_pbip.models.score_maps import (
    fuse,
    fuse_per_tile,
    merge_subclasses,
    pool,
    pool_log_mean_exp,
    similarity_map,
    stretch,
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_similarity_map_is_the_cosine(generator):
    features = torch.randn(2, 6, 3, 4, generator=generator)
    directions = torch.randn(5, 6, generator=generator)
    found = similarity_map(features, F.normalize(directions, dim=1))
    for p in range(5):
        expected = torch.cosine_similarity(features, directions[p].view(1, 6, 1, 1).expand_as(features), dim=1)
        torch.testing.assert_close(found[:, p], expected)


def test_similarity_of_a_zero_feature_is_zero():
    assert torch.equal(similarity_map(torch.zeros(1, 4, 2, 2), torch.ones(3, 4)), torch.zeros(1, 3, 2, 2))


@pytest.mark.parametrize("similarity", ["centred", "plain", "released"])
def test_head(generator, similarity):
    torch.manual_seed(0)
    head = SimilarityHead(10, 6, similarity)
    features, prototypes = torch.randn(2, 6, 3, 3, generator=generator), torch.randn(4, 10, generator=generator)
    first, _, second = head.projection
    assert first.weight.shape == (5, 10)
    projected = second(first(standardise(prototypes) if similarity == "centred" else prototypes).relu())
    if similarity != "released":
        projected = F.normalize(projected, dim=1)
    expected = torch.einsum("bchw,pc->bphw", F.normalize(features, dim=1), projected) / 0.07
    torch.testing.assert_close(head(features, prototypes), expected)


def test_standardised_prototypes_share_nothing_and_have_one_length(generator):
    prototypes = 3 * torch.randn(4, 10, generator=generator) + 100
    found = standardise(prototypes)
    torch.testing.assert_close(found.norm(dim=1), torch.full((4,), 10**0.5))
    torch.testing.assert_close(standardise(5 * prototypes - 7), found, atol=1e-3, rtol=1e-3)
    assert (
        F.cosine_similarity(found[:1], found[1:]).abs().max()
        < 0.9
        < F.cosine_similarity(prototypes[:1], prototypes[1:]).min()
    )


def test_merging():
    values = torch.tensor([[1.0, 3.0, -2.0, 0.5, 0.5, 2.0]])
    owner = torch.tensor([0, 0, 1, 2, 2, 2])
    assert torch.equal(merge_subclasses(values, owner, 3, "mean"), torch.tensor([[2.0, -2.0, 1.0]]))
    weight = torch.tensor([1.0, 3.0]).softmax(0)
    softened = merge_subclasses(values, owner, 3, "softmax")
    torch.testing.assert_close(softened[0, 0], weight[0] * 1 + weight[1] * 3)
    assert softened[0, 1] == -2
    maps = values[:, :, None, None].expand(-1, -1, 2, 3)
    torch.testing.assert_close(merge_subclasses(maps, owner, 3, "softmax")[0, :, 1, 2], softened[0])


def test_merging_does_not_need_subclasses_in_class_order():
    values = torch.tensor([[1.0, 10.0, 3.0]])
    assert torch.equal(merge_subclasses(values, torch.tensor([1, 0, 1]), 2, "mean"), torch.tensor([[10.0, 2.0]]))


def test_pool():
    maps = torch.arange(24.0).view(1, 2, 3, 4)
    assert torch.equal(pool(maps), torch.tensor([[5.5, 17.5]]))


def test_pool_by_log_mean_exp(generator):
    maps = 3 * torch.randn(2, 3, 4, 5, generator=generator)
    by_scipy = logsumexp(maps.numpy(), axis=(2, 3)) - np.log(20)
    torch.testing.assert_close(pool_log_mean_exp(maps), torch.from_numpy(by_scipy).float())
    corner = torch.full((1, 1, 8, 8), -6.0)
    corner[..., :2, :2] = 6
    assert pool(corner) < 0 < pool_log_mean_exp(corner)  # a sixteenth of the image shows the class


def test_fuse_is_a_weighted_mean_that_keeps_constants():
    fused = fuse([(0.3, torch.full((1, 2, 4, 4), 5.0)), (1.2, torch.full((1, 2, 2, 2), 5.0))], (4, 4))
    torch.testing.assert_close(fused, torch.full((1, 2, 4, 4), 5.0))
    fused = fuse([(1.0, torch.full((1, 1, 4, 4), 2.0)), (3.0, torch.full((1, 1, 2, 2), 6.0))], (4, 4))
    torch.testing.assert_close(fused, torch.full((1, 1, 4, 4), 5.0))


def test_fuse_per_tile_by_the_loop(generator):
    maps = [torch.randn(2, 3, n, n, generator=generator) for n in (8, 4, 2, 2)]
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    weights = (0.0, 0.3, 0.3, 0.4)
    expected = torch.zeros(2, 3, 16, 16)
    for b in range(2):
        for n in range(3):
            for weight, m in zip(weights, maps, strict=True):
                one = m[b, n].clamp(min=0)
                one = (one - one.min()) / (one.max() - one.min() + 1e-6) * labels[b, n]
                expected[b, n] += (
                    weight * F.interpolate(one[None, None], (16, 16), mode="bilinear", align_corners=True)[0, 0]
                )
    torch.testing.assert_close(fuse_per_tile(maps, labels, weights, (16, 16)), expected)


def test_stretch_of_a_constant_is_zero():
    assert torch.equal(stretch(torch.full((1, 2, 3, 3), 4.0), 1e-6), torch.zeros(1, 2, 3, 3))


def test_threshold_mask():
    maps = torch.tensor([[[[0.0, 0.1, 0.2, 1.0]]], [[[0.0, 0.3, 0.6, 2.0]]]])
    mask = masks.threshold_mask(maps, maps.amax((1, 2, 3)), 0.15)
    assert mask[:, 0, 0].tolist() == [[0, 0, 1, 1], [0, 1, 1, 1]]


def test_separate():
    images, maps = torch.rand(2, 3, 4, 4), torch.rand(2, 1, 4, 4)
    mask = (torch.rand(2, 1, 4, 4) > 0.5).float()
    foreground, background = masks.separate(images, maps, mask)
    torch.testing.assert_close(foreground, mask * maps * images)
    torch.testing.assert_close(background, (1 - mask) * (1 - maps) * images)
    assert (foreground * background == 0).all()
    without = masks.separate(images, maps, None)
    torch.testing.assert_close(without[0], maps * images)
    torch.testing.assert_close(without[1], (1 - maps) * images)


def test_to_unit_keeps_zero_and_reaches_one():
    maps = torch.tensor([[[[-3.0, 0.0, 2.0, 8.0]]], [[[-1.0, -2.0, -0.5, 0.0]]]])
    unit = masks.to_unit(maps)
    assert unit[:, 0, 0].tolist() == [[0, 0, 0.25, 1], [0, 0, 0, 0]]
    torch.testing.assert_close(masks.to_unit(7 * maps), unit)


@pytest.mark.parametrize("largest", [1e-6, 0.1, 1.0, 30.0])
def test_to_unit_never_enlarges_a_gradient(largest):
    """A map with a small maximum, divided by that maximum, once ruined a whole training (gradient 1e2)."""
    maps = torch.tensor([[[[-1.0, 0.3 * largest, largest]]]], dtype=torch.float64, requires_grad=True)
    unit = masks.to_unit(maps)
    for value in unit.flatten():
        (gradient,) = torch.autograd.grad(value, maps, retain_graph=True)
        assert gradient.abs().max() <= 1
