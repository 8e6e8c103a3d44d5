"""The base class of methods: what a network that gives class score maps can be asked, however it learned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from napari_pbip.errors import ModelError
from napari_pbip.models.backbones import Backbone
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.prototypes import Prototypes
from napari_pbip.models.score_maps import fuse


@dataclass(frozen=True, slots=True)
class MethodInputs:
    """What a method is put together from, besides its settings."""

    backbone: Backbone | None
    """The pyramid, of a method that trains one."""
    classes: int
    """Number of tissue classes N."""
    prototypes: Prototypes | None = None
    """The prototypes of the image bank, or random ones; trained weights that are loaded afterwards replace them."""
    encoder: Encoder | None = None
    """The frozen encoder; only training needs it, but for a method that sees through it."""

    @property
    def pyramid(self) -> Backbone:
        """The backbone, for a method that cannot do without.

        Raises
        ------
        ModelError
            If there is none.
        """
        if self.backbone is None:
            raise ModelError(
                "The method needs a backbone, and there is none; derive its settings from PyramidSettings."
            )
        return self.backbone


@dataclass(frozen=True, slots=True)
class MethodOutput:
    """Output of a method for a batch of images, one tensor for each of its maps: of the four stages, or of one.

    Maps are raw scores: logits, before any sigmoid, clipping or stretching. B images, N classes, P subclasses
    of all classes together, h x w cells at the map's stride.
    """

    class_maps: tuple[torch.Tensor, ...]
    """Score map M_i of each class, (B, N, h, w)."""
    class_scores: tuple[torch.Tensor, ...]
    """Logits of the image-level prediction that each map alone would make, (B, N)."""
    subclass_maps: tuple[torch.Tensor, ...] | None = None
    """Score map of each subclass, (B, P, h, w), if the method has subclasses."""
    subclass_scores: tuple[torch.Tensor, ...] | None = None
    """Their global averages, (B, P)."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of a batch of tiles of a slide."""

    maps: torch.Tensor
    """Fused raw class scores, a value a cell (:attr:`Method.cell`), (B, N, H / cell, W / cell), rounded up."""
    presence: torch.Tensor
    """Logits of each class being in the tile, (B, N)."""


class Method(nn.Module, ABC):
    """Base of the methods.

    Parameters
    ----------
    classes
        Number of tissue classes N.
    fusion_weights
        Weight of each map of :meth:`forward` in the fused map.
    """

    def __init__(self, classes: int, fusion_weights: Sequence[float]) -> None:
        super().__init__()
        self.classes = classes
        self.fusion_weights = tuple(fusion_weights)

    @classmethod
    @abstractmethod
    def from_inputs(cls, inputs: MethodInputs, **options: Any) -> Self:
        """Put the network together.

        Parameters
        ----------
        inputs
            What it is made of.
        **options
            The fields of its settings.

        Raises
        ------
        ModelError
            If an input that it needs is missing, or an option cannot be used.
        """

    @property
    @abstractmethod
    def calibrated(self) -> bool:
        """Whether a score above 0 means presence, and the scores of classes can be compared as they are."""

    @property
    def ceiling(self) -> float | None:
        """The score of a class that is certain, if there is one: no score is higher, whatever the class."""
        return None

    @property
    def cell(self) -> int:
        """Side of a cell of the fused scores in pixels."""
        return 8

    @abstractmethod
    def forward(self, images: torch.Tensor) -> MethodOutput:
        """Score maps of all stages.

        Parameters
        ----------
        images
            RGB in [0, 1], shape (B, 3, H, W).
        """

    @abstractmethod
    def presence(self, output: MethodOutput) -> torch.Tensor:
        """Logits of each class being in the image, (B, N)."""

    def grid(self, images: torch.Tensor) -> tuple[int, int]:
        """Height and width of the scores of images (B, 3, H, W)."""
        height, width = (-(-side // self.cell) for side in images.shape[-2:])
        return height, width

    def scores(self, images: torch.Tensor) -> Scores:
        """Fused class scores and presence, without computing what they do not need; see :class:`Scores`.

        Parameters
        ----------
        images
            RGB in [0, 1], shape (B, 3, H, W).
        """
        output = self(images)
        weighted = zip(self.fusion_weights, output.class_maps, strict=True)
        return Scores(fuse([*weighted], self.grid(images)), self.presence(output))
