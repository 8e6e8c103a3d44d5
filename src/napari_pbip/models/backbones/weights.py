"""The file with a backbone's weights: which one it is, and what is in it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from napari_pbip.errors import ModelError
from napari_pbip.models.backbones.catalogue import BackboneSpec
from napari_pbip.models.weight_files import safetensors_file


def weights_file(path: Path, spec: BackboneSpec) -> Path:
    """The safetensors file that a path names: itself, or the ``model.safetensors`` or only such file of a folder.

    Raises
    ------
    WeightsUnavailable
        If there is none, there are several, or the file is of another kind.
    """
    return safetensors_file(
        path,
        of=spec.name,
        setting="backbone.weights",
        section="Backbones",
        otherwise=f"put its safetensors file there ({spec.hub}, {spec.licence}), point backbone.weights to it, or "
        "leave backbone.weights empty to train from scratch",
    )


def read(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file.

    Raises
    ------
    ModelError
        If it cannot be read.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"The weights {path} cannot be read; the file is damaged: fetch it again.") from error
