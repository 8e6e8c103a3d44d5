"""The catalogue of encoders: one row each. Factories are named, not imported, so reading it costs nothing."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from napari_pbip.errors import ConfigError, WeightsUnavailable

if TYPE_CHECKING:
    from napari_pbip.models.encoders.base import Encoder


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


_HERE = "napari_pbip.models.encoders"
_ZERO, _ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

_ROWS = (
    EncoderSpec(
        name="texture",
        title="Stain and texture statistics, without weights",
        factory=f"{_HERE}.texture:build",
        dimension=64,
        input_size=None,
        mpp=0.5,
        mean=_ZERO,
        std=_ONE,
        pooling="mean and deviation over the tissue",
        licence="BSD-3-Clause",
        gated=False,
        paper="Kather et al. 2016, Scientific Reports 6:27988",
        needs_weights=False,
    ),
    EncoderSpec(
        name="tiny",
        title="A small convolutional network with random weights, for tests",
        factory=f"{_HERE}.tiny:build",
        dimension=32,
        input_size=64,
        mpp=None,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        pooling="mean over positions",
        licence="BSD-3-Clause",
        gated=False,
        paper="none",
        needs_weights=False,
    ),
    EncoderSpec(
        name="transformers",
        title="Any vision transformer of a local folder in the Hugging Face layout",
        factory=f"{_HERE}.transformers_folder:build",
        dimension=None,
        input_size=None,
        mpp=None,
        mean=_ZERO,
        std=_ONE,
        pooling="as the network was trained",
        licence="that of the weights",
        gated=False,
        paper="that of the weights",
        needs_weights=True,
    ),
)


def catalogue() -> Mapping[str, EncoderSpec]:
    """Facts of all encoders, by name."""
    return MappingProxyType({row.name: row for row in _ROWS})


def load(name: str, weights: Path | None = None) -> Encoder:
    """An encoder, ready to use. Nothing is ever downloaded.

    Parameters
    ----------
    name
        Its name in the catalogue.
    weights
        Folder or file with its weights, for encoders that need them.

    Raises
    ------
    ConfigError
        If no encoder has that name, or weights are given to one that takes none.
    WeightsUnavailable
        If it needs weights and they are not given, not there, damaged or incomplete.
    """
    try:
        spec = catalogue()[name]
    except KeyError:
        raise ConfigError(f"There is no encoder {name!r}; there are {', '.join(catalogue())}.") from None
    if spec.needs_weights and weights is None:
        raise WeightsUnavailable(f"The encoder {name!r} needs weights; name their folder with bank.weights.")
    if weights is not None and not spec.needs_weights:
        raise ConfigError(f"The encoder {name!r} takes no weights; leave bank.weights out.")
    module, _, function = spec.factory.partition(":")
    encoder: Encoder = getattr(importlib.import_module(module), function)(spec, weights)
    return encoder
