"""An encoder made of a pre-trained backbone: what its stages see, on average over the tissue, beside its texture.

A small backbone that saw few slides knows shapes, and takes stain for chance; the statistics of the encoder ``texture``
know colours. Each of the two has a linear map of its own: in one, the many numbers of the network drown the few of the
texture. The last stage is left out, which costs a third of the time and makes features no better.

The weights are one safetensors file of the job ``pretrain``: the backbone under ``backbone.``, as in the models of
trainings, which can start from it as well, and the linear maps at the end, together one with ``centre`` and
``projection``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from napari_pbip.errors import ModelError, WeightsUnavailable
from napari_pbip.models import backbones, builtin
from napari_pbip.models.backbones import Backbone
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.encoders.spec import EncoderSpec
from napari_pbip.models.encoders.texture import statistics
from napari_pbip.models.encoders.weights import safetensors_file

_FAINT = 0.05
"""Brightness at which a cell counts half; what is masked out is black and does not count."""


def build(spec: EncoderSpec, weights: Path | None) -> Encoder:
    """The encoder of a file that ``pretrain`` wrote; without one, of that which comes with the package.

    Raises
    ------
    WeightsUnavailable
        If there is no such file, or it is damaged or of another kind.
    """
    path = builtin.WEIGHTS if weights is None else safetensors_file(weights, spec)
    try:
        with safe_open(path, "pt") as file:
            name = (file.metadata() or {}).get("backbone", "")
        tensors = {key: tensor.float() for key, tensor in load_file(path).items()}
        with torch.random.fork_rng():  # the first values are random, and replaced
            backbone = Backbone(backbones.catalogue()[name])
        backbones.load_weights(backbone, tensors, str(path))
        network = Trunk(backbone, tensors["centre"], tensors["projection"]).eval()
        with torch.no_grad():  # do the maps fit what is described?
            network(torch.full((1, 3, 64, 64), 0.5))
    except (SafetensorError, OSError, KeyError, RuntimeError, ModelError) as error:
        raise WeightsUnavailable(
            f"{path} cannot be used as an encoder; give the model.safetensors that `napari-pbip pretrain` wrote (if an "
            "earlier version did, `pretrain --resume` writes it anew)."
        ) from error
    return Encoder(replace(spec, dimension=len(network.projection)), network)


class Trunk(nn.Module):
    """A backbone, the mean and deviation of its stages over the tissue, and a linear map.

    Parameters
    ----------
    backbone
        The pyramid.
    centre
        What is subtracted from the means and deviations, shape (F,).
    projection
        The linear map, shape (D, F).
    """

    centre: torch.Tensor
    projection: torch.Tensor

    def __init__(self, backbone: Backbone, centre: torch.Tensor, projection: torch.Tensor) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = backbone.channels
        self.register_buffer("centre", centre)
        self.register_buffer("projection", projection)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features, shape (B, D), of RGB in [0, 1], shape (B, 3, H, W)."""
        return (torch.cat(describe(self.backbone, images), 1) - self.centre) @ self.projection.T

    def stage_maps(self, images: torch.Tensor, count: int) -> list[torch.Tensor]:
        """See :class:`~napari_pbip.models.encoders.base.StageNetwork`."""
        return self.backbone.up_to(count, images)


def describe(backbone: Backbone, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of stages 2 and 3 over the cells that are not black; and texture. Before the linear maps.

    Parameters
    ----------
    backbone
        The pyramid.
    images
        RGB in [0, 1], shape (B, 3, H, W).

    Returns
    -------
    network, texture
        Shapes (B, F) and (B, T), float32.
    """
    brightness = images.mean(1, keepdim=True)
    found = []
    for features in backbone.up_to(3, images)[1:]:
        cells = F.layer_norm(features.float().movedim(1, 3), features.shape[1:2]).flatten(1, 2)  # (B, h w, C)
        shown = F.adaptive_avg_pool2d(brightness, (features.shape[2], features.shape[3])).flatten(2).mT
        weight = shown / (shown + _FAINT)
        weight = weight / (weight.sum(1, keepdim=True) + 1e-6)
        mean = (weight * cells).sum(1)
        variance = (weight * (cells - mean[:, None]) ** 2).sum(1)
        found += [mean, torch.sqrt(variance + 1e-4)]
    return torch.cat(found, 1), statistics(images)
