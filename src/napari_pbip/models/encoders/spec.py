"""The facts of an encoder that are known without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Facts of an encoder: a row of the catalogue."""

    name: str
    """Its name in settings and on the command line."""
    title: str
    """A description in a few words."""
    factory: str
    """``module:function`` that builds it from this row and the path of its weights."""
    dimension: int | None
    """Length D of its features; None if that follows from the weights."""
    input_size: int | None
    """Side in pixels of the square that images are resized to. None: images keep their size, because scale is part of
    what the encoder measures; or the size follows from the weights."""
    mpp: float | None
    """Microns per pixel that it was trained at, None if there was no fixed one."""
    mean: tuple[float, float, float]
    """Subtracted from RGB in [0, 1]."""
    std: tuple[float, float, float]
    """RGB is divided by this after ``mean`` is subtracted."""
    pooling: str
    """How its maps or tokens become one vector."""
    licence: str
    """Licence of the weights."""
    gated: bool
    """Whether access to the weights has to be requested."""
    paper: str
    """The publication that describes it."""
    needs_weights: bool
    """Whether a file of weights is required."""
    revision: int = 1
    """Number of the computation: features of different revisions cannot be compared."""
    text: bool = False
    """Whether it has a text tower, which maps sentences to the same feature space."""
    blocks: bool = False
    """Whether it is a :class:`~napari_pbip.models.encoders.base.VisionTransformer`."""
    stages: bool = False
    """Whether it is a :class:`~napari_pbip.models.encoders.base.StageNetwork`."""
    hub: str | None = None
    """Repository of the Hugging Face hub from which its weights can be fetched."""
    page: str | None = None
    """Web page that offers the weights, if they are on no hub."""
    megabytes: int | None = None
    """Size of the weights, 10^6 bytes."""
    network: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Options of the network, named as in the library that builds it."""

    @property
    def dense(self) -> bool:
        """Whether it has a vector for every cell (:meth:`~napari_pbip.models.encoders.base.Encoder.dense`)."""
        return self.blocks or self.stages

    @property
    def may_read(self) -> bool:
        """Whether it has a text tower, or may have one depending on the weights."""
        return self.text or (self.blocks and self.dimension is None)
