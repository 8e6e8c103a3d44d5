"""Mix Transformers: the published layouts of their weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SegformerConfig, SegformerForImageClassification

from napari_pbip.models import backbones
from napari_pbip.models.backbones import BackboneSpec, load_weights

SMALL = BackboneSpec("small", channels=(16, 32, 40, 64), depths=(1, 1, 1, 1))


def test_number_of_parameters():
    """3.3 million in MiT-B0, 13.1 in B1: the encoders of SegFormer (Xie et al. 2021, Table 6: 3.4 and 13.1)."""
    with torch.device("meta"):
        counts = [sum(p.numel() for p in backbones.load(n).parameters()) / 1e6 for n in ("mit-b0", "mit-b1")]
    assert counts == pytest.approx([3.32, 13.15], abs=0.02)


def test_attention_is_scaled_dot_product(backbone):
    assert backbone.stages[0].blocks[0].attention.config._attn_implementation == "sdpa"


@pytest.fixture
def hub_folder(tmp_path):
    """Return a checkpoint in the layout of the hub, with another stride, a classifier and other names."""
    torch.manual_seed(3)
    config = SegformerConfig(hidden_sizes=SMALL.channels, depths=SMALL.depths, num_labels=7)
    network = SegformerForImageClassification(config)
    network.save_pretrained(tmp_path / "hub")
    return tmp_path / "hub", network


def test_hub_layout(hub_folder, backbone):
    folder, network = hub_folder
    path = folder / "model.safetensors"
    weights = load_file(path)
    assert any("attention.self.query" in name for name in weights)  # not the names of the library's modules
    load_weights(backbone, weights)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        own = backbone.eval()(images)
        theirs = network.eval().segformer(backbone.normalise(images), output_hidden_states=True).hidden_states
    for a, b in zip(own[:3], theirs[:3], strict=True):  # the last stage has another stride
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def released(stages):
    """Return weights in the authors' layout, with keys and values in one matrix, and stages from 1."""
    inner = {
        "attention.q_proj": "attn.q",
        "attention.o_proj": "attn.proj",
        "attention.sequence_reduction.sequence_reduction": "attn.sr",
        "attention.sequence_reduction.layer_norm": "attn.norm",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "mlp": "mlp",
    }
    weights = {}
    for name, tensor in stages.items():
        stage, part, rest = name.split(".", 2)
        number = int(stage) + 1
        if part == "patch_embeddings":
            weights[f"patch_embed{number}.{rest.replace('layer_norm', 'norm')}"] = tensor
        elif part == "layer_norm":
            weights[f"norm{number}.{rest}"] = tensor
        elif "k_proj" in rest:
            both = torch.cat([tensor, stages[name.replace("k_proj", "v_proj")]])
            weights[f"block{number}.{rest.replace('attention.k_proj', 'attn.kv')}"] = both
        elif "v_proj" not in rest:
            block, leaf = rest.split(".", 1)
            old = next(o for o in inner if leaf.startswith(o))
            weights[f"block{number}.{block}.{inner[old]}{leaf.removeprefix(old)}"] = tensor
    return weights


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_released_layout_from_a_file(tmp_path, prefix):
    torch.manual_seed(5)
    source = backbones.load("mit-b0")
    weights = {prefix + n: t.contiguous() for n, t in released(source.stages.state_dict()).items()}
    weights["head.weight"] = torch.zeros(10, 256)
    path = tmp_path / "mit_b0.safetensors"
    save_file(weights, path)
    loaded = backbones.load("mit-b0", path)
    for name, tensor in source.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
