"""The file with a backbone's weights: which one it is, and what is in it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from napari_pbip.errors import ModelError, WeightsUnavailable
from napari_pbip.models.backbones.catalogue import BackboneSpec


def weights_file(path: Path, spec: BackboneSpec) -> Path:
    """The safetensors file that a path names: itself, or the ``model.safetensors`` or only such file of a folder.

    Raises
    ------
    WeightsUnavailable
        If there is none, there are several, or the file is of another kind. Pickles (``.pth``, ``.bin``) can run
        code when they are read, so they are not.
    """
    if path.is_file() and path.suffix != ".safetensors":
        raise WeightsUnavailable(
            f"{path.name} is no safetensors file, and other formats can run code when they are read; convert it once, "
            "as docs/methods.md shows under Backbones."
        )
    found = [path] if path.is_file() else sorted(path.glob("*.safetensors")) if path.is_dir() else []
    preferred = [p for p in found if p.name == "model.safetensors"] or found
    if len(preferred) > 1:
        raise WeightsUnavailable(f"{path} holds {len(found)} safetensors files; point backbone.weights to one of them.")
    if not preferred:
        raise WeightsUnavailable(
            f"There are no weights of {spec.name} at {path}; put its safetensors file there ({spec.hub}, "
            f"{spec.licence}), point backbone.weights to it, or leave backbone.weights out to train from scratch."
        )
    return preferred[0]


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
