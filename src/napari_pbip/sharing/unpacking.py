"""Unpacking a model of :mod:`napari_pbip.sharing.packing`, from a file or from the Hugging Face hub."""

from __future__ import annotations

import zipfile
from collections.abc import Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from napari_pbip.engine.hub import FAULTS, disk_fault, fault, fetching, files_of
from napari_pbip.engine.jobs import job
from napari_pbip.engine.run_facts import MARKER
from napari_pbip.errors import ModelError
from napari_pbip.events import Event, Finished, Job, Started, Step
from napari_pbip.files import prepare_folder, writing_folder
from napari_pbip.sharing.packing import (
    CONTENTS,
    LARGEST_TEXT,
    PACKED,
    WEIGHTS,
    Packed,
    Place,
    damaged,
    file_hash,
    no_model,
    read_packed,
)

HUB = "hf://"
"""Beginning of the address of a model on the Hugging Face hub."""
_CHUNK = 1 << 22
Unpacking = Generator[Event, None, Packed]


@job
def unpack(file: Path | str, out: Path | str, *, overwrite: bool = False) -> Job:
    """Unpack a model into a folder, which is then used like that of a training.

    Parameters
    ----------
    file
        A file of :func:`pack`; or ``hf://OWNER/NAME``, a repository of the Hugging Face hub that
        :func:`~napari_pbip.sharing.push.push` wrote.
    out
        The folder to write, such as a new one in ``models`` of a project.
    overwrite
        Whether an earlier run is replaced.

    Raises
    ------
    ModelError
        If it is not a packed model, or is damaged, or was changed; or if the repository cannot be fetched.
    OutputError
        If the folder exists or cannot be written.
    """
    out = Path(out)
    if str(file).startswith(HUB):
        repository = str(file).removeprefix(HUB)
        with TemporaryDirectory(prefix="napari-pbip-") as fetched:
            yield from _fetching(repository, Path(fetched))
            packed = yield from _unpacking(repository, Path(fetched), out, overwrite=overwrite)
    else:
        packed = yield from unpacking_file(Path(file), out, overwrite=overwrite)
    yield Finished(out, {"identity": packed.identity, "licence": packed.licence})


def unpacking_file(file: Path, out: Path, *, overwrite: bool = False, described: bool = False) -> Unpacking:
    """Unpack a file of :func:`pack` as :func:`unpack` does; with what describes it, if it is to be ``described``."""
    try:
        with zipfile.ZipFile(file) as archive:
            _check_archive(file, archive)
            return (yield from _unpacking(file, zipfile.Path(archive), out, overwrite=overwrite, described=described))
    except FileNotFoundError:
        raise ModelError(f"There is no file {file}; check the path.") from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise damaged(file) from error


def _unpacking(
    source: object, place: Place, out: Path, *, overwrite: bool = False, described: bool = False
) -> Unpacking:
    """Copy the files of a packed model, check them, and return what it says about itself."""
    from napari_pbip.engine.runs import run_identity  # torch takes seconds to load

    packed = read_packed(source, place)
    if not (overwrite and (out / MARKER).exists()):  # which is kept until the new one is complete
        prepare_folder(out, MARKER, overwrite=False)
    yield Started(f"Unpacking {packed.name}", total=len(packed.files), unit="files")
    with writing_folder(out) as begun:
        for done, (name, expected) in enumerate(packed.files.items(), 1):
            for _ in _copy(place / name, begun / name):
                yield Step(done - 1)
            if file_hash(begun / name) != expected:
                raise damaged(source)
            yield Step(done)
        if run_identity(begun) != packed.identity:
            raise damaged(source)
        if described:
            (begun / PACKED).write_bytes((place / PACKED).read_bytes())
    return packed


def _check_archive(file: Path, archive: zipfile.ZipFile) -> None:
    """Check that an archive has every name once, and is no larger than it says."""
    held = {entry.filename: entry for entry in archive.infolist()}
    if PACKED not in held or len(held) != len(archive.infolist()):
        raise no_model(file)
    # without compression nothing is larger than it is in the archive
    plain = all(entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1 for entry in held.values())
    small = all(entry.file_size <= LARGEST_TEXT for name, entry in held.items() if name not in WEIGHTS)
    whole = sum(entry.file_size for entry in held.values()) <= file.stat().st_size
    if not (plain and small and whole):
        raise damaged(file)


def _copy(source: Place, target: Path) -> Iterator[None]:
    with source.open("rb") as content, target.open("wb") as copy:
        while chunk := content.read(_CHUNK):
            copy.write(chunk)
            yield


def _fetching(repository: str, place: Path) -> Generator[Event, None, None]:
    """Fetch the files of a packed model from a repository into a folder; no others are fetched.

    Raises
    ------
    ModelError
        If the repository holds no packed model, or cannot be fetched.
    OutputError
        If the disk is full.
    """
    try:
        validate_repo_id(repository)
        files = [file for file in files_of(repository) if file.name in (*CONTENTS, PACKED)]
        if PACKED not in {file.name for file in files}:
            raise ModelError(f"{repository} holds no packed model (no {PACKED}); push one with `push()`.")
        if any(file.size > LARGEST_TEXT for file in files if not file.name.endswith(".safetensors")):
            raise damaged(repository)
        yield from fetching(repository, files, f"Fetching {repository}", place)
    except FAULTS as error:
        if disk := disk_fault(error, place):
            raise disk from error
        raise ModelError(f"{fault(repository, error)}.") from error
