"""Writing results so that nothing already computed is lost."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
import unicodedata
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL.Image import Image

from napari_pbip.errors import OutputError

_NAME_BYTES = 255
"""Longest name of a file on the file systems in use."""
_READABLE_BYTES = 80
"""Longest part of a name of ours that is a name of the user's: leaves room for endings, and in Windows' 260 a path."""
_FORBIDDEN = frozenset('<>:"/\\|?*')
_RESERVED = frozenset(
    {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in "0123456789\u00b9\u00b2\u00b3"}
)
_LEAVING = ".napari-pbip-old"
"""What is being deleted, in its folder."""
_NOTHING = (_LEAVING, ".DS_Store", "Thumbs.db", "desktop.ini")
"""Names that leave a folder empty: ours, and what macOS and Windows put into folders that were looked at."""
_BUSY = (5, 32)
"""What Windows says where another program (a virus scanner, a viewer) has the file open for a moment."""
_PATIENCE = 3.0
"""Seconds to wait for such a program."""


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well: whole or not at all.

    Raises
    ------
    OutputError
        If the folder cannot be written or the disk is full; what ``path`` held before is still there.
    """
    temporary = _beside(path, "part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _rename(temporary, path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        with suppress(OSError):  # gone already when all went well
            temporary.unlink()


@contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """As :func:`writing`, of a folder: a new one that takes the place of ``path`` when the block ends well.

    A folder cannot be replaced in one step. The earlier one is renamed aside first, and :func:`present` finds it there
    should the process be killed before the new one has its name.

    Raises
    ------
    OutputError
        If it cannot be written or the disk is full; what ``path`` held before is still there.
    """
    begun, aside = _beside(path, "part"), _beside(path, "old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(begun)
        begun.mkdir()
        yield begun
        if path.exists():
            _remove(aside)
            _rename(path, aside)
        try:
            _rename(begun, path)
        except OSError:
            if aside.exists():
                _rename(aside, path)
            raise
        with suppress(OSError):  # somebody still reads it; the next time it goes
            _remove(aside)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        shutil.rmtree(begun, ignore_errors=True)


def present(path: Path) -> Path:
    """Where a folder of :func:`writing_folder` lies: at ``path``, unless a process was killed while replacing it."""
    aside = _beside(path, "old")
    return aside if aside.exists() and not path.exists() else path


def output_error(path: Path, error: OSError) -> OutputError:
    """The sentence for an operating-system error that was met while writing."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"The disk is full: {path} could not be written; make room and resume.")
    return OutputError(f"{path} cannot be written ({os.strerror(error.errno or 0)}); choose another folder.")


def write_json(path: Path, values: Any) -> None:
    """Write JSON, whole or not at all."""
    with writing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_picture(path: Path, picture: Image, form: str, **options: Any) -> None:
    """Write a picture as ``PNG`` or ``JPEG``, whole or not at all; options are Pillow's.

    By way of bytes: Pillow's own encoder takes a file that a full disk cut short for a whole one.

    Raises
    ------
    OutputError
        As :func:`writing`.
    """
    encoded = BytesIO()
    picture.save(encoded, form, **options)
    with writing(path) as temporary:
        temporary.write_bytes(encoded.getvalue())


def prepare_folder(
    folder: Path,
    marker: str,
    *,
    overwrite: bool,
    ways: str = "`overwrite=True` to replace it",
    keep: Collection[str] = (),
) -> None:
    """Make an empty output folder.

    Hidden files of ours may be in it already: a claim (:mod:`napari_pbip.claims`), and what a process that was killed
    had begun to write.

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
    keep
        Names of files that stay where they are.

    Raises
    ------
    OutputError
        If the folder holds something and may not be replaced, or it cannot be made.
    """
    leaving = folder / _LEAVING
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} exists already; use {ways}, or choose another folder.")
        folder.mkdir(parents=True, exist_ok=True)
        held = [one for one in folder.iterdir() if not one.name.startswith(".in-use.") and one.name not in _NOTHING]
        begun = [one for one in held if one.name.startswith(".") and one.name.endswith(".part")]
        held = [one for one in held if one not in begun]
        if held and not overwrite:
            raise OutputError(f"{folder} exists already; use {ways}, or choose another folder.")
        if held and not any((place / marker).exists() for place in (folder, leaving)):
            raise OutputError(
                f"{folder} holds other files than an earlier result (no {marker}) and is not deleted; "
                "choose another folder."
            )
        # Aside first, the marker with the last: what is half deleted when the process is killed is still known as ours.
        for one in begun:
            _remove(one)
        first = Path(marker).parts[0]
        for one in sorted((one for one in held if one.name not in keep), key=lambda one: one.name == first):
            leaving.mkdir(exist_ok=True)
            _remove(leaving / one.name)
            _rename(one, leaving / one.name)
        _remove(leaving)
    except OSError as error:
        raise output_error(folder, error) from error


def safe_name(name: str) -> str:
    """A name of the user's as part of a file's name that every system can hold.

    Linux takes anything, and the project may move: characters that Windows forbids become ``_``, a name that means a
    device there (``CON``) or ends in a dot or space gets one more, letters with accents are composed (macOS takes them
    apart), and what is too long is cut. Two names may become one; whoever needs them apart adds what tells them apart.
    """
    name = unicodedata.normalize("NFC", name)
    name = "".join("_" if c in _FORBIDDEN or unicodedata.category(c) in ("Cc", "Cs") else c for c in name)
    name = name.encode()[:_READABLE_BYTES].decode(errors="ignore")
    stem, dot, rest = name.partition(".")
    if stem.strip().lower() in _RESERVED:
        name = f"{stem}_{dot}{rest}"
    return f"{name}_" if not name or name[-1] in ". " else name


def _beside(path: Path, ending: str) -> Path:
    """A hidden name beside a path, for what is not yet or no longer it."""
    name = f".{path.name}.{ending}"
    if len(os.fsencode(name)) > _NAME_BYTES:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}.{ending}"
    return path.with_name(name)


def _rename(source: Path, target: Path) -> None:
    """Rename, over a file that is there; waits a moment for another program that has one of them open (Windows)."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            source.replace(target)
        except PermissionError as error:
            if getattr(error, "winerror", None) not in _BUSY or time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def _remove(path: Path) -> None:
    """Remove a file or folder that may not be there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
