"""One process writes a folder at a time: the others are told who has it.

The lock is one of the operating system (package filelock): it ends with the process that holds it, however that ends,
so a crash leaves no lock behind. Beside it lies a small file that says who holds it, for the sentence alone. Both are
gone when the folder is released. Reading needs no claim.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ParamSpec

from filelock import FileLock, Timeout

from napari_pbip.errors import FolderInUse
from napari_pbip.events import Job
from napari_pbip.files import output_error

LOCK, HOLDER = ".in-use.lock", ".in-use.json"
"""What lies in a folder while somebody writes it."""
_POLL = 0.05  # seconds
_REMOVAL = 1.0
P = ParamSpec("P")


@contextmanager
def claim(folder: Path, doing: str, *, wait: float = 0.0) -> Iterator[None]:
    """Have a folder alone for as long as the block runs; it is made if need be, and removed if nothing comes into it.

    Parameters
    ----------
    folder
        The folder. Claims of folders within it are others.
    doing
        What it is claimed for, as others are told: ``"training"``.
    wait
        Seconds to wait for another to end.

    Raises
    ------
    FolderInUse
        If another process, or another job of this one, has it.
    OutputError
        If the folder cannot be written.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    lock = FileLock(folder / LOCK, thread_local=False, is_singleton=False)  # a job may end in another thread
    try:
        _acquire(lock, folder, wait)
        try:
            about = {"process": os.getpid(), "host": socket.gethostname(), "doing": doing}
            with suppress(OSError):  # for a sentence of others alone
                (folder / HOLDER).write_text(json.dumps(about), encoding="utf-8")
            yield
        finally:
            for name in (HOLDER, LOCK):  # while the lock is still held: nobody else has opened these then
                with suppress(OSError):  # Windows removes no open file; the lock removes it there when it is released
                    (folder / name).unlink()
            lock.release()
    finally:
        for place in missing:
            with suppress(OSError):  # something lies in it
                place.rmdir()


def _acquire(lock: FileLock, folder: Path, wait: float) -> None:
    """Take the lock, or say who has it."""
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
        except FileNotFoundError as error:  # the one before us has just removed the folder that it had made
            if time.monotonic() > end + _REMOVAL:
                raise output_error(folder, error) from error
        except OSError as error:
            raise output_error(folder, error) from error
        else:
            now = _inode(folder / LOCK)
            if now is not None and before in (None, now):
                return
            lock.release()  # it was removed by the one before us while we opened it, and would keep nobody out
        time.sleep(_POLL)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _holder(folder: Path) -> tuple[str, str]:
    """Who has a folder, and in brackets what for."""
    try:
        about = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"process {about['process']} on {about['host']}", f" ({about['doing']})"
    except (OSError, ValueError, KeyError, TypeError):  # it has not said so yet, or has just ended
        return "another process", ""


def claims(argument: str, doing: str) -> Callable[[Callable[P, Job]], Callable[P, Job]]:
    """Decorate a job so that it has the folder of one of its arguments alone while it runs."""

    def decorate(run: Callable[P, Job]) -> Callable[P, Job]:
        signature = inspect.signature(run)

        @functools.wraps(run)
        def claiming(*args: P.args, **kwargs: P.kwargs) -> Job:
            with claim(Path(signature.bind(*args, **kwargs).arguments[argument]), doing):
                yield from run(*args, **kwargs)

        return claiming

    return decorate
