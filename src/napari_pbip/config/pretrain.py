"""The settings of pre-training on unlabelled slides and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from napari_pbip.config.base import Positive, Settings, Weight
from napari_pbip.config.job import BackboneSettings, TissueSettings


class PretrainSettings(Settings):
    """How a backbone is pre-trained on unlabelled tissue."""

    images: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Slides, pictures, and folders of them, sub-folders included."""
    image_mpp: Positive | None = None
    """Microns per pixel of the images whose files do not contain them."""
    mpp: Positive = 0.5
    """Microns per pixel of the training; those of a crop are half to twice as much, but not less than scanned."""
    crop: Annotated[int, Field(ge=64, multiple_of=32)] = 128
    """Side of the crops in pixels."""
    backbone: BackboneSettings = BackboneSettings()
    """The network and its initial weights."""
    steps: Annotated[int, Field(ge=1)] = 10_000
    """Optimiser steps."""
    batch_size: Annotated[int, Field(ge=2)] = 32
    """Crops per step."""
    learning_rate: Positive = 5e-4
    """Peak learning rate of AdamW."""
    weight_decay: Weight = 0.05
    """Weight decay of AdamW."""
    hidden: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Share of a crop that is masked with black for the network that is trained."""
    encoder_tiles: Annotated[int, Field(ge=16, multiple_of=16)] = 768
    """Number of tiles to which the map from the backbone's features to those of the encoder is fitted at the end."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of initial weights, crops and augmentation."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the networks; auto is bfloat16 where the device computes it natively."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto for the best available one."""
    tissue: TissueSettings = TissueSettings()
    """How tissue is found on slides."""
