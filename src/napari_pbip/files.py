"""Writing results so that nothing already computed is lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from napari_pbip.errors import OutputError


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well: whole or not at all.

    Raises
    ------
    OutputError
        If the folder cannot be written or the disk is full; what ``path`` held before is still there.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        with suppress(OSError):  # gone already when all went well
            temporary.unlink()


def output_error(path: Path, error: OSError) -> OutputError:
    """The sentence for an operating-system error that was met while writing."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"The disk is full: {path} could not be written; make room and resume.")
    return OutputError(f"{path} cannot be written ({os.strerror(error.errno or 0)}); choose another --out.")


def write_json(path: Path, values: Any) -> None:
    """Write JSON, whole or not at all."""
    with writing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def prepare_folder(folder: Path, marker: str, *, overwrite: bool, ways: str = "--overwrite to replace it") -> None:
    """Make an empty output folder.

    Parameters
    ----------
    folder
        The folder to make.
    marker
        A file that every finished or begun result of this kind holds. ``overwrite`` deletes only a folder
        that holds it, so that a mistyped path never costs a user other files.
    overwrite
        Whether an earlier result may be deleted.
    ways
        The way out that the error names.

    Raises
    ------
    OutputError
        If the folder holds something and may not be replaced, or it cannot be made.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            if not overwrite:
                raise OutputError(f"{folder} exists already; use {ways}, or choose another --out.")
            if not (folder / marker).exists():
                raise OutputError(
                    f"{folder} holds other files than an earlier result (no {marker}) and is not deleted; "
                    "choose another --out."
                )
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
