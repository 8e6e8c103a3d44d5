"""The base class of methods that train a backbone in steps, and the loss of a batch as named terms."""

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
    """The weighted sum, which is minimised, a scalar."""
    terms: dict[str, torch.Tensor]
    """Each term without its weight, a scalar; the names are the same for every batch."""

    @classmethod
    def weighted(cls, losses: WeightedTerms) -> Self:
        """Return the weighted sum of losses, with its terms."""
        total = torch.stack([weight * loss for weight, loss in losses.values()]).sum()
        return cls(total, {name: loss for name, (_, loss) in losses.items()})

    def plus(self, name: str, weight: float, loss: torch.Tensor) -> Self:
        """Return these terms with an additional one."""
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
        """Build the network from the backbone and the number of classes; see :meth:`Method.from_inputs`."""
        return cls(inputs.pyramid, inputs.classes, **options)

    @abstractmethod
    def loss(self, images: torch.Tensor, labels: torch.Tensor, progress: float = 1.0) -> LossTerms:
        """Return the training loss of a batch.

        Parameters
        ----------
        images
            RGB in [0, 1], shape (B, 3, H, W).
        labels
            Image-level labels, 0 or 1, float, shape (B, N). For a method that is trained on masks, the class index of
            each pixel, int64, shape (B, H, W); 255 is ignored.
        progress
            Share of the training that is done, 0 to 1, for terms that start later.
        """
