"""The residual networks from timm, with a last stage that is dilated instead of strided.

He et al. 2016, "Deep Residual Learning for Image Recognition".
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from napari_pbip.models.backbones.catalogue import BackboneSpec


def basic(spec: BackboneSpec) -> nn.ModuleList:
    """Return the four stages of a ResNet with blocks of two 3x3 convolutions (18, 34)."""
    return _stages(spec, BasicBlock)


def bottleneck(spec: BackboneSpec) -> nn.ModuleList:
    """Return the four stages of a ResNet with bottleneck blocks (50 and more)."""
    return _stages(spec, Bottleneck)


def _stages(spec: BackboneSpec, block: Any) -> nn.ModuleList:
    widths = tuple(channels // block.expansion for channels in spec.channels)
    network: Any = ResNet(block, layers=spec.depths, channels=widths, output_stride=spec.strides[-1], num_classes=0)
    parts = ("conv1", "bn1", "act1", "maxpool", "layer1")
    first = nn.Sequential(OrderedDict((name, getattr(network, name)) for name in parts))
    return nn.ModuleList([first, network.layer2, network.layer3, network.layer4])


_STEM = re.compile(r"(?:conv1|bn1|layer1)\..+")
_LATER = re.compile(r"layer([234])\.(.+)")


def to_stages(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename weights of timm or torchvision, which have the same names; tensors of no stage are left out."""
    renamed = {}
    for name, tensor in weights.items():
        if _STEM.fullmatch(name):
            renamed[f"0.{name}"] = tensor
        elif match := _LATER.fullmatch(name):
            renamed[f"{int(match[1]) - 1}.{match[2]}"] = tensor
    return renamed
