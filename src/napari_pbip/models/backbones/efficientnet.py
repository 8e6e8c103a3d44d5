"""EfficientNet-Lite through timm, with the last stage dilated instead of strided.

Tan & Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"; the Lite variants leave out
squeeze-and-excitation and use ReLU6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

from napari_pbip.models.backbones.catalogue import BackboneSpec

_STAGE_OF_GROUP = (0, 0, 1, 2, 2, 3, 3)
"""Stage of each of the network's seven groups of blocks."""


def lite(spec: BackboneSpec) -> nn.ModuleList:
    """Return the four stages: the stem with the groups of blocks 0 and 1; 2; 3 and 4; 5 and 6."""
    network: Any = timm.create_model(f"tf_{spec.name.replace('-', '_')}", output_stride=spec.strides[-1])
    stages = nn.ModuleList(nn.Sequential() for _ in spec.strides)
    for name in ("conv_stem", "bn1"):
        stages[0].add_module(name, getattr(network, name))
    for group, stage in enumerate(_STAGE_OF_GROUP):
        stages[stage].add_module(f"blocks{group}", network.blocks[group])
    return stages


_BLOCK = re.compile(r"blocks\.(\d)\.(.+)")
_STEM = re.compile(r"(?:conv_stem|bn1)\..+")


def to_stages(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename weights of timm or of the package EfficientNet-PyTorch; tensors of no stage are left out."""
    renamed = {}
    for name, tensor in _of_timm(weights).items():
        if _STEM.fullmatch(name):
            renamed[f"0.{name}"] = tensor
        elif match := _BLOCK.fullmatch(name):
            renamed[f"{_STAGE_OF_GROUP[int(match[1])]}.blocks{match[1]}.{match[2]}"] = tensor
    return renamed


_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
"""Number of blocks of each group of Lite0."""
_PLACES = [f"{group}.{block}" for group, depth in enumerate(_DEPTHS) for block in range(depth)]
_EFFICIENTNET_PYTORCH = re.compile(r"_blocks\.(\d+)\._(\w+?)\.(\w+)")
_LAYERS = {
    "expand_conv": "conv_pw",
    "bn0": "bn1",
    "depthwise_conv": "conv_dw",
    "bn1": "bn2",
    "project_conv": "conv_pwl",
    "bn2": "bn3",
}
_FIRST_LAYERS = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
"""Layers of the first block, which does not expand its channels."""


def _of_timm(weights: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Rename weights to timm's names, in which blocks are numbered by group."""
    if "_conv_stem.weight" not in weights:
        return weights
    renamed = {}
    for name, tensor in weights.items():
        if match := _EFFICIENTNET_PYTORCH.fullmatch(name):
            block, layer = int(match[1]), match[2]
            layers = _LAYERS if block else _FIRST_LAYERS
            renamed[f"blocks.{_PLACES[block]}.{layers[layer]}.{match[3]}"] = tensor
        else:
            renamed[name.replace("_conv_stem.", "conv_stem.").replace("_bn0.", "bn1.")] = tensor
    return renamed
