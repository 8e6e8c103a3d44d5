"""The file with the weights of a network that lies on this machine. Only safetensors: pickles can run code."""

from __future__ import annotations

from pathlib import Path

from napari_pbip.errors import WeightsUnavailable

PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".pkl")
"""Files that can run code when they are read, so they are not."""


def safetensors_file(path: Path, *, of: str, setting: str, section: str, otherwise: str) -> Path:
    """The safetensors file that a path names: itself, or the ``model.safetensors`` or only such file of a folder.

    Parameters
    ----------
    path
        File or folder.
    of
        What the weights are of, for the error.
    setting
        The setting that names the path, for the error.
    section
        Where docs/methods.md shows how to convert a pickle, for the error.
    otherwise
        What to do where there are no weights; the end of a sentence.

    Raises
    ------
    WeightsUnavailable
        If there is none, there are several, or the file is of another kind.
    """
    if path.is_file():
        if path.suffix in PICKLES:
            raise pickled(path, section)
        if path.suffix != ".safetensors":
            raise WeightsUnavailable(f"{path} is no safetensors file; give the one with the weights of {of}.")
        return path
    files = sorted(path.iterdir()) if path.is_dir() else []
    found = [p for p in files if p.suffix == ".safetensors"]
    preferred = [p for p in found if p.name == "model.safetensors"] or found
    if len(preferred) > 1:
        raise WeightsUnavailable(f"{path} holds {len(found)} safetensors files; point {setting} to one of them.")
    if not preferred:
        if pickle := next((p for p in files if p.suffix in PICKLES), None):
            raise pickled(pickle, section)
        raise WeightsUnavailable(f"There are no weights of {of} at {path}; {otherwise}.")
    return preferred[0]


def pickled(path: Path, section: str) -> WeightsUnavailable:
    """The error for a file that is refused."""
    return WeightsUnavailable(
        f"{path} is a PyTorch pickle, which can run code when it is read; convert it once to a model.safetensors "
        f"beside it, as docs/methods.md shows under {section}."
    )
