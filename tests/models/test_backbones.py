"""Backbones: shapes as declared, weights of every layout, one sentence for what cannot be loaded."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from transformers import SegformerConfig, SegformerForImageClassification

from napari_pbip.errors import ConfigError, ModelError, WeightsUnavailable
from napari_pbip.models import backbones
from napari_pbip.models.backbones import Backbone, BackboneSpec, load_weights

SMALL = BackboneSpec("small", channels=(16, 32, 40, 64), depths=(1, 1, 1, 1))


@pytest.mark.parametrize("name", backbones.catalogue())
@pytest.mark.parametrize("size", [(224, 224), (100, 72)])
def test_shapes_are_as_declared(name, size):
    with torch.device("meta"):
        backbone = backbones.load(name)
        maps = backbone(torch.rand(2, 3, *size))
    assert len(maps) == len(backbone.channels) == len(backbone.strides) == 4
    for m, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert m.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))


def test_number_of_parameters():
    """3.3 million in MiT-B0, 13.1 in B1: the encoders of SegFormer (Xie et al. 2021, Table 6: 3.4 and 13.1)."""
    with torch.device("meta"):
        counts = [sum(p.numel() for p in backbones.load(n).parameters()) / 1e6 for n in ("mit-b0", "mit-b1")]
    assert counts == pytest.approx([3.32, 13.15], abs=0.02)


def test_normalises_for_itself(backbone):
    images = backbone.mean.expand(1, 3, 8, 8)
    assert torch.equal(backbone.normalise(images), torch.zeros(1, 3, 8, 8))
    torch.testing.assert_close(backbone.normalise(images + backbone.std), torch.ones(1, 3, 8, 8))


def test_attention_is_scaled_dot_product(backbone):
    assert backbone.stages[0].blocks[0].attention.config._attn_implementation == "sdpa"


def test_random_weights_follow_the_random_state():
    def weights(seed):
        torch.manual_seed(seed)
        return Backbone(SMALL).state_dict()["stages.3.blocks.0.mlp.fc1.weight"]

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_evaluation_is_deterministic_and_training_has_stochastic_depth(backbone):
    images = torch.rand(8, 3, 64, 64)
    with torch.no_grad():
        backbone.eval()
        assert torch.equal(backbone(images)[3], backbone(images)[3])
        backbone.train()
        assert not torch.equal(backbone(images)[3], backbone(images)[3])


@pytest.fixture
def hub_folder(tmp_path):
    """A checkpoint as the hub has it: another stride, a classifier on top, names of its own."""
    torch.manual_seed(3)
    config = SegformerConfig(hidden_sizes=SMALL.channels, depths=SMALL.depths, num_labels=7)
    network = SegformerForImageClassification(config)
    network.save_pretrained(tmp_path / "hub")
    return tmp_path / "hub", network


def test_hub_layout(hub_folder, backbone):
    folder, network = hub_folder
    path = folder / "model.safetensors"
    weights = backbones._read(path)
    assert any("attention.self.query" in name for name in weights)  # not the names of the library's modules
    load_weights(backbone, weights)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        own = backbone.eval()(images)
        theirs = network.eval().segformer(backbone.normalise(images), output_hidden_states=True).hidden_states
    for a, b in zip(own[:3], theirs[:3], strict=True):  # the last stage has another stride
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def released(stages):
    """Weights in the authors' layout: keys and values in one matrix, stages from 1."""
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


def test_own_layout_from_a_folder(tmp_path):
    torch.manual_seed(6)
    source = backbones.load("mit-b0")
    save_file({f"backbone.{n}": t for n, t in source.state_dict().items()}, tmp_path / "model.safetensors")
    loaded = backbones.load("mit-b0", tmp_path)
    assert torch.equal(loaded.stages[2].blocks[1].mlp.fc2.weight, source.stages[2].blocks[1].mlp.fc2.weight)


def test_no_such_backbone():
    with pytest.raises(ConfigError, match="mit-b0, mit-b1"):
        backbones.load("resnet")


@pytest.mark.parametrize("make_folder", [True, False])
def test_no_weights(tmp_path, make_folder):
    if make_folder:
        (tmp_path / "weights").mkdir()
    with pytest.raises(WeightsUnavailable, match=r"backbone\.weights"):
        backbones.load("mit-b0", tmp_path / "weights")


def test_weights_of_another_backbone(hub_folder):
    with pytest.raises(ModelError, match="does not hold the weights of mit-b0"):
        backbones.load("mit-b0", hub_folder[0])


def test_damaged_weights(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="damaged"):
        backbones.load("mit-b0", tmp_path)


def test_a_pickle_is_never_read(tmp_path):
    class Trap:
        def __reduce__(self):
            return ((tmp_path / "executed").touch, ())

    torch.save({"state_dict": Trap()}, tmp_path / "mit_b0.pth")
    with pytest.raises(WeightsUnavailable, match="convert it once"):
        backbones.load("mit-b0", tmp_path / "mit_b0.pth")
    with pytest.raises(WeightsUnavailable, match="no weights"):
        backbones.load("mit-b0", tmp_path)
    assert not (tmp_path / "executed").exists()


def test_no_file_is_picked_out_of_several(tmp_path):
    for name in ("a", "b"):
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(WeightsUnavailable, match="holds 2"):
        backbones.load("mit-b0", tmp_path)
