"""The job that fetches the weights of an encoder from the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path

from napari_pbip.engine.hub import FAULTS, HubFile, disk_fault, fault, fetching, files_of
from napari_pbip.engine.jobs import job
from napari_pbip.errors import WeightsUnavailable
from napari_pbip.events import Finished, Job, Started, Warned
from napari_pbip.models.encoders import find_weights, lookup
from napari_pbip.models.encoders.weights import FOLDER_VARIABLE, how_to_get
from napari_pbip.models.weight_files import pickled

_PICKLE = "pytorch_model.bin"
_FACTS = frozenset(
    {
        *("config.json", "preprocessor_config.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"),
    }
)


@job
def fetch_weights(name: str) -> Job:
    """Fetch the weights of an encoder of the catalogue.

    They are saved in the encoder's folder below ``NAPARI_PBIP_WEIGHTS`` if that is set, else in the Hugging Face cache.
    The token is that of ``hf auth login`` or ``HF_TOKEN``. A cancelled download can be continued.

    Parameters
    ----------
    name
        Name of the encoder in the catalogue.

    Yields
    ------
    Event
        ``Started``; ``Step`` in regular intervals (in megabytes); ``Warned`` if there is only a pickle, which has to be
        converted by hand; ``Finished`` with the folder, and whether the encoder can be loaded from it.

    Raises
    ------
    ConfigError
        If no encoder has this name.
    WeightsUnavailable
        If its weights are not on the hub, access was not granted, offline mode is on, or the hub cannot be reached.
    OutputError
        If the files cannot be written or the disk is full.
    """
    spec = lookup(name)
    if not spec.needs_weights:
        raise WeightsUnavailable(f"The encoder {name!r} needs no weights; there is nothing to fetch.")
    if spec.hub is None:
        raise WeightsUnavailable(f"The weights of {name!r} are on no hub: {how_to_get(spec)}.")
    if folder := find_weights(spec):
        yield Started(f"Weights of {name}", total=1, unit="files", done=1)
        yield Finished(folder, {"encoder": name, "folder": str(folder), "ready": True})
        return
    root = os.environ.get(FOLDER_VARIABLE)
    place = Path(root).expanduser() / spec.name if root else None
    try:
        files = _wanted(spec.hub)
        if not files:
            raise WeightsUnavailable(f"{spec.hub} holds no weights any more; {how_to_get(spec)}.")
        folder = yield from fetching(spec.hub, files, f"Fetching {spec.hub} ({spec.licence})", place)
    except FAULTS as error:
        if disk := disk_fault(error, place or Path(FOLDER_VARIABLE)):
            raise disk from error
        raise WeightsUnavailable(f"{fault(spec.hub, error)}, or fetch the files by hand.") from error
    ready = any(folder.glob("*.safetensors"))
    if not ready:
        yield Warned(str(pickled(folder / _PICKLE)))
    yield Finished(folder, {"encoder": name, "folder": str(folder), "ready": ready})


def _wanted(hub: str) -> tuple[HubFile, ...]:
    """Return the files of a repository that an encoder needs: its configuration, and safetensors or else the pickle."""
    files = [file for file in files_of(hub) if "/" not in file.name]
    weights = [f for f in files if f.name.startswith("model") and ".safetensors" in f.name]
    weights = weights or [f for f in files if f.name == _PICKLE]
    return (*(f for f in files if f.name in _FACTS), *weights)
