"""How long a training is, how fast it learns, and how often it is validated, where the settings leave it open."""

from __future__ import annotations

import math

from napari_pbip.config import JobSettings, TrainSettings
from napari_pbip.engine.loading import steps_per_epoch
from napari_pbip.models.backbones import Backbone, Pyramid

FEW_STEPS = 200
"""Smallest number of steps in which a network learns something from scratch; an automatic training has at least as
many."""

_EPOCHS = 8
"""Number of epochs of an automatic training on many tiles, and of validations of one on few tiles."""


def planned_steps(settings: TrainSettings, tiles: int) -> int:
    """Return the number of optimiser steps of a training with this number of tiles."""
    if settings.steps is not None:
        return settings.steps
    per_epoch = steps_per_epoch(tiles, settings.batch_size)
    epochs = max(_EPOCHS, math.ceil(FEW_STEPS / per_epoch)) if settings.epochs == "auto" else settings.epochs
    return epochs * per_epoch


def peak_learning_rate(settings: JobSettings, backbone: Pyramid, *, of_earlier_version: bool = False) -> float:
    """Return the peak learning rate for this backbone, which is chosen here if ``train.learning_rate`` is ``auto``.

    A run that an earlier version began goes on with the rate of that version.
    """
    rate = settings.train.learning_rate
    if rate != "auto":
        return rate
    weights = settings.backbone.weights
    if not isinstance(backbone, Backbone):  # the student of ConStruct, of which little is trained
        return 5e-5 if weights else 5e-4
    if weights == "builtin":
        return 5e-4 if of_earlier_version else 1e-3
    # weights from our own trainings have seen few images and may change fast; others have the low rate of the release
    return 5e-5 if weights and not backbone.from_run else 5e-4


def validation_interval(settings: TrainSettings, epochs: int) -> int:
    """Return after how many epochs, of so many in all, a training is validated each time."""
    return max(1, round(epochs / _EPOCHS)) if settings.validate_every == "auto" else settings.validate_every
