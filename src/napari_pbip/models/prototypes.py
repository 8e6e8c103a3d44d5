"""Prototypes meet features: the projection to each stage, and the similarity maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import nn
from torch.nn import functional as F

from napari_pbip.models.score_maps import similarity_map

Similarity = Literal["centred", "plain", "released"]


@dataclass(frozen=True, slots=True)
class Prototypes:
    """One vector a subclass, in class order; P subclasses of all classes together."""

    vectors: torch.Tensor
    """Shape (P, D), float32."""
    of_class: torch.Tensor
    """Class index of each, shape (P,), int64."""

    @classmethod
    def zeros(cls, k: Sequence[int], dimension: int) -> Self:
        """Of ``k[n]`` subclasses of each class n, to load weights into."""
        return cls(torch.zeros(sum(k), dimension), torch.repeat_interleave(torch.arange(len(k)), torch.tensor(k)))

    @classmethod
    def random(cls, k: Sequence[int], dimension: int) -> Self:
        """As :meth:`zeros`, drawn from a normal distribution by torch's current random state, to be learned."""
        empty = cls.zeros(k, dimension)
        return cls(torch.randn_like(empty.vectors), empty.of_class)


def standardise(prototypes: torch.Tensor) -> torch.Tensor:
    """Prototypes (P, d) without what all of them share, each of length sqrt(d).

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
        """What the features are multiplied with: scaled projected prototypes P_i, (P, d) -> (P, C_i).

        They depend on no image. A class map that is the mean of its subclass maps (Eq. 2) is the product with
        the mean of their directions, so at inference one row a class is enough.
        """
        if self.similarity == "centred":
            prototypes = standardise(prototypes)
        projected: torch.Tensor = self.projection(prototypes).float()
        return self.scale * (projected if self.similarity == "released" else F.normalize(projected, dim=1))

    def forward(self, features: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
        """Score maps (B, P, h, w) of features (B, C_i, h, w) against prototypes (P, d)."""
        return similarity_map(features, self.directions(prototypes))
