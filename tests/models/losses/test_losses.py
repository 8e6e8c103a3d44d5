"""The losses, compared with loops written from the equations, closed forms, and numerical gradients."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch

from napari_pbip.models.losses.classification import classification_loss
from napari_pbip.models.losses.contrast import info_nce, info_nce_of_means, logistic_loss, similarities
from napari_pbip.models.losses.pixels import pixel_loss

PROTOTYPES, CLASSES = 7, 3
SUBCLASS_CLASS = torch.tensor([0, 0, 0, 1, 1, 2, 2])


@pytest.fixture(params=["classes", "subclasses"])
def positives(request) -> torch.Tensor:
    """Return the positives of five features: the prototypes of a class, or one prototype."""
    if request.param == "classes":
        return torch.tensor([0, 1, 2, 1, 0])[:, None] == SUBCLASS_CLASS
    return torch.tensor([0, 4, 6, 3, 2])[:, None] == torch.arange(PROTOTYPES)


@pytest.fixture
def similarity() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(5, PROTOTYPES, generator=generator, dtype=torch.float64) * 2 - 1


def parts(similarity, positives):
    """Return the similarities of each feature to its positives and to its negatives."""
    for row, chosen in zip(similarity.tolist(), positives.tolist(), strict=True):
        yield [s for s, m in zip(row, chosen, strict=True) if m], [s for s, m in zip(row, chosen, strict=True) if not m]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize(("loss", "pool"), [(info_nce, sum), (info_nce_of_means, mean)])
def test_info_nce_of_each_feature_and_of_the_batch(similarity, positives, temperature, loss, pool):
    pairs = [[pool(math.exp(s / temperature) for s in some) for some in pair] for pair in parts(similarity, positives)]
    expected = mean(-math.log(p / (p + n)) for p, n in pairs)
    assert loss(similarity, positives, temperature).item() == pytest.approx(expected, rel=1e-6)
    p, n = (sum(some) for some in zip(*pairs, strict=True))
    over_batch = loss(similarity, positives, temperature, over_batch=True)
    assert over_batch.item() == pytest.approx(-math.log(p / (p + n)), rel=1e-6)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize(("name", "pool"), [("sum", sum), ("mean", mean)])
def test_equations_to_the_letter(similarity, positives, temperature, name, pool):
    expected = []
    for pair in parts(similarity, positives):
        a, b = (math.exp(pool(some) / temperature) for some in pair)
        expected.append(-math.log(a / (a + b)))
    loss = logistic_loss(similarity, positives, temperature, name)
    assert loss.item() == pytest.approx(mean(expected), rel=1e-6)


LOSSES = [
    info_nce,
    info_nce_of_means,
    partial(info_nce, over_batch=True),
    partial(info_nce_of_means, over_batch=True),
    partial(logistic_loss, pool="sum"),
    partial(logistic_loss, pool="mean"),
]


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients(similarity, positives, loss):
    similarity.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(s, positives, 0.3), (similarity,))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sign", [1, -1])
def test_extreme_similarities_do_not_overflow(positives, loss, sign):
    similarity = torch.where(positives, sign, -sign).float().requires_grad_()
    value = loss(similarity, positives, 1e-3)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(similarity.grad).all()
    assert (value < 1e-3) if sign > 0 else (value > 1e2)


@pytest.mark.parametrize("loss", LOSSES)
def test_features_are_drawn_to_positives_and_away_from_negatives(similarity, positives, loss):
    similarity.requires_grad_()
    loss(similarity, positives, 0.5).backward()
    assert (similarity.grad[positives] < 0).all()
    assert (similarity.grad[~positives] > 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_with_one_positive_and_one_negative_all_are_the_logistic_loss(loss):
    similarity = torch.tensor([[0.8, -0.3]], dtype=torch.float64)
    positives = torch.tensor([[True, False]])
    assert loss(similarity, positives, 0.5).item() == pytest.approx(math.log1p(math.exp(-1.1 / 0.5)), rel=1e-6)


def test_similarities_are_cosines_of_unit_prototypes():
    generator = torch.Generator().manual_seed(1)
    features, prototypes = torch.randn(4, 9, generator=generator), torch.randn(3, 9, generator=generator)
    found = similarities(features, torch.nn.functional.normalize(prototypes, dim=1))
    expected = torch.cosine_similarity(features[:, None], prototypes[None], dim=2)
    torch.testing.assert_close(found, expected)
    lengths = prototypes.norm(dim=1)
    torch.testing.assert_close(similarities(features, prototypes), expected * lengths)


def test_classification_loss():
    scores = torch.tensor([[2.0, -1.0], [0.5, 0.0]], dtype=torch.float64)
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    probabilities = 1 / (1 + (-scores).exp())
    terms = [
        (1 - y) * math.log(1 - p) + y * math.log(p)
        for p, y in zip(*(t.flatten().tolist() for t in (probabilities, labels)), strict=True)
    ]
    assert classification_loss(scores, labels).item() == pytest.approx(-mean(terms), rel=1e-6)


def test_pixel_loss_asks_each_cell_for_the_share_that_a_class_fills():
    masks = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    maps = torch.randn(2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    terms = []
    for b, n, y, x in itertools.product(range(2), range(3), range(2), range(2)):
        cell = masks[b, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
        share, p = float((cell == n).float().mean()), 1 / (1 + math.exp(-float(maps[b, n, y, x])))
        terms.append(-share * math.log(p) - (1 - share) * math.log(1 - p))
    assert pixel_loss(maps, masks).item() == pytest.approx(mean(terms), rel=1e-6)
    torch.autograd.gradcheck(lambda m: pixel_loss(m, masks), maps.requires_grad_())


def test_similarities_are_exact_where_the_networks_are_not():
    """A low temperature would amplify the rounding errors of bfloat16."""
    features, prototypes = torch.randn(5, 64), torch.randn(3, 64)
    with torch.autocast("cpu", torch.bfloat16):
        inside = similarities(features, prototypes)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, similarities(features, prototypes), rtol=0, atol=0)
