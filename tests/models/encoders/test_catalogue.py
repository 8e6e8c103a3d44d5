"""Facts of the catalogue, compared with the libraries that build the networks, at full size without weights."""

from __future__ import annotations

import importlib

import pytest
import torch
from timm.data import constants
from transformers import AutoConfig, AutoModel, BertConfig, BertModel, SwinConfig, SwinModel

from napari_pbip.models.encoders import EncoderSpec, catalogue
from napari_pbip.models.encoders.conch import AttentionPooler, ImageTower, TextTower
from napari_pbip.models.encoders.timm_vit import vision_transformer

ROWS = {name: row for name, row in catalogue().items() if row.megabytes is not None}


def full_size(spec: EncoderSpec) -> tuple[int, int]:
    """Return the parameters of the released file and the length of the features, from the libraries."""
    family = spec.factory.partition(":")[0].rpartition(".")[2]
    if family == "timm_vit":
        model = vision_transformer(**spec.network, img_size=spec.input_size)
        return _count(model), model.num_features * (2 if "mean" in spec.pooling else 1)
    if family == "conch":
        trunk = vision_transformer(**spec.network["image"], img_size=spec.input_size)
        text = TextTower(**spec.network["text"], dimension=512)
        return _count(ImageTower(trunk, 512), AttentionPooler(256, 768, 768), text), 512
    if family == "medclip":
        image = SwinModel(SwinConfig(**spec.network["image"]), add_pooling_layer=False)
        text = BertModel(BertConfig(**spec.network["text"]))
        heads = (torch.nn.Linear(768, 512, bias=False) for _ in range(2))
        return _count(image, text, *heads), 512
    model = AutoModel.from_config(AutoConfig.for_model(**spec.network))
    if spec.text:
        return _count(model), model.visual_projection.out_features
    return _count(model), model.config.hidden_size * (2 if "mean" in spec.pooling else 1)


def _count(*networks: torch.nn.Module) -> int:
    return sum(p.numel() for network in networks for p in network.parameters())


@pytest.mark.parametrize("name", ROWS)
def test_dimension_and_size_are_those_of_the_network(name: str) -> None:
    spec = ROWS[name]
    with torch.device("meta"):
        parameters, dimension = full_size(spec)
    assert dimension == spec.dimension
    assert spec.megabytes == pytest.approx(4 * parameters / 1e6, rel=0.02)


@pytest.mark.parametrize("name", catalogue())
def test_every_row_is_complete(name: str) -> None:
    spec = catalogue()[name]
    module, _, function = spec.factory.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert all((spec.title, spec.licence, spec.paper, spec.pooling))
    assert all(d > 0 for d in spec.std)
    assert bool(spec.hub or spec.page) == (spec.megabytes is not None)  # what can be got has a size
    assert spec.needs_weights or spec.megabytes is None
    assert spec.input_size is None or spec.mpp is None or 0.2 <= spec.mpp <= 1


def test_statistics_are_those_of_the_library() -> None:
    imagenet = (constants.IMAGENET_DEFAULT_MEAN, constants.IMAGENET_DEFAULT_STD)
    openai = (constants.OPENAI_CLIP_MEAN, constants.OPENAI_CLIP_STD)
    for name in ("dinov2-base", "dinov3-small", "uni", "uni2-h", "virchow2", "phikon-v2", "prov-gigapath"):
        assert (ROWS[name].mean, ROWS[name].std) == imagenet
    for name in ("clip", "clip-b32", "plip", "conch"):
        assert (ROWS[name].mean, ROWS[name].std) == openai
