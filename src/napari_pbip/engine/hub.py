"""The Hugging Face hub: listing and fetching files of a repository, and what went wrong, as a sentence."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]  # whatever it speaks through
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    tqdm,
)

from napari_pbip.errors import PbipError
from napari_pbip.events import Event, Started, Step
from napari_pbip.files import output_error

FAULTS = (TransportError, OSError, HFValidationError)
"""What the library raises if something is wrong with a request, the network or the disk."""
_MEGABYTE = 10**6
TICK_SECONDS = 0.25
_UNAUTHORISED, _FORBIDDEN, _NOT_FOUND = 401, 403, 404


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository."""

    name: str
    """Path in the repository."""
    size: int
    """Bytes."""


def page(repository: str) -> str:
    """Return the address of a repository's page."""
    return f"{constants.ENDPOINT}/{repository}"


def files_of(repository: str) -> tuple[HubFile, ...]:
    """Return the files of a repository; raises :data:`FAULTS`."""
    siblings = HfApi().model_info(repository, files_metadata=True).siblings or ()
    return tuple(HubFile(one.rfilename, one.size or 0) for one in siblings)


def fetching(
    repository: str, files: Sequence[HubFile], title: str, place: Path | None = None
) -> Generator[Event, None, Path]:
    """Fetch files of a repository one after the other; a download that was stopped can be continued.

    Parameters
    ----------
    repository
        Name of the repository.
    files
        At least one file, all in the same folder of the repository.
    title
        What the progress is of.
    place
        The folder to write; by default the library's cache.

    Yields
    ------
    Event
        ``Started``, and ``Step`` in regular intervals, in megabytes.

    Returns
    -------
    Path
        The folder with the files.

    Raises
    ------
    FAULTS
        Whatever the library raises.
    """
    total, progress = sum(file.size for file in files), _Progress()

    def download() -> Path:
        paths = [
            HfApi().hf_hub_download(repository, file.name, local_dir=place, tqdm_class=progress.bar()) for file in files
        ]
        return Path(paths[-1]).parent

    yield Started(title, total=_megabytes(total), unit="MB")
    with ThreadPoolExecutor(1, thread_name_prefix="napari-pbip-fetch") as pool:
        running: Future[Path] = pool.submit(download)
        try:
            while not running.done():
                time.sleep(TICK_SECONDS)
                yield Step(_megabytes(min(progress.received, total)))
        finally:
            progress.stop()
        folder = running.result()
    yield Step(_megabytes(total))
    return folder


@contextmanager
def no_bars() -> Iterator[None]:
    """Let the library draw no progress bars of its own meanwhile."""
    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def fault(repository: str, error: BaseException) -> str:
    """Return what is wrong, and what to do about it, as a sentence without its end: a full stop, or more to do."""
    if isinstance(error, HFValidationError):
        return f"{repository!r} is no name of a repository; give OWNER/NAME, such as jane/skin"
    if isinstance(error, OfflineModeIsEnabled):
        return f"Offline mode is on (HF_HUB_OFFLINE), so {repository} cannot be reached; switch it off"
    if isinstance(error, GatedRepoError):
        return (
            f"You have no access to {repository} yet; ask for it at {page(repository)}, then log in with "
            "`hf auth login` or set HF_TOKEN"
        )
    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None
    if isinstance(error, LocalTokenNotFoundError) or status == _UNAUTHORISED:
        return (
            f"{repository} needs a login, or does not exist; check its name, and log in with `hf auth login` or set "
            "HF_TOKEN"
        )
    if status == _FORBIDDEN:
        return f"You may not do this with {repository}; name a repository of yours, or use a token that may write"
    if status == _NOT_FOUND:
        return f"There is no repository {repository}, or you have no access to it; check its name"
    reason = " ".join(str(error).split())[:150]
    return f"{page(repository)} cannot be reached ({reason}); try again later"


def disk_fault(error: Exception, place: Path) -> PbipError | None:
    """Return the error if the disk is full or cannot be written, or None if it is another one."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return output_error(Path(error.filename or place), error)
    return None


class _Progress:
    """Counts received bytes; after :meth:`stop`, the download ends at its next chunk."""

    def __init__(self) -> None:
        self.received = 0
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def bar(self) -> type[tqdm]:
        """Return the class of progress bars that the library reports to; they draw nothing."""
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
    """The user has cancelled the download; it has no message."""


def _megabytes(count: int) -> int:
    return -(-count // _MEGABYTE)
