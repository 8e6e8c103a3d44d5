"""Going through folders that people keep pictures in.

Folders of the operating system, hidden ones and results of this package are told apart, so that none of them is ever
taken for data. Links to folders are followed.
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
"""Folders that operating systems and network drives make, in lower case; those that begin with ``.`` or ``__`` are
taken for such ones too (``.ipynb_checkpoints``, ``__MACOSX``)."""
_SYSTEM_FILES = frozenset({"desktop.ini", "ehthumbs.db", "thumbs.db"})
_MARKERS = ("run.json", "pretrain.json", "compare.yaml", "features.safetensors", "pseudo.json")
"""Files that the folder of a training, a pre-training, a comparison, an image bank or pseudo masks holds."""
STORE_MARKER = "pbip/zarr.json"
"""File that only a score store holds."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies in a folder, or in a folder and all below it; each in the order of the paths."""

    files: tuple[Path, ...] = ()
    """All files but hidden ones and those of the system."""
    folders: tuple[Path, ...] = ()
    """Folders that may hold data."""
    system: tuple[Path, ...] = ()
    """Folders of the system, and hidden ones."""
    results: tuple[Path, ...] = ()
    """Folders that hold results of this package."""


ListFolder = Callable[[Path], Listing]
"""What lists a folder: :func:`listing`, or one that remembers."""


def listing(folder: Path) -> Listing:
    """What lies directly in a folder.

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
        raise DataError(f"The folder {folder} cannot be read ({error.strerror}); allow it, or name another.") from error
    return Listing(tuple(files), tuple(folders), tuple(system), tuple(results))


def walk(folders: Iterable[Path], list_folder: ListFolder = listing) -> Listing:
    """What lies in folders and all below them; no folder is entered twice, however it is linked to.

    Parameters
    ----------
    folders
        Where to begin.
    list_folder
        What lists a folder; one that remembers saves time where folders are gone through again.

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
    """Whether a folder is a result of this package: a training, bank, comparison, pseudo masks or score store."""
    if any((folder / marker).exists() for marker in (*_MARKERS, STORE_MARKER)):
        return True
    return (folder / "areas.csv").exists() and any(
        (store / STORE_MARKER).exists() for store in folder.glob("*.ome.zarr")
    )


def _of_system(name: str, names: frozenset[str]) -> bool:
    return name.startswith((".", "__")) or name.lower() in names


def _leads_up(path: Path, parent: str) -> bool:
    """Whether a folder is a link back to what holds it."""
    return path.is_symlink() and Path(parent).is_relative_to(os.path.realpath(path))
