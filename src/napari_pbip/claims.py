"""Claims of folders, so that one process writes a folder at a time.

The lock is one of the operating system (package filelock), which ends with its process, so that a crash leaves no lock
behind. A small file beside it names the process for error messages. Both are removed when the folder is released.
Reading needs no claim; but what may be deleted at any time, as a copy in a cache, can be kept for as long as a process
lives that reads it.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ParamSpec

from filelock import FileLock, Timeout

from napari_pbip.errors import FolderInUse
from napari_pbip.events import Job
from napari_pbip.files import output_error, require_path

LOCK, HOLDER = ".in-use.lock", ".in-use.json"
"""Files in a folder while a process writes it."""
_READER = ".read-by-"
"""How the names of files begin that each process which reads a folder has locked."""
_POLL = 0.05  # seconds
_REMOVAL = 1.0
_read_here: dict[Path, FileLock] = {}
P = ParamSpec("P")


@contextmanager
def claim(folder: Path, doing: str, *, wait: float = 0.0) -> Iterator[None]:
    """Claim a folder while the block runs. It is created if necessary, and removed if it stays empty.

    Parameters
    ----------
    folder
        The folder. Folders in it are claimed separately.
    doing
        Purpose for the message to other processes, such as ``"training"``.
    wait
        Seconds to wait for another process to release it.

    Raises
    ------
    FolderInUse
        If another process, or another job of this one, has claimed it.
    OutputError
        If the folder cannot be written.
    """
    require_path(folder)
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    lock = FileLock(folder / LOCK, thread_local=False, is_singleton=False)  # a job may end in another thread
    try:
        _acquire(lock, folder, wait)
        try:
            about = {"process": os.getpid(), "host": socket.gethostname(), "doing": doing}
            with suppress(OSError):  # it only serves messages of other processes
                (folder / HOLDER).write_text(json.dumps(about), encoding="utf-8")
            yield
        finally:
            for name in (HOLDER, LOCK):  # while the lock is held, so that no other process has opened these
                with suppress(OSError):  # Windows cannot remove an open file; releasing the lock does it there
                    (folder / name).unlink()
            lock.release()
    finally:
        for place in missing:
            with suppress(OSError):  # the folder is not empty
                place.rmdir()


def _acquire(lock: FileLock, folder: Path, wait: float) -> None:
    """Acquire the lock, or raise an error that names its holder."""
    end = time.monotonic() + wait
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            before = _inode(folder / LOCK)
            lock.acquire(timeout=0)
        except Timeout:
            if time.monotonic() > end:
                holder, doing = _holder(folder)
                raise FolderInUse(
                    f"{folder} is in use by {holder}{doing}; wait until that has ended, or stop it.", holder
                ) from None
        except FileNotFoundError as error:  # the previous holder has just removed the folder that it had made
            if time.monotonic() > end + _REMOVAL:
                raise output_error(folder, error) from error
        except OSError as error:
            raise output_error(folder, error) from error
        else:
            now = _inode(folder / LOCK)
            if now is not None and before in (None, now):
                return
            lock.release()  # the previous holder removed the file while we opened it
        time.sleep(_POLL)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _holder(folder: Path) -> tuple[str, str]:
    """Return the holder of a folder, and its purpose in brackets."""
    try:
        about = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"process {about['process']} on {about['host']}", f" ({about['doing']})"
    except (OSError, ValueError, KeyError, TypeError):  # it is not written yet, or the holder has just ended
        return "another process", ""


def keep_for_reading(folder: Path) -> None:
    """Let :func:`is_read` say of a folder that it is in use, until this process ends, in whatever way.

    The folder has to be claimed meanwhile.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    if (lock := _read_here.get(folder)) is not None and Path(lock.lock_file).exists():
        return
    is_read(folder)  # deletes what is left of processes that have ended
    lock = FileLock(folder / f"{_READER}{uuid.uuid4().hex}", thread_local=False, is_singleton=False)
    try:
        lock.acquire(timeout=0)
    except OSError as error:
        raise output_error(folder, error) from error
    _read_here[folder] = lock


def is_read(folder: Path) -> bool:
    """Return whether a process that lives, this one or another, keeps a folder for reading.

    The folder has to be claimed meanwhile.
    """
    found = False
    for path in folder.glob(f"{_READER}*"):
        lock = FileLock(path, thread_local=False, is_singleton=False)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            found = True
        else:
            lock.release()
            with suppress(OSError):
                path.unlink()
    return found


def claims(argument: str, doing: str) -> Callable[[Callable[P, Job]], Callable[P, Job]]:
    """Decorate a job so that it claims the folder given by one of its arguments while it runs."""

    def decorate(run: Callable[P, Job]) -> Callable[P, Job]:
        signature = inspect.signature(run)

        @functools.wraps(run)
        def claiming(*args: P.args, **kwargs: P.kwargs) -> Job:
            with claim(Path(signature.bind(*args, **kwargs).arguments[argument]), doing):
                yield from run(*args, **kwargs)

        return claiming

    return decorate
