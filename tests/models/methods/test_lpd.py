"""The additions of LPD to PBIP: its prototypes are learned, spread, and find tissue without a bank."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from napari_pbip.config import LpdSettings
from napari_pbip.errors import ModelError
from napari_pbip.models import masks
from napari_pbip.models.backbones import Backbone, BackboneSpec
from napari_pbip.models.losses.diversity import diversity_loss, diversity_loss_released
from napari_pbip.models.methods.base import MethodInputs
from napari_pbip.models.methods.lpd import Lpd
from napari_pbip.models.prototypes import Prototypes
from tests.models.methods.test_pbip import IMAGES, LABELS, ColourEncoder, PoolingEncoder, coloured_tiles

SMALL = BackboneSpec("small", channels=(16, 32, 40, 64), depths=(1, 1, 1, 1))


def build(encoder: nn.Module | None = None, k: int = 2, dimension: int = 20, **changes: object) -> Lpd:
    torch.manual_seed(0)
    start = Prototypes.random([k] * 3, dimension)
    settings = LpdSettings.model_validate({"k": k, **changes})
    return Lpd(Backbone(SMALL), start, classes=3, encoder=encoder, **settings.options())


# the diversity loss


def likeness(p: torch.Tensor, q: torch.Tensor) -> float:
    """Return exp(-J) from the definition of the Kullback-Leibler divergence."""
    one = sum(float(a * torch.log(a / b)) for a, b in zip(p, q, strict=True))
    other = sum(float(b * torch.log(b / a)) for a, b in zip(p, q, strict=True))
    return math.exp(-(one + other))


@pytest.mark.parametrize("released", [False, True])
def test_diversity_is_the_mean_over_pairs_written_out(released: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    cosines = torch.rand(2, 6, 5, 4, generator=generator) * 2 - 1
    mask = torch.randint(0, 4, (2, 5, 4), generator=generator)  # 3 is the background
    mask[0][mask[0] == 2] = 1  # a class that the first image does not show
    owner = torch.tensor([0, 0, 0, 1, 1, 2])
    values = []
    for image, n in itertools.product(range(2), range(3)):
        here = mask[image] == n
        if here.sum() < 2:
            continue
        scale = 1 if released else 0.07
        p = (cosines[image][owner == n][:, here] / scale).softmax(1)
        p = p.softmax(1) if released else p
        values += [likeness(a, b) for a, b in itertools.combinations(p, 2)]
    found = diversity_loss_released(cosines, mask, owner) if released else diversity_loss(cosines, mask, owner, 0.07)
    assert float(found) == pytest.approx(sum(values) / len(values), abs=1e-5)


def test_diversity_of_nothing_is_zero_with_a_gradient_of_zero() -> None:
    cosines = torch.rand(1, 4, 3, 3, requires_grad=True)
    nothing = diversity_loss(cosines, torch.full((1, 3, 3), 2), torch.tensor([0, 0, 1, 1]), 0.07)
    lone = diversity_loss(cosines, torch.zeros(1, 3, 3, dtype=torch.long), torch.tensor([0, 1, 2, 3]), 0.07)
    (nothing + lone).backward()
    assert nothing.item() == lone.item() == 0
    assert torch.equal(cosines.grad, torch.zeros_like(cosines))


def test_our_diversity_pulls_where_the_released_one_hardly_does() -> None:
    generator = torch.Generator().manual_seed(0)
    shared = torch.rand(1, 1, 14, 14, generator=generator) - 0.5  # prototypes that are active in the same places
    cosines = (shared + 0.05 * torch.rand(1, 3, 14, 14, generator=generator)).requires_grad_()
    everywhere, owner = torch.zeros(1, 14, 14, dtype=torch.long), torch.zeros(3, dtype=torch.long)
    (ours,) = torch.autograd.grad(diversity_loss(cosines, everywhere, owner, 0.07), cosines)
    (released,) = torch.autograd.grad(diversity_loss_released(cosines, everywhere, owner), cosines)
    assert ours.norm() > 100 * released.norm()


def test_pseudo_mask_is_the_best_present_class_or_background() -> None:
    maps = torch.tensor([[[[4.0, 0.5, -1.0]], [[8.0, 0.1, -2.0]], [[2.0, 9.0, 0.5]]]])
    assert masks.pseudo_mask(maps, torch.tensor([[1.0, 1, 1]]), 0.2).tolist() == [[[0, 2, 3]]]
    assert masks.pseudo_mask(maps, torch.tensor([[1.0, 1, 0]]), 0.2).tolist() == [[[0, 3, 3]]]


# the method


def test_prototypes_are_learned_and_part_of_the_model() -> None:
    method = build(PoolingEncoder())
    assert "prototypes" in dict(method.named_parameters())
    assert "prototypes" in method.state_dict()
    for term in ("classification_4", "foreground", "background", "diversity"):
        method.zero_grad()
        method.loss(IMAGES, LABELS).terms[term].backward()
        assert method.prototypes.grad.abs().sum() > 0, term
        assert method.backbone.stages[0].patch_embeddings.proj.weight.grad.abs().sum() > 0, term


def test_warm_up_trains_the_classification_alone_under_the_same_names() -> None:
    method = build(PoolingEncoder(), warm_up=0.5).eval()
    before, after = method.loss(IMAGES, LABELS, 0.49), method.loss(IMAGES, LABELS, 0.5)
    assert list(before.terms) == list(after.terms)
    later = ("foreground", "background", "sparsity", "diversity")
    assert all(before.terms[name].item() == 0 != after.terms[name].item() for name in later)
    total = sum(w * before.terms[f"classification_{i}"] for i, w in ((2, 0.1), (3, 1.0), (4, 1.0)))
    torch.testing.assert_close(before.total, total)


@pytest.mark.parametrize(
    ("changes", "left_out"),
    [({"diversity": 0}, "diversity"), ({"beta": 0}, "foreground"), ({"theta_background": 0}, "background")],
)
def test_a_weight_of_zero_leaves_the_term_out(changes: dict[str, float], left_out: str) -> None:
    method = build(PoolingEncoder(), **changes)
    assert left_out not in method.loss(IMAGES, LABELS, 0.0).terms
    assert left_out not in method.loss(IMAGES, LABELS, 1.0).terms


def test_without_prototypes_it_says_what_to_do() -> None:
    with pytest.raises(ModelError, match="train it again"):
        Lpd.from_inputs(MethodInputs(Backbone(SMALL), 3), **LpdSettings().options())


class WideColourEncoder(ColourEncoder):
    """Colours in 16 dimensions, because three are too few for nine random prototypes."""

    def forward(self, images):
        mixed = torch.randn(3, 16, generator=torch.Generator().manual_seed(5))
        return super().forward(images) @ mixed


def train(**changes: object) -> tuple[float, float]:
    """Train LPD on coloured tiles; return the share of correct pixels on new tiles, and the prototypes' similarity."""
    generator = torch.Generator().manual_seed(0)
    method = build(WideColourEncoder(), k=3, dimension=16, **changes).train()
    optimiser = torch.optim.AdamW(method.parameters(), lr=3e-3)
    steps = 60
    for step in range(steps):
        images, labels, _ = coloured_tiles(9, generator)
        optimiser.zero_grad()
        method.loss(images, labels, step / steps).total.backward()
        optimiser.step()
    images, _, truth = coloured_tiles(18, generator)
    with torch.no_grad():
        maps = method.eval().scores(images).maps
        seen = method(images).subclass_maps[3] / method.heads[3].scale
        small = F.interpolate(truth[:, None].float(), seen.shape[2:], mode="nearest")[:, 0].long()
        alike = diversity_loss(seen, small, method.subclass_class, 0.07)
    found = F.interpolate(maps, truth.shape[1:], mode="bilinear").argmax(1)
    return (found == truth).float().mean().item(), float(alike)


def test_learns_from_image_labels_alone_and_prototypes_spread() -> None:
    found, alike = train()
    assert found > 0.85
    assert alike < 0.3
    released, released_alike = train(preset="released")
    assert released > 0.85
    assert released_alike > 0.7  # the released term leaves them alike
