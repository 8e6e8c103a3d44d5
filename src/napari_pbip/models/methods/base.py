"""The base class of methods: a backbone with heads, trained on image-level labels, that gives class score maps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from napari_pbip.errors import ModelError
from napari_pbip.models.backbones import Backbone, Pyramid
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.losses.classification import classification_loss
from napari_pbip.models.losses.pixels import pixel_loss
from napari_pbip.models.prototypes import Prototypes
from napari_pbip.models.score_maps import fuse, pool, pool_log_mean_exp

STAGES = 4


@dataclass(frozen=True, slots=True)
class MethodInputs:
    """What a method is put together from, besides its settings."""

    backbone: Backbone
    """The pyramid."""
    classes: int
    """Number of tissue classes N."""
    prototypes: Prototypes | None = None
    """The prototypes of the image bank, or random ones; trained weights that are loaded afterwards replace them."""
    encoder: Encoder | None = None
    """The frozen encoder; only training needs it."""


@dataclass(frozen=True, slots=True)
class MethodOutput:
    """Output of a method for a batch of images, one tensor for each stage: four, or one of a method with one map.

    Maps are raw scores: logits, before any sigmoid, clipping or stretching. B images, N classes, P subclasses
    of all classes together, h x w cells at the stage's stride.
    """

    class_maps: tuple[torch.Tensor, ...]
    """Score map M_i of each class, (B, N, h, w)."""
    class_scores: tuple[torch.Tensor, ...]
    """Logits of the image-level prediction, (B, N): pooled maps, with prototypes plus a learned offset."""
    subclass_maps: tuple[torch.Tensor, ...] | None = None
    """Score map of each subclass, (B, P, h, w), if the method has subclasses."""
    subclass_scores: tuple[torch.Tensor, ...] | None = None
    """Their global averages, (B, P)."""


WeightedTerms = Mapping[str, tuple[float, torch.Tensor]]
"""Terms of a loss by name, each with its weight."""


@dataclass(frozen=True, slots=True)
class LossTerms:
    """The loss of a batch and its terms."""

    total: torch.Tensor
    """The weighted sum that is minimised, a scalar."""
    terms: dict[str, torch.Tensor]
    """Each term before its weight, a scalar; the names do not change from batch to batch."""

    @classmethod
    def weighted(cls, losses: WeightedTerms) -> Self:
        """The sum of losses, each given with its weight."""
        total = torch.stack([weight * loss for weight, loss in losses.values()]).sum()
        return cls(total, {name: loss for name, (_, loss) in losses.items()})

    def plus(self, name: str, weight: float, loss: torch.Tensor) -> Self:
        """These terms and one more."""
        return type(self)(self.total + weight * loss, {**self.terms, name: loss})


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
    backbone
        The pyramid.
    classes
        Number of tissue classes N.
    stage_weights
        Weight of each stage's classification loss.
    fusion_weights
        Weight of each stage's score map in the fused map.
    synthesis
        Weight of the loss on the pixels of mosaics (:meth:`pixel_loss`); 0 without mosaics.

    Raises
    ------
    ModelError
        If the weights are all zero, or are not as many as the stages.
    """

    stages = STAGES
    """Number of score maps."""

    def __init__(
        self,
        backbone: Pyramid,
        classes: int,
        stage_weights: Sequence[float],
        fusion_weights: Sequence[float],
        synthesis: float = 0.0,
    ) -> None:
        super().__init__()
        for name, weights in (("stage_weights", stage_weights), ("fusion_weights", fusion_weights)):
            if len(weights) != self.stages or not any(weights):
                raise ModelError(f"The setting {name} needs four weights, one a stage, of which one is not zero.")
        self.backbone = backbone
        self.classes = classes
        self.stage_weights = tuple(stage_weights)
        self.fusion_weights = tuple(fusion_weights)
        self.synthesis = synthesis

    @property
    def calibrated(self) -> bool:
        """Whether the method was trained on pixels: a score above 0 means presence, and classes can be compared."""
        return self.synthesis > 0

    @property
    def cell(self) -> int:
        """Side of a cell of the fused scores in pixels: the stride of the finest stage that carries fusion weight.

        That is 4 of the first stage and 8 of the second; the maps of later stages are enlarged to 8.
        """
        return 4 if self.fusion_weights[0] else 8

    @classmethod
    def from_inputs(cls, inputs: MethodInputs, **options: Any) -> Self:
        """Put the network together. This one takes the backbone and the number of classes alone.

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
        return cls(inputs.backbone, inputs.classes, **options)

    @abstractmethod
    def forward(self, images: torch.Tensor) -> MethodOutput:
        """Score maps of all stages.

        Parameters
        ----------
        images
            RGB in [0, 1], shape (B, 3, H, W).
        """

    @abstractmethod
    def loss(self, images: torch.Tensor, labels: torch.Tensor, progress: float = 1.0) -> LossTerms:
        """The training loss.

        Parameters
        ----------
        images
            RGB in [0, 1], shape (B, 3, H, W).
        labels
            Image-level labels, 0 or 1, float, shape (B, N). For a method that learns from masks they are the class
            index of each pixel, int64, shape (B, H, W); 255 is left out.
        progress
            Share of the training that is done, 0 to 1, for terms that start later.
        """

    @abstractmethod
    def class_scores(self, stage: int, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Class score map (B, N, h, w) of one stage's features (B, C, h, w), and its pooled logits (B, N)."""

    def pool(self, maps: torch.Tensor) -> torch.Tensor:
        """Pooled logits (B, N) of class maps (B, N, h, w)."""
        return pool_log_mean_exp(maps) if self.calibrated else pool(maps)

    def pixel_loss(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Loss on images with known pixels, weighted over the stages like the classification loss.

        Parameters
        ----------
        images
            RGB in [0, 1], shape (B, 3, H, W).
        masks
            Class index of each pixel, int64, shape (B, H, W).
        """
        stages = {i: weight for i, weight in enumerate(self.stage_weights) if weight}
        features = self.features(images, stages)
        return torch.stack(
            [weight * pixel_loss(self.class_scores(i, features[i])[0], masks) for i, weight in stages.items()]
        ).sum()

    def features(self, images: torch.Tensor, stages: Collection[int]) -> Mapping[int, torch.Tensor]:
        """Feature maps (B, C, h, w) by stage, counted from 0: at least those of ``stages``."""
        return dict(enumerate(self.backbone(images)))

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
        # a stage that carries no weight needs no head
        used = [i for i in range(self.stages) if self.fusion_weights[i] or self.stage_weights[i]]
        features = self.features(images, used)
        seen = {i: self.class_scores(i, features[i]) for i in used}
        fused = [(self.fusion_weights[i], seen[i][0]) for i in used if self.fusion_weights[i]]
        return Scores(fuse(fused, self.grid(images)), self._presence({i: seen[i][1] for i in used}))

    def classification(
        self, logits: Mapping[int, torch.Tensor], labels: torch.Tensor, alpha: float = 1.0
    ) -> WeightedTerms:
        """The term ``classification_i`` of each stage i = 1..4 that has a weight.

        Parameters
        ----------
        logits
            Pooled class scores (B, N) of those stages, counted from 0.
        labels
            Image-level labels, 0 or 1, float, shape (B, N).
        alpha
            A weight of all of them together.
        """
        return {
            f"classification_{i + 1}": (alpha * weight, classification_loss(logits[i], labels))
            for i, weight in enumerate(self.stage_weights)
            if weight
        }

    def presence(self, output: MethodOutput) -> torch.Tensor:
        """Logits of each class being in the image, (B, N): the stages' predictions, weighted as in training."""
        return self._presence(dict(enumerate(output.class_scores)))

    def _presence(self, logits: dict[int, torch.Tensor]) -> torch.Tensor:
        weighted = [w * logits[i] for i, w in enumerate(self.stage_weights) if w]
        return torch.stack(weighted).sum(0) / sum(self.stage_weights)
