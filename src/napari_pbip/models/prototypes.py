"""Prototypes, and the heads that turn features into score maps: by similarity to projected prototypes (PBIP 3.4)."""

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
    """One vector for each subclass, in class order; P subclasses of all classes together.

    Raises
    ------
    ModelError
        If there is not one class for each vector.
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
        """Zeros for ``k[n]`` subclasses of each class n: trained weights are loaded into them."""
        return cls(torch.zeros(sum(k), dimension), torch.repeat_interleave(torch.arange(len(k)), torch.tensor(k)))

    @classmethod
    def random(cls, k: Sequence[int], dimension: int) -> Self:
        """As :meth:`zeros`, but drawn from a normal distribution by torch's current random state, to be learned."""
        empty = cls.zeros(k, dimension)
        return cls(torch.randn_like(empty.vectors), empty.subclass_class)


def standardise(prototypes: torch.Tensor) -> torch.Tensor:
    """Prototypes (P, d) with their mean subtracted, each of length sqrt(d).

    The first layer of the projection could undo it, so the model is the same; but features of most encoders
    have one dominant direction in common and any length, with which the projected prototypes, and so all score
    maps, start out almost equal.
    """
    centred = prototypes - prototypes.mean(0)
    return F.normalize(centred, dim=1) * math.sqrt(prototypes.shape[1])


class Projection(nn.Sequential):
    """MLP that takes prototypes to the width of a stage (PBIP 3.4): Linear d -> d/2, ReLU, Linear -> C_i.

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
    """Score maps of one stage: how similar its features are to each projected prototype.

    The similarity is multiplied by a learnable scale that starts at 1 / 0.07, as released: a sigmoid of bare
    cosines could not tell a present class (0.73 at most) from an absent one (0.27 at least).

    Parameters
    ----------
    dimension
        Length d of the prototypes.
    channels
        Width C_i of the stage.
    similarity
        ``centred``: the cosine of Eq. 2, of standardised prototypes. ``plain``: of prototypes as they are.
        ``released``: the length of the projected prototypes is left in, as in the released code of PBIP.
    """

    def __init__(self, dimension: int, channels: int, similarity: Similarity) -> None:
        super().__init__()
        self.projection = Projection(dimension, channels)
        self.scale = nn.Parameter(torch.tensor([1 / 0.07]))
        self.similarity = similarity

    def directions(self, prototypes: torch.Tensor) -> torch.Tensor:
        """The scaled projected prototypes P_i that features are multiplied with, (P, d) -> (P, C_i)."""
        if self.similarity == "centred":
            prototypes = standardise(prototypes)
        projected: torch.Tensor = self.projection(prototypes).float()
        return self.scale * (projected if self.similarity == "released" else F.normalize(projected, dim=1))

    def forward(self, features: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
        """Score maps (B, P, h, w) of features (B, C_i, h, w) and prototypes (P, d)."""
        return similarity_map(features, self.directions(prototypes))

    def class_means(
        self, features: torch.Tensor, prototypes: torch.Tensor, subclass_class: torch.Tensor, classes: int
    ) -> torch.Tensor:
        """The mean map of each class (Eq. 2), as one product with the mean of its directions, which need no image."""
        directions = merge_subclasses(self.directions(prototypes).T, subclass_class, classes, "mean").T
        return similarity_map(features, directions)


class ConvolutionHead(nn.Conv2d):
    """A 1x1 convolution to P maps in place of similarities (Table 5 of PBIP); it does not look at the prototypes.

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
        """Score maps (B, P, h, w) of features (B, C_i, h, w)."""
        return super().forward(features).float()

    def class_means(
        self, features: torch.Tensor, prototypes: torch.Tensor, subclass_class: torch.Tensor, classes: int
    ) -> torch.Tensor:
        """The mean map of each class."""
        return merge_subclasses(self(features, prototypes), subclass_class, classes, "mean")


Head = SimilarityHead | ConvolutionHead
"""Score maps of one stage. Both kinds take features and prototypes, give ``class_means``, and have a ``scale``, shape
(1,): what similarities are multiplied by in the maps; 1 where there are no similarities."""
