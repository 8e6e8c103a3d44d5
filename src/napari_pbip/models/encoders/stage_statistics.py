"""An encoder made of a pre-trained backbone: mean and deviation of its stages over the tissue, and texture statistics.

A small backbone that was pre-trained on few slides describes shapes and ignores stain; the statistics of the encoder
``texture`` describe colours. Each of the two has its own linear map: in a common one, the many numbers of the network
would outweigh the few of the texture. The last stage is left out: it takes a third of the time, and does not make the
features better.

The weights are one safetensors file of the job ``pretrain``: the backbone under ``backbone.``, as in trained models, so
that trainings can start from it as well, and the two linear maps in one, ``centre`` and ``projection``.
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
"""Brightness at which a cell has half weight; masked pixels are black and have none."""


def build(spec: EncoderSpec, weights: Path | None) -> Encoder:
    """The encoder of a file that ``pretrain`` wrote, or of the file that comes with the package if none is given.

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
        network = StageStatistics(backbone, tensors["centre"], tensors["projection"]).eval()
        with torch.no_grad():  # do the maps fit what is described?
            network(torch.full((1, 3, 64, 64), 0.5))
    except (SafetensorError, OSError, KeyError, RuntimeError, ModelError) as error:
        raise WeightsUnavailable(
            f"{path} cannot be used as an encoder; give the model.safetensors that a pre-training wrote (if an earlier "
            "version wrote it, go on with that pre-training with `resume=True`, which writes it again)."
        ) from error
    return Encoder(replace(spec, dimension=len(network.projection)), network)


class StageStatistics(nn.Module):
    """Mean and deviation of a backbone's stages over the tissue, texture statistics, and a linear map of both.

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
    """Mean and deviation of stages 2 and 3 over the cells that are not black, and texture statistics.

    These are the descriptors before the linear maps.

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
    statistics_of_stages = []
    for features in backbone.up_to(3, images)[1:]:
        cells = F.layer_norm(features.float().movedim(1, 3), features.shape[1:2]).flatten(1, 2)  # (B, h w, C)
        cell_brightness = F.adaptive_avg_pool2d(brightness, (features.shape[2], features.shape[3])).flatten(2).mT
        weight = cell_brightness / (cell_brightness + _FAINT)
        weight = weight / (weight.sum(1, keepdim=True) + 1e-6)
        mean = (weight * cells).sum(1)
        variance = (weight * (cells - mean[:, None]) ** 2).sum(1)
        statistics_of_stages += [mean, torch.sqrt(variance + 1e-4)]
    return torch.cat(statistics_of_stages, 1), statistics(images)
