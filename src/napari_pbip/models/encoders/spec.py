"""What is known of an encoder before anything of it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Facts of an encoder: a row of the catalogue."""

    name: str
    """What a user calls it."""
    title: str
    """What it is, in a few words."""
    factory: str
    """``module:function`` that makes it from its row and the path of its weights."""
    dimension: int | None
    """Length D of its features; None if the weights tell."""
    input_size: int | None
    """Side of the square it sees, pixels, to which images are resized. None: as they come, scale being part
    of what it measures, or told by the weights."""
    mpp: float | None
    """Microns per pixel it is meant for, None if it was made for none in particular."""
    mean: tuple[float, float, float]
    """Subtracted from RGB in [0, 1]."""
    std: tuple[float, float, float]
    """RGB is divided by this after that."""
    pooling: str
    """How its maps or tokens become one vector."""
    licence: str
    """Licence of the weights."""
    gated: bool
    """Whether the weights are given out on request only."""
    paper: str
    """Where it is described."""
    needs_weights: bool
    """Whether it has to be given weights."""
    revision: int = 1
    """Counts changes of the computation: features of different revisions do not mix."""
    text: bool = False
    """Whether it has a text tower, which puts sentences into the same space."""
    blocks: bool = False
    """Whether it is a vision transformer, whose blocks can be looked into."""
    stages: bool = False
    """Whether it is a pyramid of four stages, whose maps can be looked at."""
    hub: str | None = None
    """Where its weights can be fetched: a repository of the Hugging Face hub."""
    page: str | None = None
    """Web page that gives the weights out, where no hub does."""
    megabytes: int | None = None
    """Size of its weights, 10^6 bytes."""
    network: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Shape of the network, in the words of the library that builds it."""

    @property
    def may_read(self) -> bool:
        """Whether it has a text tower, or the weights may turn out to bring one."""
        return self.text or (self.blocks and self.dimension is None)
