"""Listings of folders with data.

Hidden folders and those of the operating system and results of this package are listed separately, so that they are
never taken for data. Links to folders are followed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from napari_pbip.errors import DataError

_SYSTEM = frozenset(
    {
        "$recycle.bin",
        "@eadir",
        "@recycle",
        "#recycle",
        "#snapshot",
        "lost+found",
        "recycler",
        "system volume information",
    }
)
"""Folders that operating systems and network drives create, in lower case. Folders that begin with ``.`` or ``__``
count too (``.ipynb_checkpoints``, ``__MACOSX``)."""
_SYSTEM_FILES = frozenset({"desktop.ini", "ehthumbs.db", "thumbs.db"})
_MARKERS = ("run.json", "pretrain.json", "compare.yaml", "features.safetensors", "pseudo.json")
"""Files that mark the folder of a training, a pre-training, a comparison, an image bank or pseudo masks."""
STORE_MARKER = "pbip/zarr.json"
"""File that marks a score store."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The contents of a folder, or of a folder and all folders below it, each sorted by path."""

    files: tuple[Path, ...] = ()
    """All files but hidden ones and those of the operating system."""
    folders: tuple[Path, ...] = ()
    """Folders that may hold data."""
    system: tuple[Path, ...] = ()
    """Hidden folders and those of the operating system."""
    results: tuple[Path, ...] = ()
    """Folders that hold results of this package."""


ListFolder = Callable[[Path], Listing]
"""A function that lists a folder: :func:`listing`, or a cached one."""


def listing(folder: Path) -> Listing:
    """List what lies directly in a folder.

    Raises
    ------
    DataError
        If the folder cannot be read.
    """
    files, folders, system, results = [], [], [], []
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = folder / entry.name
                if not entry.is_dir():
                    if not _of_system(entry.name, _SYSTEM_FILES):
                        files.append(path)
                elif _of_system(entry.name, _SYSTEM):
                    system.append(path)
                elif is_result(path):
                    results.append(path)
                else:
                    folders.append(path)
    except OSError as error:
        raise DataError(
            f"The folder {folder} cannot be read ({error.strerror}); allow reading it, or name another folder."
        ) from error
    return Listing(tuple(files), tuple(folders), tuple(system), tuple(results))


def walk(folders: Iterable[Path], list_folder: ListFolder = listing) -> Listing:
    """List folders and all folders below them. No folder is listed twice, even if links lead to it.

    Parameters
    ----------
    folders
        The folders to start with.
    list_folder
        Function that lists a folder; a cached one saves time if folders are listed again.

    Raises
    ------
    DataError
        If a folder cannot be read.
    """
    files: list[Path] = []
    gone_into: list[Path] = []
    system: list[Path] = []
    results: list[Path] = []
    waiting, seen = list(folders), set[str]()
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        here = list_folder(folder)
        files += here.files
        system += here.system
        results += here.results
        gone_into += here.folders
        waiting += (path for path in here.folders if not _leads_up(path, real))
    return Listing(
        *(tuple(sorted(paths, key=lambda path: path.parts)) for paths in (files, gone_into, system, results))
    )


def is_result(folder: Path) -> bool:
    """Return whether a folder is a result of this package: training, bank, comparison, pseudo masks or store."""
    if any((folder / marker).exists() for marker in (*_MARKERS, STORE_MARKER)):
        return True
    return (folder / "areas.csv").exists() and any(
        (store / STORE_MARKER).exists() for store in folder.glob("*.ome.zarr")
    )


def _of_system(name: str, names: frozenset[str]) -> bool:
    return name.startswith((".", "__")) or name.lower() in names


def _leads_up(path: Path, parent: str) -> bool:
    """Return whether a folder is a link to one that contains it."""
    return path.is_symlink() and Path(parent).is_relative_to(os.path.realpath(path))
