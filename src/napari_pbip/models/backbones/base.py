"""Base classes of backbones: networks of four consecutive stages, each of which returns a feature map."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from types import ModuleType
from typing import Any, Self

import torch
from torch import nn

from napari_pbip.errors import ModelError
from napari_pbip.models.backbones.catalogue import BackboneSpec
from napari_pbip.models.backbones.depthwise import replace_depthwise
from napari_pbip.models.shares import in_shares

Features = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


class Pyramid(nn.Module, ABC):
    """A network from images to four feature maps."""

    channels: tuple[int, int, int, int]
    """Channels C_i of each map."""

    @abstractmethod
    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise images (B, 3, H, W), RGB in [0, 1], by the mean and deviation of the network's training images."""

    @abstractmethod
    def forward(self, images: torch.Tensor) -> Features:
        """Return the feature maps F_i (B, C_i, h_i, w_i) of images (B, 3, H, W), RGB in [0, 1]."""


class Backbone(Pyramid):
    """A trainable pyramid network with four stages.

    Parameters
    ----------
    spec
        The row of the catalogue, or one with other widths or depths.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.spec = spec
        self.channels = spec.channels
        self.strides = spec.strides
        """Stride of each stage's map in pixels of the image."""
        # Any, because the modules of a stage differ from family to family
        self.stages: Any = getattr(_family(spec), spec.factory.partition(":")[2])(spec)
        replace_depthwise(self.stages)
        self._trains_channels_last = not any(_crashes(module) for module in self.stages.modules())
        self.from_run = False
        """Whether the weights were loaded from a run of this package, and not from a published file."""
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """See :class:`Pyramid`."""
        normalised = (images - self.mean) / self.std
        # with the channels last in memory, convolutions on a processor take half the time
        if torch.is_grad_enabled() and not self._trains_channels_last:
            return normalised
        return normalised.contiguous(memory_format=torch.channels_last)

    def as_pretrained(self) -> Self:
        """Switch to the normalisation of the published weights, for use without training; return the backbone.

        Published weights may have been trained with other statistics than those that are used for training here.
        """
        if not self.from_run:
            for buffer, values in zip((self.mean, self.std), self.spec.published, strict=True):
                buffer.copy_(torch.tensor(values).view(1, 3, 1, 1))
        return self

    def forward(self, images: torch.Tensor) -> Features:
        """Return the feature maps of images.

        Parameters
        ----------
        images
            RGB in [0, 1], shape (B, 3, H, W).

        Returns
        -------
        tuple of four tensors
            F_i of shape (B, C_i, H / s_i, W / s_i), rounded up, with the strides s_i of :attr:`strides`.
        """
        first, second, third, fourth = self.up_to(len(self.stages), images)
        return first, second, third, fourth

    def up_to(self, count: int, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the first ``count`` maps of :meth:`forward`, without computing later stages."""
        return [*in_shares(partial(self._up_to, count), images)]

    def _up_to(self, count: int, images: torch.Tensor) -> list[torch.Tensor]:
        maps, x = [], self.normalise(images)
        for stage in self.stages[:count]:
            x = stage(x)
            maps.append(x)
        return maps


def load_weights(backbone: Backbone, weights: Mapping[str, torch.Tensor], source: str = "The file") -> None:
    """Load weights of any of the known layouts into a backbone.

    Parameters
    ----------
    backbone
        The backbone, which is changed in place.
    weights
        Tensors by name, in one of the layouts that the backbone's row lists, or the complete model of one of our runs.
        Classification and segmentation heads are ignored.
    source
        Name of the weights for the error.

    Raises
    ------
    ModelError
        If the tensors are not exactly those of this backbone.
    """
    prefix = "backbone.stages."
    ours = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
    renamed = ours or _family(backbone.spec).to_stages(weights)
    state = backbone.stages.state_dict()
    counters = {n for n in state if n.endswith(".num_batches_tracked")}  # not in older files, and not used
    missing = state.keys() - renamed.keys() - counters
    wrong = [n for n in state.keys() & renamed.keys() if state[n].shape != renamed[n].shape]
    if missing or wrong or renamed.keys() - state.keys():
        raise ModelError(
            f"{source} does not hold the weights of {backbone.spec.name} ({len(missing)} tensors are missing, "
            f"{len(wrong)} have another shape); give the weights of that backbone, or choose the one they belong to."
        )
    backbone.stages.load_state_dict({**state, **renamed})
    backbone.from_run = bool(ours)


def _crashes(module: nn.Module) -> bool:
    """Return whether torch 2.14 crashes in the backward pass of a convolution if the channels are last in memory.

    It does so on a processor for strided 1x1 convolutions of fewer than 16 channels, which no real network has.
    """
    if not isinstance(module, nn.Conv2d):
        return False
    return module.kernel_size == (1, 1) and max(module.stride) > 1 and module.in_channels // module.groups < 16


def _family(spec: BackboneSpec) -> ModuleType:
    """Return the module of a backbone's factory."""
    return importlib.import_module(f"{__package__}.{spec.factory.partition(':')[0]}")
