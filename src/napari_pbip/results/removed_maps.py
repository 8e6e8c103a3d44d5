"""Deleting maps of slides so that they can be put back.

A deleted map is moved into a folder of its own in :data:`~napari_pbip.results.places.REMOVED_MAPS`, in the slide's
folder of results, which nothing looks into. What belongs to the slide, such as its regions, stays where it is.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from napari_pbip.claims import claim
from napari_pbip.errors import OutputError
from napari_pbip.files import rename
from napari_pbip.results.corrections import FOLDER as CORRECTIONS
from napari_pbip.results.label_files import FOLDER as LABELS
from napari_pbip.results.places import AREAS, OVERLAY, REMOVED_MAPS, is_further, slide_folder
from napari_pbip.results.slide_maps import FIRST

_DOING = "deleting a map"


def remove_map(store: Path) -> None:
    """Delete a map, damaged or not, so that :func:`put_back` can undo it.

    Parameters
    ----------
    store
        Path of its score store.

    Raises
    ------
    FolderInUse
        If the map is being made, corrected or labelled now.
    OutputError
        If it cannot be moved; then it is still there.
    """
    folder, removed = store.parent, _removed(store)
    with claim(folder, _DOING):
        for part in (store / CORRECTIONS, (store / LABELS).parent):
            if part.exists():
                with claim(part, _DOING):  # not longer: its files could not be moved on Windows
                    pass
        _move([store, folder / AREAS, folder / OVERLAY], removed)
    if is_further(folder):
        _remove_if_empty(folder, folder.parent)


def put_back(store: Path) -> None:
    """Put a map back that was deleted.

    Parameters
    ----------
    store
        Path that its score store had.

    Raises
    ------
    FolderInUse
        If another map is being made in its place.
    OutputError
        If there is another map in its place by now, or it cannot be moved; then it stays deleted.
    """
    folder, removed = store.parent, _removed(store)
    with claim(folder, "putting a map back"):
        if store.exists():
            raise OutputError(
                f"There is another map in its place by now; until the project is closed, it lies in {removed}."
            )
        _move([removed / name for name in (store.name, AREAS, OVERLAY)], folder)
    _remove_if_empty(removed, removed.parent)


def delete_removed(results: Path) -> None:
    """Delete for good the maps that were deleted in a folder of results; what cannot be deleted now stays deleted.

    That takes a while if a map is large. Folders get another name first, so that maps can be deleted meanwhile.

    Parameters
    ----------
    results
        Folder with one folder for each slide.
    """
    for place in list(results.glob(f"*/{REMOVED_MAPS}")):
        with suppress(OSError):  # it is tried again when the project is opened
            rename(place, place.with_name(f"{REMOVED_MAPS}-{uuid4().hex[:8]}"))
    for place in list(results.glob(f"*/{REMOVED_MAPS}-*")):
        shutil.rmtree(place, ignore_errors=True)


def _removed(store: Path) -> Path:
    """Return the folder in which a map lies while it is deleted."""
    folder = store.parent
    return slide_folder(folder) / REMOVED_MAPS / (folder.name if is_further(folder) else FIRST)


def _move(paths: Sequence[Path], folder: Path) -> None:
    """Move those of these files and folders that exist to a folder: all, or none."""
    moved: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in filter(Path.exists, paths):
            rename(path, folder / path.name)
            moved.append(path)
    except OSError as error:
        for path in moved:
            with suppress(OSError):
                rename(folder / path.name, path)
        _remove_if_empty(folder)
        raise OutputError(
            f"{paths[0]} cannot be moved ({error.strerror}); close programs that use it, and try again."
        ) from error


def _remove_if_empty(*folders: Path) -> None:
    for folder in folders:
        with suppress(OSError):  # it is not empty
            folder.rmdir()
