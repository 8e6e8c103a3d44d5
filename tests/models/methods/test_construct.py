"""ConStruct: parity of its parts, what is trained and what is not, and that it learns."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import ViTConfig, ViTModel

from napari_pbip.config import ConstructSettings
from napari_pbip.errors import ModelError
from napari_pbip.models import backbones, encoders
from napari_pbip.models.backbones import Backbone, BackboneSpec, catalogue, load_weights
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.frozen import Frozen
from napari_pbip.models.losses.contrast import info_nce, similarities
from napari_pbip.models.losses.structure import LARGEST_SIDE, structural_loss
from napari_pbip.models.memory import FeatureMemory
from napari_pbip.models.methods.base import MethodInputs
from napari_pbip.models.methods.construct import ConStruct
from napari_pbip.models.prototypes import Prototypes
from napari_pbip.models.score_maps import fuse
from napari_pbip.models.student import ResidualAdapter, StudentPyramid
from tests.models.conftest import Golden

LOSSES = {"atol": 1e-4, "rtol": 0.0}
WIDTH, K = 32, (2, 1, 3)
LABELS = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def vision_transformer(folder: Path, depth: int = 4, patch: int = 16) -> Encoder:
    """Return a small vision transformer with random weights in the layout of the hub."""
    config = ViTConfig(
        hidden_size=WIDTH, num_hidden_layers=depth, num_attention_heads=4, intermediate_size=64, image_size=64
    )
    config.patch_size = patch
    torch.manual_seed(0)
    ViTModel(config).save_pretrained(folder)
    facts = {"size": {"height": 64, "width": 64}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    return encoders.load("transformers", folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return vision_transformer(tmp_path_factory.mktemp("vit"))


def build(encoder: Encoder, **changes: Any) -> ConStruct:
    torch.manual_seed(0)
    teacher = Backbone(BackboneSpec("teacher", channels=(16, 32, 40, 64), depths=(1, 1, 1, 1)))
    inputs = MethodInputs(teacher, len(K), Prototypes.random(K, WIDTH), encoder)
    return ConStruct.from_inputs(inputs, **ConstructSettings(memory=8, **changes).options())


# Parity with the released code


@pytest.fixture(scope="module")
def golden(golden_folder: Path) -> Golden:
    """Return the arrays that the released code of ConStruct computed."""
    return Golden(golden_folder / "construct.npz")


@pytest.mark.parametrize("name", ["struct", "struct_large"])
def test_golden_structural_loss(golden: Golden, name: str) -> None:
    loss = structural_loss(golden[f"{name}/student"].float(), golden[f"{name}/teacher"].float())
    torch.testing.assert_close(loss, golden[f"{name}/loss"], **LOSSES)


def test_golden_adapter(golden: Golden) -> None:
    weights = golden.part("adapter/net.")
    adapter = ResidualAdapter(len(weights["0.bias"])).eval()
    adapter.net.load_state_dict(weights)
    with torch.no_grad():
        output = adapter(golden["struct/student"])
    torch.testing.assert_close(output, golden["adapter/output"], atol=2e-5, rtol=0)


def test_golden_contrast_with_a_memory(golden: Golden) -> None:
    """In the released code, each foreground has a prototype of its class, those of others, and the memory."""
    positive, negative, memory = golden["nce/pos"], golden["nce/neg"], golden["nce/mem"]
    foreground, background = [], []
    positives = torch.zeros(1, 1 + negative.shape[1], dtype=torch.bool)
    positives[0, 0] = True
    for i in range(len(positive)):
        prototypes = F.normalize(torch.cat([positive[i : i + 1], negative[i]]), dim=1)
        with_memory = torch.cat([prototypes, F.normalize(memory, dim=1)])
        similarity = similarities(golden["nce/fg"][i : i + 1], with_memory)
        foreground.append(info_nce(similarity, F.pad(positives, (0, len(memory))), 0.07))
        similarity = similarities(golden["nce/bg"][i : i + 1], prototypes)
        background.append(info_nce(similarity, ~positives, 0.07))
    torch.testing.assert_close(torch.stack(foreground).mean(), golden["nce/loss_fg_mem_T0.07"], **LOSSES)
    torch.testing.assert_close(torch.stack(background).mean(), golden["nce/loss_bg_T0.07"], **LOSSES)


# Parts


def test_structural_loss_is_that_of_all_pairs_of_cells() -> None:
    student, teacher = torch.rand(2, 5, 3, 4), torch.rand(2, 7, 3, 4)
    expected = 0.0
    for b in range(2):
        for p in range(12):
            for q in range(12):
                a, t = (
                    F.cosine_similarity(m[b].flatten(1)[:, p], m[b].flatten(1)[:, q], 0) for m in (student, teacher)
                )
                expected += float((a - t) ** 2) / (2 * 144)
    assert float(structural_loss(student, teacher)) == pytest.approx(expected, abs=1e-6)
    assert float(structural_loss(student, 3 * student)) == pytest.approx(0, abs=1e-7)


def test_structural_loss_of_large_maps_is_that_of_pooled_ones() -> None:
    maps = torch.rand(1, 3, 2 * LARGEST_SIDE, 2 * LARGEST_SIDE, requires_grad=True)
    teacher = torch.rand(1, 3, 2 * LARGEST_SIDE, 2 * LARGEST_SIDE)
    loss = structural_loss(maps, teacher)
    torch.testing.assert_close(loss, structural_loss(F.avg_pool2d(maps, 2), F.avg_pool2d(teacher, 2)))
    loss.backward()
    assert maps.grad is not None
    assert maps.grad.abs().sum() > 0


def test_structural_loss_does_not_lose_digits_to_autocast() -> None:
    student, teacher = torch.rand(1, 8, 6, 6), torch.rand(1, 8, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = structural_loss(student, teacher)
    assert torch.equal(inside, structural_loss(student, teacher))


def test_adapters_begin_as_nothing_and_learn() -> None:
    adapter, maps = ResidualAdapter(6), torch.rand(2, 6, 5, 4)
    assert torch.equal(adapter(maps), maps)
    adapter(maps).square().sum().backward()
    assert adapter.net[-1].weight.grad.norm() > 0


def test_memory_is_first_in_first_out() -> None:
    memory = FeatureMemory(4, 2)
    assert memory().shape == (0, 2)
    directions = F.normalize(torch.rand(20, 2), dim=1)
    for start, count in ((0, 3), (3, 2), (5, 1), (6, 0), (6, 9), (15, 5)):
        memory.add(7 * directions[start : start + count])
        end = start + count
        held, expected = memory(), directions[max(0, end - 4) : end]
        assert len(held) == min(4, end)
        torch.testing.assert_close(held[held[:, 0].argsort()], expected[expected[:, 0].argsort()])
    resumed = FeatureMemory(4, 2)
    resumed.load_state_dict(memory.state_dict())
    for m in (memory, resumed):
        m.add(directions[:2])
    assert torch.equal(memory.features, resumed.features)


def test_frozen_networks_move_along_and_are_no_part() -> None:
    frozen = Frozen(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout()))
    assert not frozen.state_dict()
    assert not list(frozen.parameters())
    assert not frozen.network.training
    assert not any(p.requires_grad for p in frozen.network.parameters())
    frozen.train()
    assert not frozen.network.training
    assert frozen.double().network[0].weight.dtype == torch.float64
    assert frozen.to("meta").network[0].weight.device.type == "meta"


@pytest.mark.parametrize(("depth", "blocks"), [(4, (1, 2, 3, 4)), (12, (3, 6, 9, 12)), (6, (2, 3, 4, 6))])
def test_levels_of_the_student(tmp_path: Path, depth: int, blocks: tuple[int, ...]) -> None:
    pyramid = StudentPyramid(vision_transformer(tmp_path, depth))
    assert pyramid.blocks == blocks
    images = torch.rand(2, 3, 96, 72)  # 72 is no multiple of 16, and 5 patches no multiple of 2
    maps = pyramid(images)
    assert [tuple(m.shape) for m in maps] == [(2, WIDTH, *s) for s in ((24, 20), (12, 10), (6, 5), (3, 3))]
    first, second, third, fourth = pyramid.encoder.network.block_maps(images, blocks)
    torch.testing.assert_close(maps[0], F.interpolate(first, (24, 20), mode="bilinear"))
    torch.testing.assert_close(maps[1], F.interpolate(second, (12, 10), mode="bilinear"))
    torch.testing.assert_close(maps[2], third)
    torch.testing.assert_close(maps[3][..., :2], F.avg_pool2d(fourth, 2))
    some = pyramid.levels(images, [3, 1])
    assert sorted(some) == [1, 3]
    assert torch.equal(some[1], maps[1])


@pytest.mark.parametrize("name", ["tiny", "texture"])
def test_an_encoder_without_blocks_is_no_student(name: str) -> None:
    with pytest.raises(ModelError, match=f"the encoder '{name}' has neither"):
        StudentPyramid(encoders.load(name))


def test_the_stages_of_a_pyramid_are_levels() -> None:
    encoder = encoders.load("efficientnet-lite0")
    pyramid = StudentPyramid(encoder)
    maps = pyramid(IMAGES)
    assert [m.shape[1] for m in maps] == list(pyramid.channels)
    expected = backbones.load("efficientnet-lite0", "builtin").eval()(IMAGES)
    for ours, theirs in zip(maps, expected, strict=True):  # the adapters begin as nothing
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(pyramid.levels(IMAGES, [1])[1], maps[1])
    maps[0].mean().backward()
    assert {n.split(".")[0] for n, p in pyramid.named_parameters() if p.grad is not None} == {"adapters"}


def test_a_student_needs_four_blocks(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="four blocks"):
        StudentPyramid(vision_transformer(tmp_path, depth=3))


# The method


def test_maps_are_those_of_the_nearest_prototype(encoder: Encoder) -> None:
    method = build(encoder).eval()
    with torch.no_grad():
        output = method(IMAGES)
    subclass_class = torch.repeat_interleave(torch.arange(len(K)), torch.tensor(K))
    for i in range(4):
        subclasses = output.subclass_maps[i]
        assert subclasses.shape[1] == sum(K)
        assert (subclasses.abs() <= method.heads[i].scale + 1e-4).all()
        for n in range(len(K)):
            torch.testing.assert_close(output.class_maps[i][:, n], subclasses[:, n == subclass_class].amax(1))
        torch.testing.assert_close(output.class_scores[i], output.class_maps[i].mean((2, 3)))


@pytest.mark.parametrize("size", [(64, 64), (72, 104), (50, 75)])
def test_scores_lie_on_the_grid_of_slides(encoder: Encoder, size: tuple[int, int]) -> None:
    method = build(encoder).eval()
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        scores, output = method.scores(images), method(images)
    grid = tuple(-(-side // 8) for side in size)
    expected = fuse(list(zip(method.fusion_weights, output.class_maps, strict=True))[1:], grid)
    torch.testing.assert_close(scores.maps, expected)
    torch.testing.assert_close(scores.presence, method.presence(output))


def test_patches_of_another_side_are_put_on_the_grid(tmp_path: Path) -> None:
    """Networks with patches of 14 pixels have 5 x 5 of them in an image of 64 pixels."""
    method = build(vision_transformer(tmp_path, patch=14)).eval()
    assert method(IMAGES).class_maps[2].shape == (2, 3, 5, 5)
    assert method.scores(IMAGES).maps.shape == (2, 3, 8, 8)


def test_only_adapters_heads_and_prototypes_are_trained_and_kept(encoder: Encoder) -> None:
    method = build(encoder)
    kept = {name.split(".")[0] for name, _ in method.named_parameters()}
    assert kept == {"backbone", "prototypes", "heads", "offsets"}
    assert all(name.startswith("backbone.adapters.") for name in method.state_dict() if name.startswith("backbone."))
    assert all(p.requires_grad for p in method.parameters())
    frozen = {id(p) for network in (encoder, method.teacher.network) for p in network.parameters()}
    assert not frozen & {id(p) for p in method.parameters()}
    before = copy.deepcopy(encoder.state_dict())
    teacher = copy.deepcopy(method.teacher.network.state_dict())
    optimiser = torch.optim.AdamW(method.parameters(), 0.01)
    method.train().loss(IMAGES, LABELS).total.backward()
    optimiser.step()
    assert all(torch.equal(before[n], t) for n, t in encoder.state_dict().items())
    assert all(torch.equal(teacher[n], t) for n, t in method.teacher.network.state_dict().items())


def test_number_of_trained_parameters_is_the_papers() -> None:
    """6.3 million with CONCH: width 768, four adapters and projections, 10 prototypes of 512 for each of 4 classes."""
    adapters = sum(p.numel() for p in ResidualAdapter(768).parameters())
    projection = (512 * 256 + 256) + (256 * 768 + 768) + 1
    assert 4 * (adapters + projection) + 40 * 512 == pytest.approx(6.3e6, rel=0.04)


def test_loss_is_the_weighted_sum(encoder: Encoder) -> None:
    method = build(encoder).eval()
    loss = method.loss(IMAGES, LABELS)
    names = ["classification_2", "classification_3", "classification_4", "structure", "foreground", "background"]
    assert list(loss.terms) == names
    weights = (0.1, 1.0, 1.0, 1.5, 0.2, 0.2)
    torch.testing.assert_close(loss.total, sum(w * t for w, t in zip(weights, loss.terms.values(), strict=True)))
    with torch.no_grad():
        student, teacher = method.backbone(IMAGES)[2], method.teacher.network(IMAGES)[2]
    torch.testing.assert_close(loss.terms["structure"], structural_loss(student, teacher))


def test_terms_without_weight_are_left_out(encoder: Encoder) -> None:
    terms = build(encoder, structure=0, beta=0).loss(IMAGES, LABELS).terms
    assert list(terms) == ["classification_2", "classification_3", "classification_4"]


@pytest.mark.parametrize(
    ("term", "trained"),
    [
        ("classification_4", {"adapters.3", "heads.3", "prototypes", "offsets"}),
        ("structure", {"adapters.2"}),
        ("foreground", {"adapters.1", "adapters.2", "adapters.3", "heads.1", "heads.2", "heads.3", "prototypes"}),
        ("background", {"adapters.1", "adapters.2", "adapters.3", "heads.1", "heads.2", "heads.3", "prototypes"}),
    ],
)
def test_what_each_term_trains(encoder: Encoder, term: str, trained: set[str]) -> None:
    method = build(encoder)
    method.loss(IMAGES, LABELS).terms[term].backward()
    reached = {
        ".".join(name.removeprefix("backbone.").split(".")[:2])
        for name, p in method.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert reached == trained


def test_as_released_the_distilled_level_makes_no_map(encoder: Encoder) -> None:
    """The map is that of level 4, the structure is learned by the adapter of level 3, and they share no weights."""

    def reached(loss: torch.Tensor) -> set[str]:
        method.zero_grad()
        loss.backward()
        return {name for name, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}

    method = build(encoder, preset="released")
    assert method.offsets is None
    structure = reached(method.loss(IMAGES, LABELS).terms["structure"])
    assert structure
    assert not structure & reached(method.scores(IMAGES).maps.square().sum())
    method = build(encoder)
    for adapter in method.backbone.adapters:  # at the very first step only their last layer has a gradient
        torch.nn.init.normal_(adapter.net[-1].weight, std=0.1)
    assert reached(method.loss(IMAGES, LABELS).terms["structure"]) & reached(method.scores(IMAGES).maps.square().sum())


def test_the_contrast_moves_maps_and_not_its_anchors(encoder: Encoder) -> None:
    method = build(encoder, preset="released")
    seen: list[torch.Tensor] = []
    terms = type(method.matching).terms

    def spy(self: Any, *arguments: Any) -> dict[str, torch.Tensor]:
        seen.append(arguments[3].prototypes)
        return terms(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(method.matching), "terms", spy)
        method.loss(IMAGES, LABELS)
    (anchors,) = seen
    assert not anchors.requires_grad
    means = torch.stack([part.mean(0) for part in method.prototypes.detach().split(K)])
    torch.testing.assert_close(anchors, F.normalize(means, dim=1))


def test_the_backgrounds_of_a_batch_are_negatives_of_the_next(encoder: Encoder) -> None:
    method = build(encoder).eval()
    first = method.loss(IMAGES, LABELS).terms
    assert int(method.memory.written) == 3  # pairs of an image and a class it shows
    second = method.loss(IMAGES, LABELS).terms
    assert second["foreground"] > first["foreground"]  # three rivals more
    torch.testing.assert_close(second["background"], first["background"])
    assert int(method.memory.written) == 6


def test_a_batch_that_shows_nothing_contrasts_nothing(encoder: Encoder) -> None:
    method = build(encoder)
    terms = method.loss(IMAGES, torch.zeros(2, 3)).terms
    assert terms["foreground"] == terms["background"] == 0
    assert int(method.memory.written) == 0


def test_student_and_teacher_see_images_each_in_its_own_way(encoder: Encoder) -> None:
    method = build(encoder).eval()
    teacher: list[torch.Tensor] = []
    student: list[torch.Tensor] = []
    method.teacher.network.stages[0].register_forward_pre_hook(lambda _, inputs: teacher.append(inputs[0]))
    handle = encoder.network.model.register_forward_pre_hook(
        lambda _, __, options: student.append(options["pixel_values"]), with_kwargs=True
    )
    method.loss(IMAGES, LABELS)
    handle.remove()
    torch.testing.assert_close(student[0], (IMAGES - 0.5) / 0.25)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(teacher[0], (IMAGES - mean) / std)  # its published weights are of ImageNet
    assert catalogue()["mit-b1"].published[0] == (0.485, 0.456, 0.406)


def test_a_teacher_of_our_own_sees_images_as_it_was_trained_to(encoder: Encoder) -> None:
    torch.manual_seed(0)
    teacher = Backbone(BackboneSpec("teacher", channels=(16, 32, 40, 64), depths=(1, 1, 1, 1)))
    load_weights(teacher, {f"backbone.{name}": tensor for name, tensor in teacher.state_dict().items()})
    mean = teacher.mean.clone()
    ConStruct.from_inputs(
        MethodInputs(teacher, 3, Prototypes.random(K, WIDTH), encoder), **ConstructSettings().options()
    )
    assert torch.equal(teacher.mean, mean)
    load_weights(teacher, dict(teacher.stages.named_parameters(prefix="stages")))  # the layout of the library
    ConStruct.from_inputs(
        MethodInputs(teacher, 3, Prototypes.random(K, WIDTH), encoder), **ConstructSettings().options()
    )
    assert not torch.equal(teacher.mean, mean)


def test_it_learns_where_two_textures_are(encoder: Encoder) -> None:
    """It is trained with image-level labels; half of each test image shows the other texture."""
    generator = torch.Generator().manual_seed(1)

    def texture(kind: int, width: int) -> torch.Tensor:
        noise = torch.rand(3, 64, width, generator=generator) * 0.2
        stripes = (torch.arange(width) // 4 % 2).float() if kind else (torch.arange(64) // 8 % 2).float()[:, None]
        return noise + 0.4 + 0.4 * stripes.expand(3, 64, width)

    images = torch.stack([texture(i % 2, 64) for i in range(16)])
    labels = F.one_hot(torch.arange(16) % 2, 2).float()
    torch.manual_seed(0)
    with torch.no_grad():
        features = encoder(images)
    prototypes = Prototypes(features[:4][[0, 2, 1, 3]], torch.tensor([0, 0, 1, 1]))
    teacher = Backbone(BackboneSpec("teacher", channels=(16, 32, 40, 64), depths=(1, 1, 1, 1)))
    options = ConstructSettings(memory=64, structure=0.1).options()
    method = ConStruct.from_inputs(MethodInputs(teacher, 2, prototypes, encoder), **options)
    optimiser = torch.optim.AdamW(method.parameters(), 2e-3)
    method.train()
    for _ in range(30):
        loss = method.loss(images, labels)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
    halves = torch.stack([torch.cat([texture(0, 32), texture(1, 32)], 2) for _ in range(4)])
    with torch.no_grad():
        found = method.eval().scores(halves).maps.argmax(1)
    truth = torch.tensor([0, 1]).repeat_interleave(4).expand(4, 8, 8)
    assert (found == truth).float().mean() > 0.8


def test_what_cannot_be_put_together(encoder: Encoder) -> None:
    teacher = Backbone(BackboneSpec("teacher", channels=(16, 32, 40, 64), depths=(1, 1, 1, 1)))
    options = ConstructSettings().options()
    with pytest.raises(ModelError, match="needs prototypes and the encoder"):
        ConStruct.from_inputs(MethodInputs(teacher, 3, Prototypes.random(K, WIDTH)), **options)
    with pytest.raises(ModelError, match="two or more"):
        ConStruct.from_inputs(MethodInputs(teacher, 4, Prototypes.random(K, WIDTH), encoder), **options)
