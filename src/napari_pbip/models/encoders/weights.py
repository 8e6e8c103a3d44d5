"""Finding the weights of encoders on this machine, without reading or downloading them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from napari_pbip.errors import WeightsUnavailable
from napari_pbip.models import weight_files
from napari_pbip.models.encoders.spec import EncoderSpec

FOLDER_VARIABLE = "NAPARI_PBIP_WEIGHTS"
"""Environment variable that names a folder, in which each encoder has a folder with its name."""


def find(spec: EncoderSpec) -> Path | None:
    """Return the folder on this machine with an encoder's weights, or None.

    The folder of :data:`FOLDER_VARIABLE` is searched first, then the Hugging Face cache (in ``HF_HOME`` or
    ``HF_HUB_CACHE``).
    """
    return next((folder for folder in _places(spec) if any(folder.glob("*.safetensors"))), None)


def require(spec: EncoderSpec, given: Path | None) -> Path:
    """Return the folder or file with an encoder's weights.

    Parameters
    ----------
    spec
        The encoder.
    given
        The path in the settings; without one, the weights are searched for.

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
            safetensors_file(place, spec)  # raises the error with the reason
        raise WeightsUnavailable(f"The weights of {spec.name!r} are not on this machine; {how_to_get(spec)}.")
    return folder


def safetensors_file(path: Path, spec: EncoderSpec) -> Path:
    """Return the safetensors file of a path; see :func:`napari_pbip.models.weight_files.safetensors_file`."""
    return weight_files.safetensors_file(path, repr(spec.name), "`bank.weights`", how_to_get(spec))


def how_to_get(spec: EncoderSpec) -> str:
    """Return the end of a sentence on how to get the weights: source, size, licence, and the folder for them."""
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
    """Yield the existing folders that may contain the weights, in order of precedence."""
    if root := os.environ.get(FOLDER_VARIABLE):
        folder = Path(root).expanduser() / spec.name
        if folder.is_dir():
            yield folder
    if spec.hub is not None and (snapshot := _cached(spec.hub)) is not None:
        yield snapshot


def _cached(hub: str) -> Path | None:
    """Return the folder of a repository's current snapshot in the Hugging Face cache, which may be incomplete."""
    from huggingface_hub import try_to_load_from_cache

    for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"):
        path = try_to_load_from_cache(hub, name)
        if isinstance(path, str):
            return Path(path).parent
    return None
