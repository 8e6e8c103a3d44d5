"""Writing of files and folders that is complete or leaves the earlier ones unchanged, and names of files."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import re
import shutil
import time
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL.Image import Image

from napari_pbip.errors import OutputError

_NAME_BYTES = 255
"""Largest number of bytes in a file name on common file systems."""
_READABLE_BYTES = 80
"""Largest number of bytes of a user's name in a file name; leaves room for suffixes and for a path in Windows' 260."""
_FORBIDDEN = frozenset('<>:"/\\|?*')
_RESERVED = frozenset(
    {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in "0123456789\u00b9\u00b2\u00b3"}
)
_LEAVING = ".napari-pbip-old"
"""Name of the folder into which files are moved that are being deleted."""
_NOTHING = (_LEAVING, ".DS_Store", "Thumbs.db", "desktop.ini")
"""Names that do not count in a folder: ours, and files that macOS and Windows create when folders are viewed."""
_BUSY = (5, 32)
"""Errors of Windows if another program, such as a virus scanner, has a file open."""
_PATIENCE = 3.0
"""Seconds to wait until such a program has closed the file."""
_PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]+:")
"""Beginning of an address, in the path that is made of it; a drive of Windows has one letter."""


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it if the block succeeds.

    Raises
    ------
    OutputError
        If the folder cannot be written or the disk is full; the earlier file is kept.
    """
    require_path(path)
    temporary = _beside(path, "part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        rename(temporary, path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        with suppress(OSError):  # it does not exist any more if all went well
            temporary.unlink()


@contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces the folder ``path`` if the block succeeds.

    A folder cannot be replaced in one step: the earlier one is renamed first. If the process is killed before the new
    one has its name, :func:`present` finds the earlier one.

    Raises
    ------
    OutputError
        If the folder cannot be written or the disk is full; the earlier folder is kept.
    """
    require_path(path)
    begun, aside = _beside(path, "part"), _beside(path, "old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(begun)
        begun.mkdir()
        yield begun
        if path.exists():
            _remove(aside)
            rename(path, aside)
        try:
            rename(begun, path)
        except OSError:
            if aside.exists():
                rename(aside, path)
            raise
        with suppress(OSError):  # another process may read it; the next call removes it
            _remove(aside)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        shutil.rmtree(begun, ignore_errors=True)


def present(path: Path) -> Path:
    """Return the path of a folder of :func:`writing_folder`, also if a process was killed while replacing it."""
    aside = _beside(path, "old")
    return aside if aside.exists() and not path.exists() else path


def require_path(path: Path) -> None:
    """Check that a path is no address such as ``s3://bucket``, of which a folder ``s3:`` would be made here.

    Raises
    ------
    OutputError
        If it is one.
    """
    if any(map(_PROTOCOL.fullmatch, path.parts)):
        raise OutputError(
            f"{path} looks like an address, and only `segment` writes to one; give a path of this machine."
        )


def output_error(path: Path, error: OSError) -> OutputError:
    """Return the error for an operating-system error that occurred while writing ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"The disk is full: {path} could not be written; make room and resume.")
    return OutputError(f"{path} cannot be written ({os.strerror(error.errno or 0)}); choose another folder.")


def write_json(path: Path, values: Any) -> None:
    """Write JSON; the file is replaced only when complete."""
    with writing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table, which replaces the file only when complete.

    It is Parquet if the name ends in ``.parquet``, and else CSV (UTF-8, commas, decimal points), in which floats have
    six digits. None is an empty field.

    Raises
    ------
    OutputError
        If the file cannot be written, or the library pyarrow, which Parquet needs, is not installed.
    """
    if path.suffix.lower() == ".parquet":
        _write_parquet(path, header, list(rows))
        return
    with writing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows([f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows)


def _write_parquet(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise OutputError(
            "Parquet needs another library; run `pip install napari-pbip[parquet]`, or choose a name that ends in .csv."
        ) from error
    columns = zip(*rows, strict=True) if rows else ((),) * len(header)
    plain = [[str(value) if isinstance(value, Path) else value for value in column] for column in columns]
    with writing(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table(dict(zip(header, plain, strict=True))), temporary)


def write_picture(path: Path, picture: Image, form: str, **options: Any) -> None:
    """Write a picture as ``PNG`` or ``JPEG`` with Pillow's options; the file is replaced only when complete.

    The picture is encoded in memory, because Pillow does not notice if a full disk truncates a file.

    Raises
    ------
    OutputError
        As :func:`writing` does.
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
    """Create an output folder that is empty but for the files to keep.

    It may contain hidden files of this package: a claim (:mod:`napari_pbip.claims`), and unfinished files of a process
    that was killed.

    Parameters
    ----------
    folder
        The folder to create.
    marker
        A file in every finished or unfinished result of this kind. Only a folder with this file is deleted with
        ``overwrite``, so that a mistyped path never deletes other files.
    overwrite
        Whether an earlier result may be deleted.
    ways
        What the user can do, for the error, in the words of Python (:mod:`napari_pbip.wording`).
    keep
        Names of files to keep.

    Raises
    ------
    OutputError
        If the folder is not empty and must not be replaced, or it cannot be created.
    """
    require_path(folder)
    leaving = folder / _LEAVING
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} exists already; use {ways}, or choose another folder.")
        folder.mkdir(parents=True, exist_ok=True)
        held = [one for one in folder.iterdir() if not one.name.startswith(".in-use.") and one.name not in _NOTHING]
        begun = [one for one in held if one.name.startswith(".") and one.name.endswith(".part")]
        held = [one for one in held if one not in begun and one.name not in keep]
        if held and not any((place / marker).exists() for place in (folder, leaving)):
            raise OutputError(
                f"{folder} holds other files than an earlier result (no {marker}) and is not deleted; move it away, "
                "or choose another folder."
            )
        if held and not overwrite:
            raise OutputError(f"{folder} exists already; use {ways}, or choose another folder.")
        # Files are moved before they are deleted, the marker with the last: if the process is killed in between, the
        # folder is still recognised as a result.
        for one in begun:
            _remove(one)
        first = Path(marker).parts[0]
        for one in sorted(held, key=lambda one: one.name == first):
            leaving.mkdir(exist_ok=True)
            _remove(leaving / one.name)
            rename(one, leaving / one.name)
        _remove(leaving)
    except OSError as error:
        raise output_error(folder, error) from error


def safe_name(name: str) -> str:
    """Convert a user's name to a part of a file name that is valid on every operating system.

    Linux allows almost any name, but the project may be moved: characters that Windows forbids are replaced by ``_``; a
    name that is a device there (``CON``), or ends in a dot or space, gets another ``_``; letters with accents are
    composed (macOS decomposes them); and long names are cut. Different names may give the same result, so callers that
    need unique names add a suffix.
    """
    name = unicodedata.normalize("NFC", name)
    name = "".join("_" if c in _FORBIDDEN or unicodedata.category(c) in ("Cc", "Cs") else c for c in name)
    name = name.encode()[:_READABLE_BYTES].decode(errors="ignore")
    stem, dot, rest = name.partition(".")
    if stem.strip().lower() in _RESERVED:
        name = f"{stem}_{dot}{rest}"
    return f"{name}_" if not name or name[-1] in ". " else name


def _beside(path: Path, ending: str) -> Path:
    """Return a hidden path beside a path, for its successor while being written or its predecessor while replaced."""
    name = f".{path.name}.{ending}"
    if len(os.fsencode(name)) > _NAME_BYTES:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}.{ending}"
    return path.with_name(name)


def rename(source: Path, target: Path) -> None:
    """Rename a file, replacing an existing one; on Windows, wait for a program that has one of them open."""
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
    """Remove a file or folder, which need not exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
