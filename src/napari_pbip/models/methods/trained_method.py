"""What methods have that train a backbone step by step: a loss of a batch, in named terms."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from napari_pbip.models.backbones import Pyramid
from napari_pbip.models.methods.base import Method, MethodInputs

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


class TrainedMethod(Method):
    """A method that trains a backbone, a pyramid of four stages.

    Parameters
    ----------
    backbone
        The pyramid.
    classes
        Number of tissue classes N.
    fusion_weights
        Weight of each map of :meth:`forward` in the fused map.
    """

    def __init__(self, backbone: Pyramid, classes: int, fusion_weights: Sequence[float]) -> None:
        super().__init__(classes, fusion_weights)
        self.backbone = backbone

    @classmethod
    def from_inputs(cls, inputs: MethodInputs, **options: Any) -> Self:
        """Put the network together; see :meth:`Method.from_inputs`. This one takes backbone and number of classes."""
        return cls(inputs.pyramid, inputs.classes, **options)

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
