"""Finding the weights of encoders on this machine. Nothing here reads or downloads them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from napari_pbip.errors import WeightsUnavailable
from napari_pbip.models import weight_files
from napari_pbip.models.encoders.spec import EncoderSpec

FOLDER_VARIABLE = "NAPARI_PBIP_WEIGHTS"
"""Environment variable with a folder that holds a folder for each encoder, by its name."""


def find(spec: EncoderSpec) -> Path | None:
    """The folder on this machine with an encoder's weights, None if there is none.

    Looked for in the folder of :data:`FOLDER_VARIABLE`, then in the Hugging Face cache (where that lies is
    decided by ``HF_HOME`` and ``HF_HUB_CACHE``).
    """
    return next((folder for folder in _places(spec) if any(folder.glob("*.safetensors"))), None)


def require(spec: EncoderSpec, given: Path | None) -> Path:
    """The folder or file with an encoder's weights.

    Parameters
    ----------
    spec
        The encoder.
    given
        The place in the settings; if there is none, they are searched for.

    Raises
    ------
    WeightsUnavailable
        If they are not found, or only as a pickle.
    """
    if given is not None:
        return given
    folder = find(spec)
    if folder is None:
        for place in _places(spec):
            safetensors_file(place, spec)  # says why not
        raise WeightsUnavailable(f"The weights of {spec.name!r} are not on this machine; {how_to_get(spec)}.")
    return folder


def safetensors_file(path: Path, spec: EncoderSpec) -> Path:
    """The safetensors file that a path names, as :func:`napari_pbip.models.weight_files.safetensors_file`."""
    return weight_files.safetensors_file(path, repr(spec.name), "`bank.weights`", how_to_get(spec))


def how_to_get(spec: EncoderSpec) -> str:
    """How to get the weights, with source, size and licence, and where to put them by hand; the end of a sentence."""
    root = os.environ.get(FOLDER_VARIABLE)
    place = Path(root) / spec.name if root else f"a folder {spec.name} in the folder that {FOLDER_VARIABLE} names"
    by_hand = f"put model.safetensors into {place}, or name its folder with `bank.weights`"
    if spec.hub is None and spec.page is None:
        return "name the folder of the weights with `bank.weights`"
    size = f"{spec.megabytes} MB, licence: {spec.licence}"
    if spec.hub is None:
        return f"get them from {spec.page} ({size}), and {by_hand}"
    gate = f"; ask for access at https://huggingface.co/{spec.hub} first" if spec.gated else ""
    return f"run `napari-pbip encoders fetch {spec.name}` to fetch {spec.hub} ({size}{gate}), or {by_hand}"


def _places(spec: EncoderSpec) -> Iterator[Path]:
    """Existing folders that may hold the weights, in order of precedence."""
    if root := os.environ.get(FOLDER_VARIABLE):
        folder = Path(root).expanduser() / spec.name
        if folder.is_dir():
            yield folder
    if spec.hub is not None and (snapshot := _cached(spec.hub)) is not None:
        yield snapshot


def _cached(hub: str) -> Path | None:
    """Folder of a repository's current snapshot in the Hugging Face cache, complete or not."""
    from huggingface_hub import try_to_load_from_cache

    for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"):
        path = try_to_load_from_cache(hub, name)
        if isinstance(path, str):
            return Path(path).parent
    return None
