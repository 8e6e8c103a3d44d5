"""PBIP as a whole: its gradients, its variants, and that it learns to locate classes from image-level labels."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from napari_pbip.config import PbipSettings
from napari_pbip.errors import ModelError
from napari_pbip.models import encoders
from napari_pbip.models.backbones import Backbone, BackboneSpec
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.encoders.stage_statistics import tissue_statistics
from napari_pbip.models.methods.pbip import Pbip, select_subclasses
from napari_pbip.models.prototypes import Prototypes

SMALL = BackboneSpec("small", channels=(16, 32, 40, 64), depths=(1, 1, 1, 1))
CLASSES, K, DIMENSION = 3, (2, 1, 3), 20
SUBCLASS_CLASS = torch.repeat_interleave(torch.arange(CLASSES), torch.tensor(K))
LABELS = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class PoolingEncoder(nn.Module):
    """Average pooling to 8 x 8 times a random matrix; it records the sizes of its batches."""

    pools_cells = False

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(192, DIMENSION), requires_grad=False)
        self.batches: list[int] = []

    def forward(self, images):
        self.batches.append(len(images))
        return F.adaptive_avg_pool2d(images, 8).flatten(1) @ self.weight


def options(**changes):
    """Return the keyword arguments of Pbip from its settings."""
    return PbipSettings.model_validate(changes).options()


def build(encoder=True, **changes) -> Pbip:
    torch.manual_seed(0)
    prototypes = torch.randn(len(SUBCLASS_CLASS), DIMENSION)
    stub = PoolingEncoder() if encoder else None
    start = Prototypes(prototypes, SUBCLASS_CLASS)
    return Pbip(Backbone(SMALL), start, classes=CLASSES, encoder=stub, **options(**changes)).eval()


def gradient(method, term):
    """Return the gradient norm of the first layer of the backbone for one term of the loss."""
    method.zero_grad()
    method.loss(IMAGES, LABELS).terms[term].backward()
    grad = method.backbone.stages[0].patch_embeddings.proj.weight.grad
    return 0.0 if grad is None else float(grad.norm())


PRESETS = ["default", "paper", "released"]
CONTRASTS = ["classes", "subclasses", "equations", "released"]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", [(64, 64), (72, 40)])
def test_output_shapes(preset, size):
    method = build(preset=preset)
    images = torch.rand(2, 3, *size)
    output = method(images)
    features = method.backbone(images)
    for i in range(4):
        cells = features[i].shape[2:]
        assert output.subclass_maps[i].shape == (2, sum(K), *cells)
        assert output.class_maps[i].shape == (2, CLASSES, *cells)
        assert output.subclass_scores[i].shape == (2, sum(K))
        assert output.class_scores[i].shape == (2, CLASSES)
    scores = method.scores(images)
    finest = 0 if preset == "paper" else 1  # the first stage that has weight in the fusion
    assert scores.maps.shape == (2, CLASSES, *features[finest].shape[2:])
    assert scores.presence.shape == (2, CLASSES)


def test_default_maps_are_scaled_cosines_and_class_maps_their_means():
    method = build()
    output = method(IMAGES)
    for i, maps in enumerate(output.subclass_maps):
        assert (maps.abs() <= method.heads[i].scale + 1e-4).all()
        for n in range(CLASSES):
            torch.testing.assert_close(output.class_maps[i][:, n], maps[:, n == SUBCLASS_CLASS].mean(1))


@pytest.mark.parametrize(
    "changes", [{}, {"subclass_merge": "softmax"}, {"similarity_maps": False}, {"preset": "paper"}]
)
def test_scores_of_the_folded_head_are_those_of_the_whole_network(changes):
    method = build(**changes)
    with torch.no_grad():
        scores, output = method.scores(IMAGES), method(IMAGES)
        expected = sum(
            w * F.interpolate(m, scores.maps.shape[2:], mode="bilinear")
            for w, m in zip(method.fusion_weights, output.class_maps, strict=True)
        ) / sum(method.fusion_weights)
    torch.testing.assert_close(scores.maps, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores.presence, method.presence(output), atol=1e-5, rtol=1e-5)


def test_scores_follow_the_weights_as_they_are_now():
    method = build()
    with torch.no_grad():
        before = method.scores(IMAGES).maps
        method.heads[1].projection[2].weight.mul_(-1)
        assert not torch.allclose(method.scores(IMAGES).maps, before)


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("mask", ["clipped", "released"])
@pytest.mark.parametrize("term", ["foreground", "background"])
def test_gradient_flows_through_the_frozen_encoder(contrast, mask, term):
    method = build(contrast=contrast, mask=mask)
    assert gradient(method, term) > 0
    assert method.encoder.network.weight.grad is None


def test_foreground_and_background_are_one_batch():
    method = build()
    method.loss(IMAGES, LABELS)
    (size,) = method.encoder.network.batches
    assert size % 2 == 0
    assert 2 <= size <= 2 * 3


def test_total_is_the_weighted_sum_of_the_terms():
    method = build(alpha=0.7, beta=0.3, theta_foreground=0.9, theta_background=0.4, sparsity=0.01)
    loss = method.loss(IMAGES, LABELS)
    t = loss.terms
    assert list(t) == [
        "classification_2",
        "classification_3",
        "classification_4",
        "foreground",
        "background",
        "sparsity",
    ]
    classification = 0.1 * t["classification_2"] + t["classification_3"] + t["classification_4"]
    similarity = 0.9 * t["foreground"] + 0.4 * t["background"] + 0.01 * t["sparsity"]
    torch.testing.assert_close(loss.total, 0.7 * classification + 0.3 * similarity)


@pytest.mark.parametrize(
    ("changes", "left_out", "batches"),
    [
        ({"theta_foreground": 0}, {"foreground"}, 1),
        ({"theta_background": 0}, {"background"}, 1),
        ({"theta_foreground": 0, "theta_background": 0}, {"foreground", "background"}, 0),
        ({"beta": 0}, {"foreground", "background", "sparsity"}, 0),
        ({"sparsity": 0}, {"sparsity"}, 1),
    ],
)
def test_a_weight_of_zero_skips_the_work(changes, left_out, batches):
    full, method = build(), build(**changes)
    terms = method.loss(IMAGES, LABELS).terms
    assert set(full.loss(IMAGES, LABELS).terms) - set(terms) == left_out
    assert len(method.encoder.network.batches) == batches
    if "theta_foreground" in changes and batches:
        assert method.encoder.network.batches[0] * 2 == full.encoder.network.batches[0]


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_no_pair_to_contrast_is_a_zero_not_an_error(contrast):
    method = build(contrast=contrast)
    loss = method.loss(IMAGES, torch.zeros(2, CLASSES))
    assert loss.terms["foreground"] == loss.terms["background"] == 0
    assert method.encoder.network.batches == []
    loss.total.backward()
    assert torch.isfinite(loss.total)


def test_a_map_without_anything_positive_shows_no_foreground():
    """Its foreground and background would be black, without a gradient that could change this."""
    method = build(similarity_maps=False)
    with torch.no_grad():
        for head in method.heads:
            head.weight.zero_()
            head.bias.fill_(-1)
    assert method.loss(IMAGES, LABELS).terms["foreground"] == 0
    assert method.encoder.network.batches == []


def test_encoder_is_no_part_of_the_model():
    method, bare = build(), build(encoder=False)
    assert method.state_dict().keys() == bare.state_dict().keys()
    assert {n for n, _ in method.named_parameters()} == {n for n, _ in bare.named_parameters()}
    assert "prototypes" in bare.state_dict()
    bare.load_state_dict(method.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(bare.scores(IMAGES).maps, method.scores(IMAGES).maps)
    with pytest.raises(ModelError, match="needs the encoder"):
        bare.loss(IMAGES, LABELS)


def test_without_contrast_no_encoder_is_needed():
    method = build(encoder=False, beta=0)
    method.loss(IMAGES, LABELS).total.backward()


def test_ablation_of_the_similarity_maps():
    method = build(similarity_maps=False)
    assert all(isinstance(head, nn.Conv2d) and head.kernel_size == (1, 1) for head in method.heads)
    method.loss(IMAGES, LABELS).total.backward()
    assert method.heads[3].weight.grad.norm() > 0


@pytest.mark.parametrize("mask", ["clipped", "released"])
def test_ablation_of_the_adaptive_threshold(mask):
    """Without it, foreground and background overlap; delta has no effect."""
    with torch.no_grad():
        off = [
            build(mask=mask, adaptive_threshold=False, delta=d).loss(IMAGES, LABELS).terms["foreground"]
            for d in (0.1, 0.9)
        ]
        on = [build(mask=mask, delta=d).loss(IMAGES, LABELS).terms["foreground"] for d in (0.1, 0.9)]
    assert off[0] == off[1]
    assert on[0] != on[1]


def test_only_children_are_selected_in_our_form_only():
    scores = torch.tensor([[1.0, 3.0, 2.0, 0.0, 5.0, 1.0]])
    labels = torch.tensor([[1.0, 1.0, 0.0]])
    pick = {m: select_subclasses(scores, labels, SUBCLASS_CLASS, only_children=m)[0].tolist() for m in (True, False)}
    assert pick[False] == [False, True, False, False, False, False]
    assert pick[True] == [False, True, True, False, False, False]


@pytest.mark.parametrize("preset", PRESETS)
def test_bfloat16(preset):
    method = build(preset=preset)
    exact = method.loss(IMAGES, LABELS).total
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.loss(IMAGES, LABELS)
    loss.total.backward()
    assert loss.total.dtype == torch.float32
    assert loss.total.item() == pytest.approx(exact.item(), rel=0.1)
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_what_cannot_be():
    def make(prototypes, owners, classes):
        start = Prototypes(prototypes, torch.tensor(owners))
        return Pbip(Backbone(SMALL), start, classes=classes, **options())

    with pytest.raises(ModelError, match="two or more"):
        make(torch.rand(2, 4), [0, 0], 1)
    with pytest.raises(ModelError, match="two or more"):
        make(torch.rand(2, 4), [0, 2], 3)
    with pytest.raises(ModelError, match="come with the classes of 3"):
        make(torch.rand(2, 4), [0, 1, 1], 2)


class ColourEncoder(nn.Module):
    """The mean colour of pixels that are not black, which a mask does not change."""

    pools_cells = False

    def forward(self, images):
        weight = images.sum(1, keepdim=True)
        colour = (images * weight).sum((2, 3)) / (weight.sum((2, 3)) + 1e-6)
        return colour / (colour.sum(1, keepdim=True) + 1e-6) - 1 / 3


class Hue(nn.Module):
    """Statistics of the colour of single pixels, which does not depend on how bright they and their neighbours are."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, images):
        return self.pool(self.cells(images), images)

    def cells(self, images):
        self.batches.append(len(images))
        return images / (images.sum(1, keepdim=True) + 1e-12)

    def pool(self, cells, images):
        return tissue_statistics(cells, images)


def test_masked_features_are_those_of_masked_images_where_cells_do_not_see_their_neighbours():
    """Loss and gradients are equal, and the network runs once for each image."""
    losses, gradients = [], []
    for masked in ("images", "auto"):
        network = Hue()
        torch.manual_seed(0)
        start = Prototypes(torch.rand(len(SUBCLASS_CLASS), 6), SUBCLASS_CLASS)
        encoder = Encoder(encoders.lookup("efficientnet-lite0"), network)
        method = Pbip(Backbone(SMALL), start, classes=CLASSES, encoder=encoder, **options(masked=masked)).eval()
        loss = method.loss(IMAGES, LABELS)
        (loss.terms["foreground"] + loss.terms["background"]).backward()
        losses.append(loss.total)
        gradients.append({name: p.grad for name, p in method.named_parameters() if p.grad is not None})
        assert (network.batches == [len(IMAGES)]) == (masked == "auto")
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)
    assert any(gradient.norm() > 1e-4 for gradient in gradients[0].values())


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_presets_mask_images_as_published(preset):
    assert options(preset=preset)["masked"] == "images"


COLOURS = torch.tensor([[0.8, 0.4, 0.4], [0.4, 0.8, 0.4], [0.4, 0.4, 0.8]])


def coloured_tiles(count, generator):
    """Return noisy tiles of 64 x 64 pixels with one colour, or two side by side, their labels and masks."""
    images, labels, truth = [], torch.zeros(count, 3), torch.zeros(count, 64, 64, dtype=torch.long)
    for i in range(count):
        a, b = torch.randperm(3, generator=generator)[:2].tolist()
        at = int(torch.randint(16, 48, (1,), generator=generator))
        truth[i] = a
        labels[i, a] = 1
        if i % 3:
            truth[i, :, at:] = b
            labels[i, b] = 1
        noise = 0.15 * torch.randn(3, 64, 64, generator=generator)
        images.append((COLOURS[truth[i]].permute(2, 0, 1) + noise).clamp(0, 1))
    return torch.stack(images), labels, truth


def train(steps, **changes):
    """Train PBIP on coloured tiles; return the losses of the steps, and the share of correct pixels on new tiles."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    encoder = ColourEncoder()
    prototypes = encoder(COLOURS[:, :, None, None].expand(3, 3, 8, 8)).repeat_interleave(2, 0)
    prototypes = prototypes + 0.01 * torch.randn(prototypes.shape, generator=generator)
    owners = torch.arange(3).repeat_interleave(2)
    start = Prototypes(prototypes, owners)
    method = Pbip(Backbone(SMALL), start, classes=3, encoder=encoder, **options(**changes)).train()
    optimiser = torch.optim.AdamW(method.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        images, labels, _ = coloured_tiles(9, generator)
        loss = method.loss(images, labels)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        losses.append(loss.total.item())
    images, _, truth = coloured_tiles(18, generator)
    with torch.no_grad():
        maps = method.eval().scores(images).maps
    found = F.interpolate(maps, truth.shape[1:], mode="bilinear").argmax(1)
    return losses, (found == truth).float().mean().item()


@pytest.mark.parametrize(("preset", "steps"), [("default", 100), ("paper", 30)])
def test_learns_where_the_classes_are_from_image_labels_alone(preset, steps):
    losses, found = train(steps, preset=preset)
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert found > 0.85


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_an_offset_moves_presence_and_no_map(preset):
    method = build(preset=preset)
    before, quick = method(IMAGES), method.scores(IMAGES)
    with torch.no_grad():
        method.offsets[:, 1] = 0.2
    after, quick_after = method(IMAGES), method.scores(IMAGES)
    for i in range(4):
        torch.testing.assert_close(after.class_maps[i], before.class_maps[i])
        moved = after.class_scores[i] - before.class_scores[i]
        torch.testing.assert_close(moved[:, 1], (0.2 * method.heads[i].scale).expand(2))
        torch.testing.assert_close(moved[:, [0, 2]], torch.zeros(2, 2))
    torch.testing.assert_close(quick_after.maps, quick.maps)
    torch.testing.assert_close(quick_after.presence, method.presence(after))
    method.loss(IMAGES, LABELS).total.backward()
    assert method.offsets.grad.abs().sum() > 0


def test_the_released_form_has_no_offset():
    assert not [name for name in build(preset="released").state_dict() if "offset" in name]
