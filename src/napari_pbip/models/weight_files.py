"""Files with the weights of a network, on this machine. Only safetensors is read: a pickle can run code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_pbip.errors import WeightsUnavailable

if TYPE_CHECKING:
    import torch

PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".pkl")
"""Suffixes of files that are refused, because they can run code when they are read."""


def safetensors_file(path: Path, of: str, setting: str, hint: str) -> Path:
    """The safetensors file that a path names: itself, or the ``model.safetensors`` or only such file of a folder.

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
        If there is none, there are several, or the file is of another kind.
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
    """The error for a file that is refused."""
    return WeightsUnavailable(
        f"{path} is a PyTorch pickle, which can run code when it is read; convert it once to a model.safetensors "
        "beside it, as docs/methods.md shows."
    )


def read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, by name.

    Raises
    ------
    WeightsUnavailable
        If it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file  # here: the window asks for files, and must not load torch for it

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsUnavailable(f"The weights {path} cannot be read; the file is damaged: fetch it again.") from error
