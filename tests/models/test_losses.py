"""The losses against loops written from the equations, closed forms, and numerical gradients."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from napari_pbip.models.losses import contrast
from napari_pbip.models.losses.classification import classification_loss
from napari_pbip.models.losses.pixels import pixel_loss

PROTOTYPES, CLASSES = 7, 3
SUBCLASS_CLASS = torch.tensor([0, 0, 0, 1, 1, 2, 2])


@pytest.fixture(params=["classes", "subclasses"])
def own(request) -> torch.Tensor:
    """Own prototypes of five features: all of a class, or one."""
    if request.param == "classes":
        return torch.tensor([0, 1, 2, 1, 0])[:, None] == SUBCLASS_CLASS
    return torch.tensor([0, 4, 6, 3, 2])[:, None] == torch.arange(PROTOTYPES)


@pytest.fixture
def similarity() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(5, PROTOTYPES, generator=generator, dtype=torch.float64) * 2 - 1


def parts(similarity, own, temperature):
    """exp(s / t) of each feature's own prototypes and of its rivals."""
    for row, mine in zip(similarity.tolist(), own.tolist(), strict=True):
        e = [math.exp(s / temperature) for s in row]
        yield [v for v, m in zip(e, mine, strict=True) if m], [v for v, m in zip(e, mine, strict=True) if not m]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_per_sample(similarity, own, temperature):
    pairs = list(parts(similarity, own, temperature))
    foreground = mean(-math.log(sum(o) / (sum(o) + sum(r))) for o, r in pairs)
    background = mean(-math.log(mean(r) / (mean(r) + mean(o))) for o, r in pairs)
    assert contrast.foreground_loss(similarity, own, temperature).item() == pytest.approx(foreground, rel=1e-6)
    assert contrast.background_loss(similarity, own, temperature).item() == pytest.approx(background, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_released(similarity, own, temperature):
    pairs = list(parts(similarity, own, temperature))
    owned, everything = sum(sum(o) for o, _ in pairs), sum(sum(o) + sum(r) for o, r in pairs)
    assert contrast.foreground_loss_released(similarity, own, temperature).item() == pytest.approx(
        -math.log(owned / everything), rel=1e-6
    )
    rivals, mine = sum(mean(r) for _, r in pairs), sum(mean(o) for o, _ in pairs)
    assert contrast.background_loss_released(similarity, own, temperature).item() == pytest.approx(
        -math.log(rivals / (rivals + mine)), rel=1e-6
    )


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equations_to_the_letter(similarity, own, temperature):
    foreground, background = [], []
    for row, chosen in zip(similarity.tolist(), own.tolist(), strict=True):
        ff = sum(s for s, m in zip(row, chosen, strict=True) if m)
        fb = sum(s for s, m in zip(row, chosen, strict=True) if not m)
        bf = ff / sum(chosen)
        bb = fb / (len(chosen) - sum(chosen))
        foreground.append(
            -math.log(math.exp(ff / temperature) / (math.exp(ff / temperature) + math.exp(fb / temperature)))
        )
        background.append(
            -math.log(math.exp(bb / temperature) / (math.exp(bf / temperature) + math.exp(bb / temperature)))
        )
    assert contrast.foreground_loss_of_sums(similarity, own, temperature).item() == pytest.approx(
        mean(foreground), rel=1e-6
    )
    assert contrast.background_loss_of_means(similarity, own, temperature).item() == pytest.approx(
        mean(background), rel=1e-6
    )


LOSSES = [
    contrast.foreground_loss,
    contrast.background_loss,
    contrast.foreground_loss_of_sums,
    contrast.background_loss_of_means,
    contrast.foreground_loss_released,
    contrast.background_loss_released,
]


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients(similarity, own, loss):
    similarity.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(s, own, 0.3), (similarity,))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sign", [1, -1])
def test_extreme_similarities_do_not_overflow(own, loss, sign):
    similarity = torch.where(own, sign, -sign).float().requires_grad_()
    value = loss(similarity, own, 1e-3)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(similarity.grad).all()
    wanted = sign if "foreground" in loss.__name__ else -sign
    assert (value < 1e-3) if wanted > 0 else (value > 1e2)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_foreground_draws_to_its_own_and_the_background_to_the_rivals(similarity, own, loss):
    similarity.requires_grad_()
    loss(similarity, own, 0.5).backward()
    towards = -1 if "foreground" in loss.__name__ else 1
    assert (similarity.grad[own] * towards > 0).all()
    assert (similarity.grad[~own] * towards < 0).all()


def test_one_prototype_each_makes_per_sample_and_letter_agree():
    """With one own prototype and one rival, all readings are the same logistic loss."""
    similarity = torch.tensor([[0.8, -0.3]], dtype=torch.float64)
    own = torch.tensor([[True, False]])
    for loss in LOSSES:
        margin = 1.1 if "foreground" in loss.__name__ else -1.1
        assert loss(similarity, own, 0.5).item() == pytest.approx(math.log1p(math.exp(-margin / 0.5)), rel=1e-6)


def test_similarities_are_cosines_of_unit_prototypes():
    generator = torch.Generator().manual_seed(1)
    features, prototypes = torch.randn(4, 9, generator=generator), torch.randn(3, 9, generator=generator)
    found = contrast.similarities(features, torch.nn.functional.normalize(prototypes, dim=1))
    expected = torch.cosine_similarity(features[:, None], prototypes[None], dim=2)
    torch.testing.assert_close(found, expected)
    lengths = prototypes.norm(dim=1)
    torch.testing.assert_close(contrast.similarities(features, prototypes), expected * lengths)


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
    """A sharp temperature would multiply what bfloat16 rounds away."""
    features, prototypes = torch.randn(5, 64), torch.randn(3, 64)
    with torch.autocast("cpu", torch.bfloat16):
        inside = contrast.similarities(features, prototypes)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, contrast.similarities(features, prototypes), rtol=0, atol=0)
