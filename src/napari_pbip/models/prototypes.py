"""Prototypes, and heads that turn features into score maps by their similarity to projected prototypes (PBIP 3.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import nn
from torch.nn import functional as F

from napari_pbip.errors import ModelError
from napari_pbip.models.score_maps import merge_subclasses, similarity_map

Similarity = Literal["centred", "plain", "released"]


@dataclass(frozen=True, slots=True)
class Prototypes:
    """One vector for each of P subclasses of all classes together, in the order of the classes.

    Raises
    ------
    ModelError
        If the numbers of vectors and of their classes differ.
    """

    vectors: torch.Tensor
    """Shape (P, D), float32."""
    subclass_class: torch.Tensor
    """Class index of each subclass, shape (P,), int64."""

    def __post_init__(self) -> None:
        if len(self.vectors) != len(self.subclass_class):
            raise ModelError(
                f"{len(self.vectors)} prototypes come with the classes of {len(self.subclass_class)}; "
                "build the image bank again."
            )

    @classmethod
    def zeros(cls, k: Sequence[int], dimension: int) -> Self:
        """Return zeros for ``k[n]`` subclasses of each class n, into which trained weights are loaded."""
        return cls(torch.zeros(sum(k), dimension), torch.repeat_interleave(torch.arange(len(k)), torch.tensor(k)))

    @classmethod
    def random(cls, k: Sequence[int], dimension: int) -> Self:
        """Return normally distributed random vectors for ``k[n]`` subclasses of each class n, from which to train."""
        empty = cls.zeros(k, dimension)
        return cls(torch.randn_like(empty.vectors), empty.subclass_class)


def standardise(prototypes: torch.Tensor) -> torch.Tensor:
    """Return prototypes (P, d) with their mean subtracted, scaled to length sqrt(d).

    The first layer of the projection could learn the inverse, so the model is the same. But the features of most
    encoders have one dominant direction in common and any length; without this step, the projected prototypes, and thus
    all score maps, would be almost equal at the start.
    """
    centred = prototypes - prototypes.mean(0)
    return F.normalize(centred, dim=1) * math.sqrt(prototypes.shape[1])


class Projection(nn.Sequential):
    """An MLP that maps prototypes to the width of a stage (PBIP 3.4): Linear d -> d/2, ReLU, Linear -> C_i.

    Parameters
    ----------
    dimension
        Length d of the prototypes.
    channels
        Width C_i of the stage.
    """

    def __init__(self, dimension: int, channels: int) -> None:
        hidden = max(1, dimension // 2)
        super().__init__(nn.Linear(dimension, hidden), nn.ReLU(), nn.Linear(hidden, channels))


class SimilarityHead(nn.Module):
    """Computes the score maps of one stage: the similarity of its features to each projected prototype.

    The similarity is multiplied by a learnable scale that starts at 1 / 0.07, as released: a sigmoid of cosines ranges
    only from 0.27 to 0.73, which is too little to distinguish present and absent classes.

    Parameters
    ----------
    dimension
        Length d of the prototypes.
    channels
        Width C_i of the stage.
    similarity
        ``centred``: the cosine of Eq. 2 with standardised prototypes. ``plain``: that with unchanged prototypes.
        ``released``: projected prototypes are not normalised, as in the released code of PBIP.
    """

    def __init__(self, dimension: int, channels: int, similarity: Similarity) -> None:
        super().__init__()
        self.projection = Projection(dimension, channels)
        self.scale = nn.Parameter(torch.tensor([1 / 0.07]))
        self.similarity = similarity

    def directions(self, prototypes: torch.Tensor) -> torch.Tensor:
        """Return the scaled projected prototypes P_i, with which features are multiplied, (P, d) -> (P, C_i)."""
        if self.similarity == "centred":
            prototypes = standardise(prototypes)
        projected: torch.Tensor = self.projection(prototypes).float()
        return self.scale * (projected if self.similarity == "released" else F.normalize(projected, dim=1))

    def forward(self, features: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
        """Return the score maps (B, P, h, w) of features (B, C_i, h, w) and prototypes (P, d)."""
        return similarity_map(features, self.directions(prototypes))

    def class_means(
        self, features: torch.Tensor, prototypes: torch.Tensor, subclass_class: torch.Tensor, classes: int
    ) -> torch.Tensor:
        """Return the mean map of each class (Eq. 2), computed faster as the product with the mean of its directions."""
        directions = merge_subclasses(self.directions(prototypes).T, subclass_class, classes, "mean").T
        return similarity_map(features, directions)


class ConvolutionHead(nn.Conv2d):
    """A 1x1 convolution to P maps instead of similarities (Table 5 of PBIP), which does not use the prototypes.

    Parameters
    ----------
    channels
        Width C_i of the stage.
    subclasses
        Number of subclasses P.
    """

    scale: torch.Tensor

    def __init__(self, channels: int, subclasses: int) -> None:
        super().__init__(channels, subclasses, 1)
        self.register_buffer("scale", torch.ones(1), persistent=False)

    def forward(self, features: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Return the score maps (B, P, h, w) of features (B, C_i, h, w)."""
        return super().forward(features).float()

    def class_means(
        self, features: torch.Tensor, prototypes: torch.Tensor, subclass_class: torch.Tensor, classes: int
    ) -> torch.Tensor:
        """Return the mean map of each class."""
        return merge_subclasses(self(features, prototypes), subclass_class, classes, "mean")


Head = SimilarityHead | ConvolutionHead
"""A head of one stage. Both kinds take features and prototypes, and have ``class_means`` and a ``scale`` of shape (1,),
the factor of the similarities in the maps, which is 1 for a head without similarities."""
