"""Arrays of a score store on disk, and the sentences for what goes wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zarr
import zarr.errors

from napari_pbip.errors import OutputError, PbipError, UnreadableResult
from napari_pbip.files import output_error


def get_array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """Return the array of this name; raises KeyError if there is none."""
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise KeyError(name)
    return array


def no_store(path: Path) -> UnreadableResult:
    """Return the error for a folder that is no score store."""
    return UnreadableResult(f"{path} is not a score store", "name the <slide>.ome.zarr that 'segment' wrote")


def remove_begun(folder: Path, *, inside: bool = True) -> None:
    """Remove files that zarr had begun to write when a process was killed; they are never read.

    Parameters
    ----------
    folder
        A folder of an array or a group, which no other process is writing.
    inside
        Whether the folders in it are searched, too.
    """
    for begun in folder.rglob("*.partial") if inside else folder.glob("*.partial"):
        begun.unlink(missing_ok=True)


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Raise OutputError with a clear message if the disk is full or the folder may not be written."""
    try:
        yield
    except OSError as error:
        raise output_error(path, error) from error


@contextmanager
def reading(path: Path, way_out: str = "remove it and segment the slide again") -> Iterator[None]:
    """Raise UnreadableResult with a clear message instead of the errors of zarr on missing or damaged files."""
    try:
        yield
    except (FileNotFoundError, zarr.errors.NodeTypeValidationError) as error:
        raise no_store(path) from error
    except PermissionError as error:
        raise OutputError(f"{path} may not be read; ask its owner for access.") from error
    except PbipError:
        raise
    except Exception as error:  # zarr may raise any error on damaged metadata
        reason = " ".join(str(error).split())
        raise UnreadableResult(f"{path} is damaged ({reason})", way_out) from error
