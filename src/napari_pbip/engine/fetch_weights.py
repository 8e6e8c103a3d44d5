"""Fetch the weights of an encoder from the Hugging Face hub: only this job downloads, and only when it is asked to."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled
from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]  # whatever it speaks through
from huggingface_hub.utils.tqdm import tqdm

from napari_pbip.engine.jobs import job
from napari_pbip.errors import PbipError, WeightsUnavailable
from napari_pbip.events import Finished, Job, Started, Step, Warned
from napari_pbip.files import output_error
from napari_pbip.models.encoders import EncoderSpec, find_weights, lookup
from napari_pbip.models.encoders.weights import FOLDER_VARIABLE, how_to_get
from napari_pbip.models.weight_files import pickled

_PICKLE = "pytorch_model.bin"
_FACTS = frozenset(
    {
        *("config.json", "preprocessor_config.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"),
    }
)
_MEGABYTE = 10**6
TICK_SECONDS = 0.25


@job
def fetch_weights(name: str) -> Job:
    """Fetch the weights of an encoder of the catalogue.

    They go to the encoder's folder below ``NAPARI_PBIP_WEIGHTS`` if that is set, else to the Hugging Face cache. The
    token is that of ``hf auth login`` or ``HF_TOKEN``. What was fetched of a cancelled download is kept, and
    fetching goes on from there.

    Parameters
    ----------
    name
        Its name in the catalogue.

    Yields
    ------
    Event
        ``Started``, a ``Step`` every so often (megabytes), ``Warned`` if there is only a pickle, which has to be
        converted by hand, and ``Finished`` with the folder, and whether the encoder can be loaded from it.

    Raises
    ------
    ConfigError
        If no encoder has that name.
    WeightsUnavailable
        If it has none on the hub, access was not granted, offline mode is on, or the hub cannot be reached.
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
    try:
        files = _wanted(spec.hub)
        total = sum(file.size for file in files)
        yield Started(f"Fetching {spec.hub} ({spec.licence})", total=_megabytes(total), unit="MB")
        progress = _Progress()
        with ThreadPoolExecutor(1, thread_name_prefix="napari-pbip-fetch") as pool:
            download = pool.submit(_download, spec, files, progress)
            try:
                for received in _watch(download, progress):
                    yield Step(_megabytes(min(received, total)))
            finally:
                progress.stop()
            folder = download.result()
    except (TransportError, OSError) as error:
        raise _explained(spec, error) from error
    yield Step(_megabytes(total))
    ready = any(folder.glob("*.safetensors"))
    if not ready:
        yield Warned(str(pickled(folder / _PICKLE)))
    yield Finished(folder, {"encoder": name, "folder": str(folder), "ready": ready})


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    size: int


def _wanted(hub: str) -> tuple[_File, ...]:
    """Files of a repository that an encoder needs: safetensors if there are any, else the pickle; and the facts."""
    siblings = HfApi().model_info(hub, files_metadata=True).siblings or ()
    files = [_File(s.rfilename, s.size or 0) for s in siblings if "/" not in s.rfilename]
    weights = [f for f in files if f.name.startswith("model") and ".safetensors" in f.name]
    weights = weights or [f for f in files if f.name == _PICKLE]
    return (*(f for f in files if f.name in _FACTS), *weights)


class _Progress:
    """How much was received so far; once stopped, the download ends at its next piece."""

    def __init__(self) -> None:
        self.received = 0
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def bar(self) -> type[tqdm]:
        """What the library reports to; it draws nothing."""
        progress = self

        class Bar(tqdm):
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]
                progress.received += options.get("initial", 0)

            def update(self, n: float | None = 1) -> None:
                if progress._stopped.is_set():
                    raise _Stopped
                progress.received += int(n or 0)

        return Bar


class _Stopped(PbipError):
    """The user cancelled; there is no message."""


def _download(spec: EncoderSpec, files: Sequence[_File], progress: _Progress) -> Path:
    """Fetch files one after the other; returns the folder they lie in."""
    root = os.environ.get(FOLDER_VARIABLE)
    place = Path(root).expanduser() / spec.name if root else None
    folder = place
    for file in files:
        path = HfApi().hf_hub_download(spec.hub or "", file.name, local_dir=place, tqdm_class=progress.bar())
        folder = Path(path).parent
    if folder is None:
        raise WeightsUnavailable(f"{spec.hub} holds no weights any more; {how_to_get(spec)}.")
    return folder


def _watch(download: Future[Path], progress: _Progress) -> Iterator[int]:
    """Bytes received so far, every so often until the download ends."""
    while not download.done():
        time.sleep(TICK_SECONDS)
        yield progress.received


def _megabytes(count: int) -> int:
    return -(-count // _MEGABYTE)


def _explained(spec: EncoderSpec, error: Exception) -> PbipError:
    page = f"https://huggingface.co/{spec.hub}"
    if isinstance(error, OfflineModeIsEnabled):
        return WeightsUnavailable(f"Offline mode is on (HF_HUB_OFFLINE), so {spec.hub} is not fetched; switch it off.")
    if isinstance(error, GatedRepoError):
        return WeightsUnavailable(
            f"You have no access to {spec.hub} yet; ask for it at {page}, then log in with `hf auth login` or set "
            "HF_TOKEN."
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return output_error(Path(error.filename or FOLDER_VARIABLE), error)
    reason = " ".join(str(error).split())[:150]
    return WeightsUnavailable(f"{page} cannot be reached ({reason}); try again later, or fetch the files by hand.")
