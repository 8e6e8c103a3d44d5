"""Files with weights of networks. Only safetensors is read, because a pickle can run code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_pbip.errors import WeightsUnavailable

if TYPE_CHECKING:
    import torch

PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".pkl")
"""Suffixes of files that are refused, because they can run code when they are read."""


def safetensors_file(path: Path, of: str, setting: str, hint: str) -> Path:
    """Return the safetensors file of a path: the file itself, or ``model.safetensors`` or the only one in a folder.

    Parameters
    ----------
    path
        File or folder.
    of
        The network, for the error.
    setting
        The setting that names the path, for the error.
    hint
        What to do if there are no weights: the end of the error's sentence.

    Raises
    ------
    WeightsUnavailable
        If there is no such file, or several, or the file has another format.
    """
    if path.is_file():
        if path.suffix in PICKLES:
            raise pickled(path)
        if path.suffix != ".safetensors":
            raise WeightsUnavailable(f"{path} is no safetensors file; give the one with the weights of {of}.")
        return path
    files = sorted(path.iterdir()) if path.is_dir() else []
    candidates = [p for p in files if p.suffix == ".safetensors"]
    preferred = [p for p in candidates if p.name == "model.safetensors"] or candidates
    if len(preferred) > 1:
        raise WeightsUnavailable(f"{path} holds {len(candidates)} safetensors files; point {setting} to one of them.")
    if not preferred:
        if pickle := next((p for p in files if p.suffix in PICKLES), None):
            raise pickled(pickle)
        raise WeightsUnavailable(f"There are no weights of {of} at {path}; {hint}.")
    return preferred[0]


def pickled(path: Path) -> WeightsUnavailable:
    """Return the error for a file that is refused because it can run code."""
    return WeightsUnavailable(
        f"{path} is a PyTorch pickle, which can run code when it is read; convert it once to a model.safetensors "
        "beside it, as *Where weights come from* in the documentation shows."
    )


def read(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a safetensors file by name.

    Raises
    ------
    WeightsUnavailable
        If the file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file  # here, because the window uses this module without loading torch

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsUnavailable(f"The weights {path} cannot be read; the file is damaged: fetch it again.") from error
