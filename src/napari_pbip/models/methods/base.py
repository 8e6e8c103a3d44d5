"""The base class of methods: the interface of networks that give class score maps, however they are trained."""

from __future__ import annotations

import math
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
    """The parts from which a method is built, in addition to its settings."""

    backbone: Backbone | None
    """The pyramid, for a method that trains one."""
    classes: int
    """Number of tissue classes N."""
    prototypes: Prototypes | None = None
    """The prototypes of the image bank, or random ones; trained weights that are loaded later replace them."""
    encoder: Encoder | None = None
    """The frozen encoder; only training needs it, unless the method computes its maps with it."""

    @property
    def pyramid(self) -> Backbone:
        """The backbone, for a method that needs one.

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
    """Output of a method for a batch of images, with one tensor for each stage that has maps (four, or a single one).

    Maps are raw scores: logits, before any sigmoid, clipping or stretching. In shapes, B is the number of images, N
    that of classes, P that of subclasses of all classes together, and h x w are the cells at the stride of the map.
    """

    class_maps: tuple[torch.Tensor, ...]
    """Score map M_i of each class, (B, N, h, w)."""
    class_scores: tuple[torch.Tensor, ...]
    """Logits of the image-level prediction from each map alone, (B, N)."""
    subclass_maps: tuple[torch.Tensor, ...] | None = None
    """Score map of each subclass, (B, P, h, w); None if the method has no subclasses."""
    subclass_scores: tuple[torch.Tensor, ...] | None = None
    """Global averages of the subclass maps, (B, P); None if the method has no subclasses."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of a batch of tiles of a slide."""

    maps: torch.Tensor
    """Fused raw class scores of each cell (:attr:`Method.cell`), (B, N, H / cell, W / cell), rounded up."""
    presence: torch.Tensor
    """Logits of class presence in the tile, (B, N)."""


class Method(nn.Module, ABC):
    """Base class of methods.

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
        """Build the network.

        Parameters
        ----------
        inputs
            The parts of the network.
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
        """Whether scores are probabilities, as log(N p), so that those of classes can be compared as they are.

        0 is chance, and a class with a score above 0 is more likely than chance; N is the number of classes.
        """

    @property
    def ceiling(self) -> float | None:
        """The score of certainty, above which no class can get: log(N), or None if scores are no probabilities."""
        return math.log(self.classes) if self.calibrated else None

    @property
    def cell(self) -> int:
        """Side of a cell of the fused scores in pixels."""
        return 8

    @abstractmethod
    def forward(self, images: torch.Tensor) -> MethodOutput:
        """Return the score maps of all stages.

        Parameters
        ----------
        images
            RGB in [0, 1], shape (B, 3, H, W).
        """

    @abstractmethod
    def presence(self, output: MethodOutput) -> torch.Tensor:
        """Return the logits of class presence in the images, (B, N)."""

    def grid(self, images: torch.Tensor) -> tuple[int, int]:
        """Return the height and width of the scores of images (B, 3, H, W)."""
        height, width = (-(-side // self.cell) for side in images.shape[-2:])
        return height, width

    def scores(self, images: torch.Tensor) -> Scores:
        """Return fused class scores and presence, without computing maps that are not used.

        Parameters
        ----------
        images
            RGB in [0, 1], shape (B, 3, H, W).
        """
        output = self(images)
        weighted = zip(self.fusion_weights, output.class_maps, strict=True)
        return Scores(fuse([*weighted], self.grid(images)), self.presence(output))
