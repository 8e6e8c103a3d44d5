"""The contract of all encoders in the catalogue, and the particular properties of each."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from napari_pbip import samples
from napari_pbip.errors import ConfigError, WeightsUnavailable
from napari_pbip.models import backbones, encoders
from napari_pbip.models.encoders import EncoderSpec
from napari_pbip.models.encoders.base import Encoder, StageNetwork, VisionTransformer
from napari_pbip.models.encoders.catalogue import from_spec
from napari_pbip.models.encoders.stage_statistics import TissueStatistics
from tests.models.encoders.small_encoders import MEAN, SMALL, STD, small, write_folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return write_folder(tmp_path_factory.mktemp("vit"), ViTForImageClassification(ViTConfig(**SMALL)))


@pytest.fixture(scope="module", params=list(encoders.catalogue()))
def row(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[EncoderSpec, Path | None]:
    return small(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def encoder(row: tuple[EncoderSpec, Path | None]) -> Encoder:
    return from_spec(*row)


@cache
def _tissue() -> torch.Tensor:
    arrays = [np.asarray(Image.open(p).convert("RGB")) for p in sorted(samples.tiles().glob("*/*.png"))]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


def real_images(count: int = 3, side: int = 224) -> torch.Tensor:
    """Return real tissue, RGB in [0, 1], shape (count, 3, side, side)."""
    return _tissue()[:: 40 // count][:count, :, :side, :side].clone()


def test_shape_and_facts(encoder: Encoder) -> None:
    features = encoder(real_images())
    assert features.shape == (3, encoder.spec.dimension)
    assert features.dtype == torch.float32
    assert torch.isfinite(features).all()
    assert features.std(0).max() > 0
    assert len(encoder.weights_hash) == 16


def test_frozen_in_every_mode(encoder: Encoder) -> None:
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not encoder.train().training
    assert not any(m.training for m in encoder.modules())


def test_gradients_reach_a_mask_over_the_image(encoder: Encoder) -> None:
    """As in Eq. 5 and 9 of PBIP: the image times a score map, zero outside it."""
    images = real_images()
    scores = torch.rand(3, 1, 224, 224, generator=torch.Generator().manual_seed(0))
    scores[..., :100] = 0
    scores.requires_grad_()
    encoder(images * scores).square().sum().backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    assert (scores.grad[..., 110:] != 0).float().mean() > 0.5


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_flat_images_give_finite_features_and_gradients(encoder: Encoder, value: float) -> None:
    images = torch.full((2, 3, 64, 64), value, requires_grad=True)
    features = encoder(images)
    features.sum().backward()
    assert images.grad is not None
    assert torch.isfinite(features).all()
    assert torch.isfinite(images.grad).all()


def test_the_same_twice_and_whatever_else_is_in_the_batch(encoder: Encoder) -> None:
    images = real_images()
    whole = encoder(images)
    assert torch.equal(whole, encoder(images))
    torch.testing.assert_close(encoder(images[1:2]), whole[1:2], rtol=1e-3, atol=1e-3)


def test_different_image_sizes(encoder: Encoder) -> None:
    for height, width in ((64, 64), (96, 128), (225, 223)):
        features = encoder(torch.rand(2, 3, height, width))
        assert features.shape == (2, encoder.spec.dimension)
        assert torch.isfinite(features).all()


def test_bfloat16_autocast_tells_the_same(encoder: Encoder) -> None:
    images = real_images()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = encoder(images)
    assert half.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(half, encoder(images)).min() > 0.98


def test_loading_again_gives_the_same_encoder_and_leaves_the_random_state(
    encoder: Encoder, row: tuple[EncoderSpec, Path | None]
) -> None:
    before = torch.random.get_rng_state()
    again = from_spec(*row)
    assert torch.equal(before, torch.random.get_rng_state())
    assert again.weights_hash == encoder.weights_hash
    images = real_images()
    assert torch.equal(again(images), encoder(images))


def test_normalises_for_itself(encoder: Encoder) -> None:
    seen: list[torch.Tensor] = []
    handle = encoder.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = real_images()
    encoder(images)
    handle.remove()
    side = encoder.spec.input_size
    if side is not None:
        images = torch.nn.functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (encoder.spec.mean, encoder.spec.std))
    torch.testing.assert_close(seen[0], (images - mean) / std)


def test_stages_of_every_pyramid(encoder: Encoder) -> None:
    assert isinstance(encoder.network, StageNetwork) == encoder.spec.stages
    if not encoder.spec.stages:
        return
    images = encoder.normalise(real_images()).requires_grad_()
    maps = encoder.network.stage_maps(images, 3)
    assert [m.shape[1] for m in maps] == list(encoder.network.channels[:3])
    assert maps[2].shape[2:] == tuple(side // 16 for side in images.shape[2:])
    maps[2].square().sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).any(1).float().mean() > 0.9


def test_blocks_of_every_vision_transformer(encoder: Encoder) -> None:
    assert isinstance(encoder.network, VisionTransformer) == encoder.spec.blocks
    if not encoder.spec.blocks:
        return
    side = encoder.network.patch
    images = torch.nn.functional.interpolate(real_images(), (2 * side, 3 * side - 1)).requires_grad_()
    first, last = encoder.block_maps(images, (1, encoder.network.depth))
    assert first.shape == last.shape == (3, encoder.network.width, 2, 3)
    last.square().sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).any(1).float().mean() > 0.9


def test_dense_features_of_every_row_that_has_them(encoder: Encoder) -> None:
    if not encoder.spec.dense:
        assert encoder.spec.dense_stride is None
        with pytest.raises(ConfigError, match="no dense features"):
            encoder.dense(real_images(1))
        return
    stride, images = encoder.dense_stride, real_images()
    assert encoder.spec.dense_stride == (None if encoder.spec.name == "transformers" else stride)
    for height, width in ((64, 96), (80, 61)):
        some = images[:, :, :height, :width].clone().requires_grad_()
        dense = encoder.dense(some)
        assert dense.shape[0] == 3
        assert dense.shape[2:] == (-(-height // stride), -(-width // stride))
        assert dense.dtype == torch.float32
        assert dense.isfinite().all()
        assert not dense.requires_grad
        torch.testing.assert_close(encoder.dense(some[1:2]), dense[1:2], rtol=1e-3, atol=1e-3)
    changed = images[:, :, :64, :96].clone()
    changed[:, :, 32:, 48:] = images[:, :, 128:160, 128:176]
    difference = (encoder.dense(changed) - encoder.dense(images[:, :, :64, :96])).norm(dim=1)
    rows, columns = difference.shape[1:]
    assert difference[:, rows // 2 :, columns // 2 :].mean() > difference[:, : rows // 2, : columns // 2].mean()


def test_dense_features_of_a_pyramid_weigh_its_stages_in_two_sizes_equally() -> None:
    encoder = encoders.load("efficientnet-lite0")
    assert isinstance(encoder.network, StageNetwork)
    images = real_images()
    channels = encoder.network.channels[:3]
    maps = encoder.dense(images).split([*channels, *channels], dim=1)
    torch.testing.assert_close(maps[1].norm(dim=1), torch.ones(3, 28, 28))
    for one in maps:
        assert one.norm(dim=1).max() <= 1 + 1e-5  # the mean of unit vectors
    smaller = torch.nn.functional.interpolate(images, scale_factor=0.5, mode="area")
    half = encoder.dense(smaller).split([*channels, *channels], dim=1)[1]
    enlarged = torch.nn.functional.interpolate(half, (28, 28), mode="bilinear")
    torch.testing.assert_close(maps[4], enlarged, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["efficientnet-lite0", "mit-b0", "pvt-v2-b0", "resnet18"])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (95, 64)])
def test_dense_features_of_small_and_odd_pictures(name: str, height: int, width: int) -> None:
    pyramid = TissueStatistics(backbones.load(name)).eval()
    encoder = Encoder(encoders.lookup("efficientnet-lite0"), pyramid)
    features = encoder.dense(real_images()[:1, :, 100 : 100 + height, 60 : 60 + width])
    assert features.shape == (1, encoder.dense_dimension, -(-height // 8), -(-width // 8))
    assert features.isfinite().all()


def test_features_are_statistics_of_cells_where_the_encoder_says_so() -> None:
    encoder, other = encoders.load("efficientnet-lite0"), encoders.load("texture")
    images = real_images().requires_grad_()
    cells = encoder.cells(images)
    assert not cells.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(encoder.pool(cells, images), encoder(images))
        brightness = images.mean(1, keepdim=True)
        torch.testing.assert_close(encoder.pool(cells, brightness), encoder(images), rtol=1e-4, atol=1e-4)
    assert encoder.pools_cells
    assert not other.pools_cells
    with pytest.raises(ConfigError, match="choose one whose are"):
        other.cells(images)


def test_dense_features_of_a_transformer_are_those_that_its_vector_is_pooled_from(encoder: Encoder) -> None:
    side = encoder.spec.input_size
    if encoder.spec.pooling != "class token and mean of patches" or side is None:
        return
    images = real_images(side=side)
    mean_of_patches = encoder(images).chunk(2, dim=1)[1]
    torch.testing.assert_close(encoder.dense(images).mean((2, 3)), mean_of_patches, rtol=1e-4, atol=1e-4)


# The encoder without weights


@pytest.fixture(scope="module")
def texture() -> Encoder:
    return encoders.load("texture")


def test_texture_is_centred_on_the_tissue_its_constants_are_of(texture: Encoder) -> None:
    """Fails when the statistics change and the constants were not made again."""
    features = texture(real_images(40))
    assert features.mean(0).norm() < 0.5 * features.norm(dim=1).mean()
    assert 0.3 < features.std(0).mean() < 5


def test_texture_does_not_see_brightness(texture: Encoder) -> None:
    images = real_images().clamp(min=0.1)
    torch.testing.assert_close(texture(images * 0.3), texture(images), rtol=1e-3, atol=5e-3)


def test_texture_looks_past_a_mask(texture: Encoder) -> None:
    """Half a tile on black is more similar to the whole tile than to any other tissue."""
    images = real_images(40)[::4]
    masked = images.clone()
    masked[..., 112:] = 0
    similarity = torch.nn.functional.cosine_similarity(texture(masked)[:, None], texture(images)[None], dim=2)
    assert (similarity.argmax(1) == torch.arange(len(images))).float().mean() >= 0.8


def test_texture_is_the_same_in_every_orientation(texture: Encoder) -> None:
    images = real_images()
    torch.testing.assert_close(texture(images.rot90(1, (2, 3))), texture(images), rtol=0.02, atol=0.05)


def test_texture_tells_a_mask_which_pixels_belong(texture: Encoder) -> None:
    """In a picture of two tissues, following the gradient towards one uncovers that tissue."""
    folder = samples.tiles()
    tissue = {
        name: [np.asarray(Image.open(p).convert("RGB")) for p in sorted((folder / name).iterdir())]
        for name in ("MUS", "LYM")
    }
    images = {n: torch.from_numpy(np.stack(a)).permute(0, 3, 1, 2).float() / 255 for n, a in tissue.items()}
    mixed = torch.cat([images["MUS"][:1, ..., :112], images["LYM"][:1, ..., 112:]], 3)
    scores = torch.full((1, 1, 224, 224), 0.5, requires_grad=True)
    prototypes = {name: texture(some[1:]).mean(0) for name, some in images.items()}
    feature = texture(mixed * scores)[0]
    wanted, other = (torch.nn.functional.cosine_similarity(feature, prototypes[n], dim=0) for n in ("LYM", "MUS"))
    (wanted - other).backward()
    assert scores.grad is not None
    assert scores.grad[..., 116:].mean() > scores.grad[..., :108].mean()


# Networks of a local folder


def test_vit_gives_the_class_token_of_the_library(vit: Path) -> None:
    encoder = encoders.load("transformers", vit)
    assert encoder.spec.dimension == 32
    assert encoder.spec.input_size == 32
    assert encoder.spec.mean == tuple(MEAN)
    assert encoder.spec.std == tuple(STD)
    images = real_images(side=32)
    pixels = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    reference = ViTForImageClassification.from_pretrained(vit).eval()
    expected = reference.vit(pixels).last_hidden_state[:, 0]
    torch.testing.assert_close(encoder(images), expected)


def test_dinov2_swin_and_clip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = real_images(side=32)
    pixels = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)

    dino = Dinov2Model(Dinov2Config(**SMALL)).eval()
    encoder = encoders.load("transformers", write_folder(tmp_path / "dino", dino))
    torch.testing.assert_close(encoder(images), dino(pixels).pooler_output)

    swin = SwinModel(SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2])).eval()
    encoder = encoders.load("transformers", write_folder(tmp_path / "swin", swin))
    torch.testing.assert_close(encoder(images), swin(pixels).pooler_output)

    vision = {**SMALL, "intermediate_size": 64}
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()
    crop = {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}, "size": {"shortest_edge": 64}}
    encoder = encoders.load("transformers", write_folder(tmp_path / "clip", clip, **crop))
    assert encoder.spec.dimension == 24
    assert encoder.spec.input_size == 32
    torch.testing.assert_close(encoder(images), clip.get_image_features(pixels).pooler_output)


# Maps of blocks


@pytest.mark.parametrize(
    ("kind", "options"),
    [(ViTModel, {}), (Dinov2Model, {}), (Dinov2WithRegistersModel, {"num_register_tokens": 3}), (CLIPModel, {})],
)
def test_block_maps_are_the_patch_tokens_of_each_block(kind: Any, options: dict[str, int], tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = {**SMALL, "num_hidden_layers": 3, "intermediate_size": 64, **options}
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = {"vision_config": small, "text_config": text, "projection_dim": 24} if kind is CLIPModel else small
    model = kind(kind.config_class(**config)).eval()
    encoder = encoders.load("transformers", write_folder(tmp_path / "v", model))
    images = real_images()[..., :40, :29].requires_grad_()  # five patches high, and stretched to four wide
    vision = encoder.network.model
    blocks = next(m for m in vision.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 3)
    seen: list[torch.Tensor] = []
    handles = [b.register_forward_hook(lambda _, __, o: seen.append(o)) for b in (blocks[0], blocks[2])]
    first, last = encoder.block_maps(images, (1, 3))
    for handle in handles:
        handle.remove()
    for maps, tokens in zip((first, last), seen, strict=True):
        assert maps.shape == (3, 32, 5, 4)
        assert maps.dtype == torch.float32
        torch.testing.assert_close(maps.flatten(2).mT, tokens[:, -20:])
        assert tokens.shape[1] == 21 + options.get("num_register_tokens", 0)
    last.square().sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).all(1).float().mean() > 0.9
    assert not any(p.grad is not None for p in encoder.parameters())


def test_block_maps_are_where_the_patches_are(vit: Path) -> None:
    """What changes in one patch of the image changes most there after the first block."""
    encoder = encoders.load("transformers", vit)
    images = real_images(1, 32)
    changed = images.clone()
    changed[..., 16:24, 8:16] = 1 - changed[..., 16:24, 8:16]
    (before,), (after,) = (encoder.block_maps(i, (1,)) for i in (images, changed))
    assert (after - before).norm(dim=1).flatten().argmax() == 2 * 4 + 1


def test_blocks_that_are_not_there(vit: Path) -> None:
    for blocks in ((0, 1), (1, 3), (2, 1), (1, 1), ()):
        with pytest.raises(ConfigError, match="blocks 1 to 2"):
            encoders.load("transformers", vit).block_maps(real_images(1), blocks)
    with pytest.raises(ConfigError, match="vision transformer"):
        encoders.load("texture").block_maps(real_images(1))


def test_other_weights_give_another_hash(vit: Path, tmp_path: Path) -> None:
    shutil.copytree(vit, tmp_path / "v")
    weights = load_file(tmp_path / "v" / "model.safetensors")
    weights["vit.layernorm.weight"] += 0.1
    save_file(weights, tmp_path / "v" / "model.safetensors", {"format": "pt"})
    hashes = {encoders.load("transformers", folder).weights_hash for folder in (vit, tmp_path / "v")}
    assert len(hashes) == 2


def _spoil(folder: Path, fault: str) -> None:
    if fault == "no such folder":
        shutil.rmtree(folder)
    elif fault == "no preprocessor":
        (folder / "preprocessor_config.json").unlink()
    elif fault == "no weights":
        (folder / "model.safetensors").unlink()
    elif fault == "cut short":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    elif fault == "tensors missing":
        weights = load_file(folder / "model.safetensors")
        del weights["vit.layernorm.weight"]
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    elif fault == "unknown kind":
        (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    elif fault == "no JSON":
        (folder / "config.json").write_text("{")
    elif fault == "no mean":
        (folder / "preprocessor_config.json").write_text("{}")


@pytest.mark.parametrize(
    "fault",
    [
        "no such folder",
        "no preprocessor",
        "no weights",
        "cut short",
        "tensors missing",
        "unknown kind",
        "no JSON",
        "no mean",
    ],
)
def test_weights_that_are_not_there(vit: Path, tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(vit, folder)
    _spoil(folder, fault)
    with pytest.raises(WeightsUnavailable) as caught:
        encoders.load("transformers", folder)
    message = str(caught.value)
    assert str(folder) in message
    assert message.endswith(".")
    assert "\n" not in message


def test_names_and_weights_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="texture"):
        encoders.load("textur")
    with pytest.raises(ConfigError, match="takes no weights"):
        encoders.load("texture", tmp_path)
    with pytest.raises(WeightsUnavailable, match=r"bank\.weights"):
        encoders.load("transformers")
