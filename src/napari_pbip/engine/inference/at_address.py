"""Results of a slide at an address of an object store: made in a folder of this machine, and uploaded when finished.

A store cannot be written in place there: an object store has no locks, and files that grow would be uploaded again and
again. The folder of this machine is deleted when all of it is at the address, and else kept, so that a job that was
stopped, or whose upload failed, is resumed as one without an address. Two machines may make results of a slide for the
same address, of which the second one to upload finds those of the first, and keeps its own if they differ.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Protocol

from napari_pbip.claims import claim
from napari_pbip.config import ThresholdSettings
from napari_pbip.engine.jobs import phase
from napari_pbip.engine.object_store import ObjectStore, StoredFile, place_for
from napari_pbip.errors import OtherResult, OutputError, UnreadableResult
from napari_pbip.events import Event, Finished, Job, Started, Step
from napari_pbip.files import write_json, writing_folder
from napari_pbip.results.corrections import FOLDER as CORRECTIONS
from napari_pbip.results.label_files import FOLDER as LABELS
from napari_pbip.results.label_files import recorded_settings
from napari_pbip.results.label_image import OURS
from napari_pbip.results.places import (
    DESCRIPTION,
    REGIONS,
    complete_stores,
    files_of_results,
    stores_in,
)
from napari_pbip.results.store_facts import StoreFacts, parse_facts

_UPLOADS = "uploads"
"""Folder in the user's cache folder."""
_RESULT = "result"
"""Folder of the results, in the one that is claimed while they are made."""
_BEFORE = "there-before.json"
"""File beside it, with the results that were at the address when it was begun."""


@dataclass(frozen=True, slots=True)
class FoundResult:
    """A finished result at an address."""

    path: str
    """Address of the score store."""
    facts: StoreFacts
    thresholds: ThresholdSettings
    """Those of the labels."""
    refined: bool
    """Whether a dense CRF refined the labels."""


class Make(Protocol):
    """Makes the job that writes the results into a folder of this machine."""

    def __call__(self, folder: Path, *, resume: bool, overwrite: bool) -> Job: ...


def at_address(
    address: str,
    make: Make,
    would_change: Callable[[FoundResult], bool],
    *,
    scratch: Path | str | None,
    resume: bool,
    overwrite: bool,
) -> Generator[Event, None, None]:
    """Make the results of a slide, and upload them; this is a part of the job :func:`segment`.

    Parameters
    ----------
    address
        Address of the folder of results.
    make
        Makes them in a folder of this machine.
    would_change
        Whether resuming a finished result would change it. It raises OtherResult if it cannot be resumed, and
        OutputError if it is of another slide.
    scratch
        Where that folder is; by default in the user's cache folder.
    resume
        Whether to continue what was begun on this machine, and to leave or continue what is finished at the address.
    overwrite
        Whether to replace what is at the address. With ``resume``, only if it cannot be resumed.

    Yields
    ------
    Event
        Those of the job, of copying, and ``Finished``.

    Raises
    ------
    OutputError
        If there is a result and it is neither resumed nor replaced, another process uploads to the address or has
        uploaded another result since this one was begun, or the address cannot be read or written.
    """
    remote = ObjectStore(address)
    place = place_for(remote.address, _UPLOADS, None if scratch is None else Path(scratch))
    with claim(place, "segmenting"):
        out = place / _RESULT
        there = _of_the_folder(remote.files())
        begun = bool(stores_in(out))
        earlier = [] if begun else complete_stores(there)
        record = place / _BEFORE
        before = _recorded(record) if begun and not overwrite else None
        changes = None
        for store in earlier:
            path = f"{remote.address}/{store}"
            if not (resume or overwrite):
                raise OutputError(
                    f"{path} exists already; use `resume=True` to continue it, `overwrite=True` to replace it, or "
                    "choose another address."
                )
            with suppress(*(OtherResult, UnreadableResult) if overwrite else ()):
                changes = would_change(_found(remote, store))
            if resume and changes is False:
                yield Started(f"Result at {path}", total=1, unit="results", done=1)
                yield Finished(None, {"store": path, "already": True})
                return
        if (resume and changes) or (earlier and any(map(_is_by_hand, there))):
            yield from _fetching(remote, there, out)
        if before is None:
            before = {store: there[f"{store}{DESCRIPTION}"] for store in complete_stores(there)}
            write_json(record, {store: astuple(file) for store, file in before.items()})
        try:
            summary = yield from phase(make(out, resume=resume, overwrite=overwrite))
        finally:
            if not stores_in(out):
                record.unlink(missing_ok=True)
        store = f"{remote.address}/{Path(summary['store']).name}"
        way_out = "`resume=True` goes on with the upload"
        try:
            with remote.alone(place) as everything:
                there = _of_the_folder(everything)
                others = _results_since(there, before)
                if (same := _same(remote, others, would_change)) is not None:
                    store, summary = same, {"already": True}
                elif others:
                    way_out = "`resume=True` with `overwrite=True` puts it in the place of that one"
                    raise OutputError(
                        f"Another process has uploaded {remote.address}/{others[0]} since this one was begun, which is "
                        "another result."
                    )
                else:
                    yield from _uploading(remote, there, out, earlier)
        except OutputError as error:
            raise OutputError(f"{error} What was computed is kept in {out}; {way_out}.") from error
        shutil.rmtree(out, ignore_errors=True)
        record.unlink(missing_ok=True)
    with suppress(OSError):  # another process has claimed it meanwhile
        place.rmdir()
    yield Finished(None, {**summary, "store": store})


def _found(remote: ObjectStore, store: str) -> FoundResult:
    """Read what a finished result says of itself: two small files."""
    path = f"{remote.address}/{store}"
    try:
        facts = json.loads(remote.read(f"{store}{DESCRIPTION}"))["attributes"]["pbip"]
        labels = json.loads(remote.read(f"{store}/{LABELS}{DESCRIPTION}"))["attributes"][OURS]
        thresholds, refined = recorded_settings(labels)
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableResult(
            f"{path} is damaged ({' '.join(str(error).split())})", "use `overwrite=True` to replace it"
        ) from error
    return FoundResult(path, parse_facts(path, facts), thresholds, refined)


def _of_the_folder(files: Mapping[str, StoredFile]) -> dict[str, StoredFile]:
    """Return the files that belong to results in the folder itself, and not to those of another slide in one below."""

    def belongs(name: str) -> bool:
        folder, below, _ = name.partition("/")
        return not below or folder.endswith(".ome.zarr")

    return {name: file for name, file in files.items() if belongs(name)}


def _recorded(record: Path) -> dict[str, StoredFile] | None:
    """Return the results that were at the address when this one was begun, or None if that is not known."""
    with suppress(OSError, ValueError, TypeError, AttributeError):  # an earlier version did not record them
        found = json.loads(record.read_text(encoding="utf-8"))
        return {store: StoredFile(*values) for store, values in found.items()}
    return None


def _results_since(there: Mapping[str, StoredFile], before: Mapping[str, StoredFile]) -> list[str]:
    """Return the stores of the results at the address that were not there before."""
    return [store for store in complete_stores(there) if there[f"{store}{DESCRIPTION}"] != before.get(store)]


def _same(remote: ObjectStore, stores: Collection[str], would_change: Callable[[FoundResult], bool]) -> str | None:
    """Return the address of a result that is the same as this one, or None."""
    for store in stores:
        with suppress(OutputError):  # of another model or slide, or unreadable
            if not would_change(found := _found(remote, store)):
                return found.path
    return None


def _is_by_hand(name: str) -> bool:
    """Return whether a file holds what a person made, which a new result keeps."""
    return name == REGIONS or f"/{CORRECTIONS}/" in name


def _fetching(remote: ObjectStore, there: dict[str, StoredFile], out: Path) -> Generator[Event, None, None]:
    """Copy finished results to this machine, all or nothing."""
    files = {name: there[name] for name in files_of_results(there)}
    yield Started(f"Fetching {remote.address}", total=len(files), unit="files")
    done = 0
    with writing_folder(out) as begun:
        for names in remote.fetching(files, begun):
            done += len(names)
            yield Step(done)
        remote.check_unchanged(files)


def _uploading(
    remote: ObjectStore, there: Collection[str], out: Path, earlier: Collection[str]
) -> Generator[Event, None, None]:
    """Upload results, and delete what is left of earlier ones of the slide there."""
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    names = {name for name in names if not any(part.startswith(".") for part in name.split("/"))}
    stores = complete_stores(names)
    replaced = (name for name in there if name.partition("/")[0] in (*stores, *earlier))
    stale = {name for name in replaced if name not in names and not _is_by_hand(name)}
    last = [f"{store}{DESCRIPTION}" for store in stores]
    yield from remote.uploading(out, names, last=last, stale=stale)
