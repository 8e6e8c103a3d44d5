"""The job that copies results from an object store to this machine, to read them there.

```text
CACHE/downloads/
  <end of the address>-<hash of the address>/
    copy.json       the files of the copy: size, and a text of the store that changes with the content
    results/        the files, named as at the address
```

A file that has not changed since it was copied is not copied again. Nothing that was made here is in these folders, so
that they can be deleted at any time. Together they are of limited size: before another copy is made, those are deleted
that were fetched least recently, unless a process that fetched one still runs, because it may read it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path

from napari_pbip.claims import claim, is_read, keep_for_reading
from napari_pbip.engine.cache_limit import Cached, keep_within
from napari_pbip.engine.jobs import job
from napari_pbip.engine.object_store import ObjectStore, StoredFile, place_for
from napari_pbip.errors import OutputError
from napari_pbip.events import Finished, Job, Started, Step
from napari_pbip.files import write_json
from napari_pbip.results.places import FURTHER_MAPS, REGIONS, files_of_results

_DOWNLOADS = "downloads"
"""Folder in the user's cache folder."""
_RECORD, _RESULTS = "copy.json", "results"
LIMIT = 20 << 30
"""Bytes of all copies at most, unless more are in use."""


@job
def fetch_results(address: str) -> Job:
    """Copy the results at an address to this machine, or bring an earlier copy of them up to date.

    Only complete results are copied, and what lies beside them: regions, areas, picture. The copy is in the user's
    cache folder, and is not deleted before this process ends. Copies that were fetched earlier are deleted, the oldest
    first, when all together would exceed 20 GiB.

    Parameters
    ----------
    address
        Address of a score store, such as ``s3://bucket/results/slide.ome.zarr``, or of a folder with results at any
        depth.

    Yields
    ------
    Event
        ``Started`` and ``Step``, in files; ``Finished`` with the store or folder on this machine, ``folder`` in its
        summary.

    Raises
    ------
    OutputError
        If there is no result, the address cannot be read, the results change meanwhile, or the disk is full.
    """
    address = address.rstrip("/")
    above, within = _parts(address)
    remote = ObjectStore(above)
    there = remote.files(within)
    if within and (regions := remote.file(REGIONS)) is not None:
        there[REGIONS] = regions  # by which the cells of the store count
    files = {name: there[name] for name in files_of_results(there)}
    if not files:
        raise OutputError(f"There is no result at {address}; name a <slide>.ome.zarr that `segment` uploaded.")
    place = place_for(address, _DOWNLOADS)
    with claim(place, "fetching results"):
        keep_for_reading(place)
        _make_room(place, sum(file.size for file in files.values()))
        yield from _copying(remote, files, place)
        remote.check_unchanged(files, within)
    folder = place / _RESULTS / within
    yield Finished(folder, {"folder": str(folder)})


def _make_room(place: Path, size: int) -> None:
    """Delete the copies that were fetched least recently if, with a new one of that size, they exceed the limit."""
    others = [_cached(other) for other in place.parent.iterdir() if other != place and other.is_dir()]
    keep_within(LIMIT - size, others, _delete)


def _cached(place: Path) -> Cached:
    size, used = 0, 0.0
    for path in place.rglob("*"):
        with suppress(OSError):  # another process may have deleted it
            facts = path.stat()
            size += facts.st_size
            if path == place / _RECORD:  # which is written whenever the copy is fetched
                used = facts.st_mtime
    return Cached(place, size, used)


def _delete(place: Path) -> bool:
    """Delete a copy, unless it is being made or read."""
    try:
        with claim(place, "deleting a copy that was not used for long"):
            if is_read(place):
                return False
            (place / _RECORD).unlink(missing_ok=True)
            shutil.rmtree(place / _RESULTS, ignore_errors=True)
    except (OSError, OutputError):
        return False
    with suppress(OSError):  # another process has claimed it meanwhile
        place.rmdir()
    return True


def _parts(address: str) -> tuple[str, str]:
    """Return the address of a slide's folder, and what lies within that: a score store, or a further map.

    Of the address of a folder of results it is all, and an empty text.
    """
    slide, further, map_ = f"{address}/".rpartition(f"/{FURTHER_MAPS}/")
    if further:
        return slide, f"{FURTHER_MAPS}/{map_}".rstrip("/")
    folder, _, store = address.rpartition("/")
    return (folder, store) if store.endswith(".ome.zarr") else (address, "")


def _copying(remote: ObjectStore, files: Mapping[str, StoredFile], place: Path) -> Job:
    """Copy the files that are not here or have changed, and delete the others of the copy."""
    folder, record = place / _RESULTS, place / _RECORD
    known = _read(record)
    held = {name: file for name, file in files.items() if known.get(name) == file and file.tag}
    held = {name: file for name, file in held.items() if _size(folder / name) == file.size}
    yield Started(f"Fetching {remote.address}", total=len(files), unit="files", done=len(held))
    _write(record, held)  # first, so that no file that is being replaced is taken for one of before
    for name in known.keys() - files.keys():
        (folder / name).unlink(missing_ok=True)
    try:
        for names in remote.fetching({name: files[name] for name in files.keys() - held.keys()}, folder):
            held |= {name: files[name] for name in names}
            yield Step(len(held))
    finally:
        _write(record, held)


def _read(record: Path) -> dict[str, StoredFile]:
    with suppress(OSError, ValueError, TypeError):
        return {name: StoredFile(*values) for name, values in json.loads(record.read_text(encoding="utf-8")).items()}
    return {}


def _write(record: Path, files: Mapping[str, StoredFile]) -> None:
    write_json(record, {name: astuple(file) for name, file in files.items()})


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
