"""The hybrid encoder of TransUNet: a ResNet-50 of three stages, and a ViT-B/16 on its last map, both from timm.

Chen et al. 2021, "TransUNet: Transformers Make Strong Encoders for Medical Image Segmentation"; the encoder is the
R50+ViT-B/16 of Dosovitskiy et al. 2021. TransUNet's decoder is not included, because its training needs masks; score
maps are computed from the stages, as for all other backbones.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.layers.std_conv import StdConv2dSame
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from napari_pbip.models.backbones.catalogue import BackboneSpec

_GRID = 14
"""Side of the grid of position embeddings, which is that of images of 224 pixels; for others they are interpolated."""


def stages(spec: BackboneSpec) -> nn.ModuleList:
    """Return the three stages of the ResNet, and the transformer as the fourth; its dropout is 0.1, as published."""
    network = ResNetV2(
        layers=list(spec.depths[:3]),
        channels=spec.channels[:3],
        num_classes=0,
        preact=False,
        stem_type="same",
        conv_layer=partial(StdConv2dSame, eps=1e-8),
    )
    first = nn.Sequential(OrderedDict(stem=network.stem, stage=network.stages[0]))
    transformer = VisionTransformer(
        img_size=_GRID,
        patch_size=1,
        in_chans=spec.channels[2],
        embed_dim=spec.channels[3],
        depth=spec.depths[3],
        num_heads=spec.heads[3],
        num_classes=0,
        global_pool="",
        class_token=False,
        dynamic_img_size=True,
        pos_drop_rate=0.1,
        proj_drop_rate=0.1,
    )
    return nn.ModuleList([first, network.stages[1], network.stages[2], MapTransformer(transformer)])


class MapTransformer(nn.Module):
    """A vision transformer that maps a feature map to another one, with every cell as a token.

    Parameters
    ----------
    transformer
        A transformer with patches of one cell and without class token.
    """

    def __init__(self, transformer: VisionTransformer) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps (B, C_4, h, w) of maps (B, C_3, h, w)."""
        tokens = self.transformer.forward_features(maps)
        return tokens.mT.reshape(len(maps), -1, *maps.shape[-2:])


_PLACES = (
    (re.compile(r"patch_embed\.backbone\.stem\.(.+)"), "0.stem."),
    (re.compile(r"patch_embed\.backbone\.stages\.0\.(.+)"), "0.stage."),
    (re.compile(r"patch_embed\.backbone\.stages\.([12]\..+)"), ""),
    (re.compile(r"((?:patch_embed\.proj|blocks|norm)\..+)"), "3.transformer."),
)


def to_stages(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename weights of timm's hybrid of any image size; class token, its position and the head are left out."""
    renamed = {}
    for name, tensor in weights.items():
        if name == "pos_embed" and math.isqrt(tensor.shape[1] - 1) ** 2 == tensor.shape[1] - 1:
            places = resample_abs_pos_embed(tensor[:, 1:], [_GRID, _GRID], num_prefix_tokens=0)
            renamed["3.transformer.pos_embed"] = places
        for pattern, place in _PLACES:
            if match := pattern.fullmatch(name):
                renamed[place + match[1]] = tensor
    return renamed
