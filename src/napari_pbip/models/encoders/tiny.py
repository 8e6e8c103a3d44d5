"""A small convolutional network for tests, with fixed random weights."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.encoders.spec import EncoderSpec
from napari_pbip.models.seeding import seeded


def build(spec: EncoderSpec, weights: Path | None) -> Encoder:
    """Return an encoder of two strided convolutions and a mean over positions."""
    with seeded(0):
        network = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=4, padding=2),
            nn.GELU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
    return Encoder(spec, network)
