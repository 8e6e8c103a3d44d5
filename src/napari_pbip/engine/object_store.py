"""Folders on an object store, such as ``s3://bucket/results``: listing, copying to and from this machine, by fsspec.

Credentials are those that the protocol's own package finds in the environment; they are neither asked for nor recorded.
An object store has no locks, and folders are only names that begin alike: who writes a folder says so by a file there
(:meth:`ObjectStore.alone`), and writes last what says that it is complete.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import socket
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs

from napari_pbip.errors import OutputError
from napari_pbip.events import Event, Started, Step
from napari_pbip.files import output_error, safe_name

_AT_ONCE = 32
"""Files that are copied at the same time; a job can be stopped between two such batches."""
_READABLE = 32
"""Characters of an address in the name of its folder on this machine."""
_WITH_EXTRA = ("s3", "s3a")
"""Protocols whose package the extra ``remote`` brings."""
_LOCAL = ("file", "local")
_UPLOAD = ".uploading-"
"""How the names of files begin each of which says that a process uploads to their folder."""
_TAGS = ("ETag", "etag", "md5Hash", "generation", "LastModified", "last_modified", "mtime", "created")
"""What file systems of fsspec call that which changes with a file's content."""
_MD5 = re.compile("[0-9a-f]{32}")
_REFUSED = ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "CredentialRetrievalError")
"""Names of errors about credentials which are no PermissionError."""


def is_address(place: object) -> bool:
    """Return whether a text is an address, such as ``s3://bucket/folder``, and not a path."""
    return isinstance(place, str) and "://" in place


def place_for(address: str, kind: str, root: Path | None = None) -> Path:
    """Return the folder of this machine that belongs to an address; it need not exist.

    Parameters
    ----------
    address
        The address.
    kind
        Name of a folder in the user's cache folder.
    root
        Another folder to have it in.
    """
    address = address.rstrip("/")
    ending = hashlib.sha256(address.encode()).hexdigest()[:12]
    root = root or platformdirs.user_cache_path("napari-pbip") / kind
    return root / f"{safe_name(address.rpartition('/')[2][:_READABLE])}-{ending}"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file on an object store."""

    size: int
    """Bytes."""
    tag: str
    """Text that changes with the content; empty if the store gives none."""


class ObjectStore:
    """A folder at an address; the names of files are relative to it, with ``/``.

    Parameters
    ----------
    address
        Any address that fsspec knows, such as ``s3://bucket/folder``. The folder need not exist, the bucket must.

    Raises
    ------
    OutputError
        If a package for the address is missing, or the address is invalid or has a password in it.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        protocol = address.partition("://")[0]
        if protocol in _LOCAL:
            raise OutputError(f"{address} is a folder of this machine; give its path.")
        try:
            if urlsplit(address).password is not None:
                raise OutputError("An address must not have a password in it; give credentials by the environment.")
            from fsspec.core import url_to_fs

            # listings are not cached, because others write there, too
            self._files, root = url_to_fs(self.address, use_listings_cache=False, skip_instance_cache=True)
        except ImportError as error:
            raise OutputError(_missing(self.address, protocol, error)) from error
        except ValueError as error:
            raise OutputError(f"{self.address} is no address of an object store ({error}); correct it.") from error
        self._root = root.rstrip("/")

    # reading -----------------------------------------------------------------------------------------------------

    def files(self, folder: str = "") -> dict[str, StoredFile]:
        """Return the files in the folder, or in a folder in it, at any depth, by name; none if it does not exist.

        Raises
        ------
        OutputError
            If the store cannot be reached or read, as all methods do.
        """
        with self._reached("read"):
            found = self._files.find(self._path(folder), detail=True)
        named = {self._name(path): _stored(facts) for path, facts in found.items()}
        return {name: file for name, file in named.items() if _is_safe(name)}

    def folders(self) -> list[str]:
        """Return the names of the folders that lie directly in the folder, sorted."""
        with self._reached("read"):
            try:
                found = self._files.ls(self._root, detail=True)
            except FileNotFoundError:
                self._files.find(self._root)  # raises it again if there is no such bucket
                return []
        return sorted(self._name(one["name"]) for one in found if one["type"] == "directory")

    def file(self, name: str) -> StoredFile | None:
        """Return a file, or None if there is none of this name."""
        with self._reached("read"):
            try:
                return _stored(self._files.info(self._path(name)))
            except FileNotFoundError:
                return None

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        with self._reached("read"):
            return bytes(self._files.cat_file(self._path(name)))

    # copying -----------------------------------------------------------------------------------------------------

    def fetching(self, files: Mapping[str, StoredFile], folder: Path) -> Generator[Collection[str], None, None]:
        """Copy files into a folder of this machine; yield the names of those that are there now, some at a time.

        Raises
        ------
        OutputError
            If a file cannot be read or written, or has another size than it had.
        """
        for some in _batches(sorted(files)):
            targets = [folder / name for name in some]
            with self._reached("read", folder):
                self._files.get([self._path(name) for name in some], [str(target) for target in targets])
            for name, target in zip(some, targets, strict=True):
                if target.stat().st_size != files[name].size:
                    raise self._changed()
            yield some

    def check_unchanged(self, files: Mapping[str, StoredFile], folder: str = "") -> None:
        """Check that files are still as they were listed; raises OutputError if they are not."""
        now = self.files(folder)
        if any(now.get(name) != file for name, file in files.items() if name.startswith(folder)):
            raise self._changed()

    @contextmanager
    def alone(self, place: Path) -> Iterator[dict[str, StoredFile]]:
        """Let no other process upload to the folder while the block runs; yield the files that are there.

        Each process has a file of its own there, and looks for those of others when that is written. Of two, at least
        one finds the other's, and goes no further. (What was written is listed at once, by S3 and those like it.)

        Parameters
        ----------
        place
            The folder of this machine from which is uploaded, and which nobody else has claimed: what another process
            left behind, which was killed while it uploaded from there, is taken over.

        Raises
        ------
        OutputError
            If another process uploads to the folder, or was killed on another machine while it did.
        """
        host = socket.gethostname()
        own = f"{_UPLOAD}{hashlib.sha256(f'{host} {place.absolute()}'.encode()).hexdigest()[:12]}.json"
        with self._reached("written"):
            self._files.pipe_file(self._path(own), json.dumps({"process": os.getpid(), "host": host}).encode())
        try:
            there = self.files()
            for name in there:
                if name.startswith(_UPLOAD) and name != own:
                    raise OutputError(
                        f"{self._holder(name)} is uploading to {self.address}; wait until that has ended, or delete "
                        f"{self.address}/{name} if it was killed."
                    )
            yield {name: file for name, file in there.items() if name != own}
        finally:
            with suppress(OutputError):
                self._remove([own])

    def _holder(self, name: str) -> str:
        try:
            about = json.loads(self.read(name))
            return f"Process {about['process']} on {about['host']}"
        except (OutputError, ValueError, KeyError, TypeError):  # it has just ended
            return "Another process"

    def uploading(
        self, folder: Path, names: Iterable[str], *, last: Collection[str], stale: Collection[str]
    ) -> Generator[Event, None, None]:
        """Copy files to the address; those that are there already, byte for byte, are not copied again.

        While a file is missing or another, none of those that come last is there, so that a part is never taken for the
        whole. A store says by its ETags which files are the same; one that does not gets all of them again.

        Parameters
        ----------
        folder
            A folder of this machine.
        names
            The files in it.
        last
            Those of the files that are copied when all others are there.
        stale
            Files at the address that are deleted.

        Yields
        ------
        Event
            ``Started`` and ``Step``, in files.

        Raises
        ------
        OutputError
            If a file cannot be written, or is not there afterwards; the same call then goes on.
        """
        there, names = self.files(), sorted(names)
        changed = [name for name in names if not _is_same(folder / name, there.get(name))]
        done = len(names) - len(changed)
        yield Started(f"Uploading to {self.address}", total=len(names), unit="files", done=done)
        if not changed and not stale:
            return
        self._remove([name for name in last if name in there])
        self._remove(stale)
        for some in _batches([name for name in changed if name not in last]):
            self._put(folder, some)
            done += len(some)
            yield Step(done)
        held = self.files()
        for name in names:
            if name not in last and (name not in held or held[name].size != (folder / name).stat().st_size):
                raise OutputError(f"{self.address}/{name} was changed or deleted while it was uploaded; try again.")
        self._put(folder, sorted(last))
        yield Step(len(names))

    def _put(self, folder: Path, names: Sequence[str]) -> None:
        with self._reached("written"):
            self._files.put([str(folder / name) for name in names], [self._path(name) for name in names])

    def _remove(self, names: Iterable[str]) -> None:
        with self._reached("written"):
            for name in names:
                with suppress(FileNotFoundError):
                    self._files.rm_file(self._path(name))  # `rm` takes brackets in a name for a pattern

    # names and faults --------------------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _name(self, path: str) -> str:
        return path.removeprefix(self._root).strip("/")

    def _changed(self) -> OutputError:
        return OutputError(f"Files at {self.address} were changed while they were copied; run the same command again.")

    @contextmanager
    def _reached(self, how: str, folder: Path | None = None) -> Iterator[None]:
        """Raise OutputError with a clear message instead of what the protocol's package raises."""
        try:
            yield
        except Exception as error:  # each of these packages has errors of its own
            if folder is not None and isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise output_error(folder, error) from error
            raise OutputError(self._fault(error, how)) from error

    def _fault(self, error: Exception, how: str) -> str:
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        if isinstance(error, PermissionError) or type(error).__name__ in _REFUSED:
            return (
                f"{self.address} may not be {how} with the credentials of this environment ({reason}); set those of "
                "an account that may."
            )
        if isinstance(error, FileNotFoundError):
            return f"There is no {self.address} ({reason}); correct the address, or make the bucket."
        return f"{self.address} cannot be reached ({reason}); try again later, or correct the address."


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), _AT_ONCE):
        yield names[start : start + _AT_ONCE]


def _missing(address: str, protocol: str, error: ImportError) -> str:
    if protocol in _WITH_EXTRA or error.name == "fsspec":
        return f"Results at {address} need another library; run `pip install napari-pbip[remote]`."
    return f"{address} needs another library ({' '.join(str(error).split())}); install it."


def _stored(facts: Mapping[str, Any]) -> StoredFile:
    tag = next((str(facts[key]).strip('"') for key in _TAGS if facts.get(key)), "")
    return StoredFile(int(facts["size"] or 0), tag)


def _is_safe(name: str) -> bool:
    """Return whether a name stays in the folder that it is copied to; an object may have any name."""
    return "\\" not in name and ":" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def _is_same(path: Path, stored: StoredFile | None) -> bool:
    """Return whether a file is on the store, byte for byte, as far as the store tells: an ETag may be an MD5 hash."""
    if stored is None or stored.size != path.stat().st_size or not _MD5.fullmatch(stored.tag):
        return False
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == stored.tag
