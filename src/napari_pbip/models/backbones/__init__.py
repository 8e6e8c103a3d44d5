"""Trainable pyramid networks: a catalogue of them, and one module for each family."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from napari_pbip.errors import ConfigError
from napari_pbip.models import builtin
from napari_pbip.models.backbones.base import Backbone, Features, Pyramid, load_weights
from napari_pbip.models.backbones.catalogue import BackboneSpec, catalogue
from napari_pbip.models.weight_files import read, safetensors_file

__all__ = ["Backbone", "BackboneSpec", "Features", "Pyramid", "catalogue", "load", "load_weights"]


def load(name: str, weights: Path | Literal["builtin"] | None = None) -> Backbone:
    """Return a backbone, randomly initialised from torch's current random state or with pretrained weights.

    Nothing is ever downloaded.

    Parameters
    ----------
    name
        Name of the backbone in the catalogue.
    weights
        Safetensors file with the weights of this backbone, for example from ImageNet, or a folder that contains one,
        in one of the layouts of its row or as a model of one of our runs. Classification and segmentation heads in the
        file are ignored. ``builtin`` means the weights that are installed with the package.

    Raises
    ------
    ConfigError
        If no backbone has that name.
    WeightsUnavailable
        If the safetensors file does not exist or cannot be read, or the package has no weights of this backbone.
    ModelError
        If the file contains the weights of another network.
    """
    spec = catalogue().get(name)
    if spec is None:
        raise ConfigError(f"There is no backbone {name!r}; choose one of {', '.join(catalogue())}.")
    backbone = Backbone(spec)
    if weights is not None:
        hint = (
            f"put its safetensors file there ({spec.hub}, {spec.licence}), point `backbone.weights` to it, or leave "
            "`backbone.weights` empty to train from scratch"
        )
        if weights == "builtin":
            load_weights(backbone, builtin.read(name), builtin.PACKAGE)
        else:
            path = safetensors_file(weights, name, "`backbone.weights`", hint)
            load_weights(backbone, read(path), str(path))
    return backbone
