"""Vision transformers of the timm library, with weights in its layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from napari_pbip.models.encoders import checkpoint
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.encoders.spec import EncoderSpec
from napari_pbip.models.encoders.tokens import pool
from napari_pbip.models.encoders.weights import safetensors_file
from napari_pbip.models.weight_files import read


def build(spec: EncoderSpec, weights: Path) -> Encoder:
    """Build the network of a row and load its weights.

    Raises
    ------
    WeightsUnavailable
        If the safetensors file does not exist, is damaged, or contains the weights of another network.
    """
    path = safetensors_file(weights, spec)
    model = vision_transformer(**spec.network, img_size=spec.input_size)
    tensors = read(path)
    checkpoint.fill(model, {k: v for k, v in tensors.items() if not k.startswith("head.")}, spec.name, path)
    return Encoder(spec, TimmTransformer(model, spec.pooling))


def vision_transformer(architecture: str, *, mlp_layer: str | None = None, **options: Any) -> Any:
    """Return a :class:`timm.models.VisionTransformer` for images of any size, on the meta device (without weights).

    Parameters
    ----------
    architecture
        Name in timm.
    mlp_layer
        Name of a class of ``timm.layers`` that replaces the architecture's.
    **options
        Other options of timm that differ from the architecture's.
    """
    if mlp_layer is not None:
        options["mlp_layer"] = getattr(timm.layers, mlp_layer)
    with torch.device("meta"):
        return timm.create_model(architecture, num_classes=0, dynamic_img_size=True, **options)


class TimmTransformer(nn.Module):
    """A vision transformer of timm, whose vector is pooled from the tokens after the last layer norm."""

    def __init__(self, model: Any, pooling: str) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.patch = int(model.patch_embed.patch_size[0])
        self.depth = len(model.blocks)
        self.width = int(model.embed_dim)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.model.forward_features(images)
        return pool(tokens, tokens.shape[1] - self.model.num_prefix_tokens, self.pooling)

    def block_maps(self, images: torch.Tensor, blocks: Sequence[int]) -> tuple[torch.Tensor, ...]:
        return timm_block_maps(self.model, images, blocks)

    def patch_map(self, images: torch.Tensor) -> torch.Tensor:
        return timm_block_maps(self.model, images, [self.depth], norm=True)[0]


def timm_block_maps(
    model: Any, images: torch.Tensor, blocks: Sequence[int], *, norm: bool = False
) -> tuple[torch.Tensor, ...]:
    """Return the :meth:`~napari_pbip.models.encoders.base.VisionTransformer.block_maps` of a network of timm.

    With ``norm``, the last layer norm is applied to each.
    """
    indices = [block - 1 for block in blocks]
    return tuple(model.forward_intermediates(images, indices, norm=norm, stop_early=True, intermediates_only=True))
