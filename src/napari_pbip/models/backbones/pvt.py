"""Pyramid Vision Transformers v2 from timm, with a last stage of stride 1 as in PBIP's Mix Transformers.

Wang et al. 2022, "PVT v2: Improved Baselines with Pyramid Vision Transformer".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from torch import nn

from napari_pbip.models.backbones.catalogue import BackboneSpec


def stages(spec: BackboneSpec) -> nn.ModuleList:
    """Return the four stages; in training they have stochastic depth that rises to 0.1, as published."""
    network: Any = PyramidVisionTransformerV2(
        depths=spec.depths, embed_dims=spec.channels, num_heads=spec.heads, drop_path_rate=0.1, num_classes=0
    )
    network.stages[0].downsample = network.patch_embed
    network.stages[3].downsample.proj.stride = (1, 1)  # the library has no option for this
    return nn.ModuleList(network.stages)


_TIMM = re.compile(r"stages\.(\d\..+)")
_AUTHORS = re.compile(r"(patch_embed|block|norm)([1-4])\.(.+)")
_PARTS = {"patch_embed": "downsample", "block": "blocks", "norm": "norm"}


def to_stages(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename weights of timm or of the authors; tensors of no stage are left out."""
    renamed = {}
    for name, tensor in weights.items():
        if name.startswith("patch_embed."):
            renamed[name.replace("patch_embed.", "0.downsample.", 1)] = tensor
        elif match := _TIMM.fullmatch(name):
            renamed[match[1]] = tensor
        elif match := _AUTHORS.fullmatch(name):
            place = f"{int(match[2]) - 1}.{_PARTS[match[1]]}.{match[3]}"
            renamed[place.replace("dwconv.dwconv.", "dwconv.")] = tensor
    return renamed
