"""Encoders whose features are the mean and deviation of a backbone's stages over the tissue.

:class:`TissueStatistics` uses the third stage of a backbone with ImageNet weights, without further changes.
:class:`StageStatistics` is the encoder that the job ``pretrain`` makes from a backbone trained on unlabelled slides.
Such a network describes shapes and ignores stain; the statistics of the encoder ``texture`` are added to describe
colours. Network and texture have separate linear maps, because in a common one the many numbers of the network would
outweigh the few of the texture. The last stage is left out: it takes a third of the time and does not improve the
features.

The weights of the latter are a safetensors file of ``pretrain``, which contains the backbone under ``backbone.``, as in
trained models, so that trainings can start from it too, and both linear maps as one ``centre`` and ``projection``.
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
from napari_pbip.models import backbones
from napari_pbip.models.backbones import Backbone
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.encoders.spec import EncoderSpec
from napari_pbip.models.encoders.texture import statistics
from napari_pbip.models.encoders.weights import safetensors_file
from napari_pbip.models.seeding import seeded

_FAINT = 0.05
"""Brightness at which a cell has half weight; masked pixels are black and have no weight."""


def build_imagenet(spec: EncoderSpec, weights: Path | None) -> Encoder:
    """Return the encoder of the backbone that has the same name in the catalogue.

    Parameters
    ----------
    spec
        The row of the encoder.
    weights
        Weights of the backbone in one of its layouts; by default those that are installed with the package.

    Raises
    ------
    WeightsUnavailable
        If the file does not exist or is damaged.
    ModelError
        If it contains the weights of another network.
    """
    with seeded(0):  # the random initial values are replaced
        backbone = backbones.load(spec.name, weights or "builtin").as_pretrained()
    return Encoder(spec, TissueStatistics(backbone).eval())


def build(spec: EncoderSpec, weights: Path) -> Encoder:
    """Return the encoder of a file that ``pretrain`` wrote.

    Raises
    ------
    WeightsUnavailable
        If the file does not exist, is damaged or of another kind.
    """
    path = safetensors_file(weights, spec)
    try:
        with safe_open(path, "pt") as file:
            name = (file.metadata() or {}).get("backbone", "")
        tensors = {key: tensor.float() for key, tensor in load_file(path).items()}
        with seeded(0):  # the random initial values are replaced
            backbone = Backbone(backbones.catalogue()[name])
        backbones.load_weights(backbone, tensors, str(path))
        network = StageStatistics(backbone, tensors["centre"], tensors["projection"]).eval()
        with torch.no_grad():  # raises if the linear maps have other sizes
            network(torch.full((1, 3, 64, 64), 0.5))
    except (SafetensorError, OSError, KeyError, RuntimeError, ModelError) as error:
        raise WeightsUnavailable(
            f"{path} cannot be used as an encoder; give the model.safetensors that a pre-training wrote (if an earlier "
            "version wrote it, resume that pre-training with `resume=True`, which writes it again)."
        ) from error
    return Encoder(replace(spec, dimension=len(network.projection)), network)


class _Stages(nn.Module):
    """A backbone whose stages are available; see :class:`~napari_pbip.models.encoders.base.StageNetwork`."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = backbone.channels

    def stage_maps(self, images: torch.Tensor, count: int) -> list[torch.Tensor]:
        """See :class:`~napari_pbip.models.encoders.base.StageNetwork`."""
        return self.backbone.up_to(count, images)


class TissueStatistics(_Stages):
    """Mean and deviation of a backbone's third stage over the tissue, (B, 2 C_3).

    The fourth stage is more specific to the classes of ImageNet, and worse for tissue (docs/benchmarks.md).
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features, shape (B, D), of RGB in [0, 1], shape (B, 3, H, W)."""
        return self.pool(self.cells(images), images)

    def cells(self, images: torch.Tensor) -> torch.Tensor:
        """See :class:`~napari_pbip.models.encoders.base.CellPooling`."""
        return self.backbone.up_to(3, images)[2]

    def pool(self, cells: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """See :class:`~napari_pbip.models.encoders.base.CellPooling`."""
        return tissue_statistics(cells, images)


class StageStatistics(_Stages):
    """Mean and deviation of a backbone's stages over the tissue, texture statistics, and a linear map of both.

    Parameters
    ----------
    backbone
        The pyramid.
    centre
        Mean of the descriptors, which is subtracted from them, shape (F,).
    projection
        The linear map, shape (D, F).
    """

    centre: torch.Tensor
    projection: torch.Tensor

    def __init__(self, backbone: Backbone, centre: torch.Tensor, projection: torch.Tensor) -> None:
        super().__init__(backbone)
        self.register_buffer("centre", centre)
        self.register_buffer("projection", projection)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features, shape (B, D), of RGB in [0, 1], shape (B, 3, H, W)."""
        return (torch.cat(describe(self.backbone, images), 1) - self.centre) @ self.projection.T


def describe(backbone: Backbone, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the descriptors before the linear maps.

    These are mean and deviation of stages 2 and 3 over the cells that are not black, and texture statistics.

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
    maps = [_layer_norm(features) for features in backbone.up_to(3, images)[1:]]
    return torch.cat([tissue_statistics(m, images) for m in maps], 1), statistics(images)


def tissue_statistics(maps: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return mean and deviation (B, 2 C) of maps (B, C, h, w) over cells that are not black in images (B, c, H, W)."""
    maps = maps.float()
    brightness = F.adaptive_avg_pool2d(images.mean(1, keepdim=True), (maps.shape[2], maps.shape[3]))
    weight = brightness / (brightness + _FAINT)
    weight = weight / (weight.sum((2, 3), keepdim=True) + 1e-6)
    mean = (weight * maps).sum((2, 3))
    variance = (weight * (maps - mean[:, :, None, None]) ** 2).sum((2, 3))
    return torch.cat([mean, torch.sqrt(variance + 1e-4)], 1)


def _layer_norm(maps: torch.Tensor) -> torch.Tensor:
    """Return maps (B, C, h, w) with each cell normalised over its channels."""
    return F.layer_norm(maps.float().movedim(1, 3), maps.shape[1:2]).movedim(3, 1)
