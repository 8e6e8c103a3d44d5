"""The facts about an encoder that are known without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """The facts about an encoder, a row of the catalogue."""

    name: str
    """Name in settings and on the command line."""
    title: str
    """A description in a few words."""
    factory: str
    """``module:function`` that builds the encoder from this row and the path of its weights."""
    dimension: int | None
    """Length D of the features; None if it depends on the weights."""
    input_size: int | None
    """Side in pixels of the square to which images are resized; None if images keep their size, because the features
    depend on the scale, or if the size depends on the weights."""
    mpp: float | None
    """Microns per pixel of the training; None if they were not fixed."""
    mean: tuple[float, float, float]
    """Mean of the training images, which is subtracted from RGB in [0, 1]."""
    std: tuple[float, float, float]
    """Standard deviation of the training images, by which RGB is then divided."""
    pooling: str
    """How maps or tokens become one vector, in words."""
    licence: str
    """Licence of the weights."""
    gated: bool
    """Whether access to the weights has to be requested."""
    paper: str
    """The publication that describes it."""
    needs_weights: bool
    """Whether a file of weights is required."""
    revision: int = 1
    """Revision of the computation; features of different revisions cannot be compared."""
    text: bool = False
    """Whether there is a text tower, which maps sentences to the same feature space."""
    blocks: bool = False
    """Whether the network is a :class:`~napari_pbip.models.encoders.base.VisionTransformer`."""
    stages: bool = False
    """Whether the network is a :class:`~napari_pbip.models.encoders.base.StageNetwork`."""
    dense_stride: int | None = None
    """Side in pixels of a cell of the dense features; None if there are none, or if it depends on the weights."""
    hub: str | None = None
    """Repository of the Hugging Face hub from which its weights can be fetched."""
    page: str | None = None
    """Web page that offers the weights, if they are on no hub."""
    megabytes: int | None = None
    """Size of the weights in 10^6 bytes."""
    network: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Options of the network, named as in the library that builds it."""

    @property
    def dense(self) -> bool:
        """Whether the encoder has dense features (:meth:`~napari_pbip.models.encoders.base.Encoder.dense`)."""
        return self.blocks or self.stages

    @property
    def dense_mpp(self) -> float | None:
        """Side in microns of a cell of the dense features; None if it is not fixed, because :attr:`mpp` is not."""
        return None if self.dense_stride is None or self.mpp is None else self.dense_stride * self.mpp

    @property
    def may_have_text(self) -> bool:
        """Whether the encoder has a text tower, or may have one, depending on the weights."""
        return self.text or (self.blocks and self.dimension is None)
