"""Jobs that are killed, or whose disk fills up or can only be read any more: nothing is lost, and one sentence is said.

This is the short form for CI: each job is killed before two of its renamings, the one in the middle and the last one.
``python -m tests.robustness.kills`` kills them before every renaming, or at random moments.

Where the disk cannot be made small (a tmpfs of some megabytes, for root on Linux), files are: no larger than a limit.
No system makes a disk read-only under a file that is open for writing, as the lock of a job is; so Python refuses.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from napari_pbip.errors import PbipError
from tests.robustness.kills import JOBS, context, different, kill_at_renames, prepare, run, uninterrupted, work

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals, forking and limits of files are POSIX")
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
"""What Python tells (its audit events) before it changes something on disk, beside opening a file."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disks")
    prepare(folder)
    return folder


@pytest.fixture(scope="module", params=JOBS)
def job(request: pytest.FixtureRequest, root: Path) -> tuple[str, Path, int]:
    """A job, the result of an undisturbed run, and its number of renamings."""
    name: str = request.param
    return name, *uninterrupted(name, root)


def test_a_job_that_was_killed_ends_as_if_it_had_not_been(job: tuple[str, Path, int], root: Path) -> None:
    name, _, renames = job
    outcome = kill_at_renames(name, root, {renames // 2, renames} - {0})
    assert outcome.kills
    assert outcome.compared == outcome.kills


def full(out: Path, bytes_left: int) -> None:
    """Limit the size of all files that this process writes."""
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def read_only(out: Path, renames_left: int) -> None:
    """Refuse all changes of the folder by this process after a number of renamings; -1 means at once."""
    left = renames_left

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event == "open":
            changes = bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            changes = event in _CHANGES
        if not changes or isinstance(arguments[0], int):
            return
        left -= event == "os.rename"
        path = Path(os.fsdecode(arguments[0]))
        # What safetensors began, unseen by Python, may be removed: no such disk would have let it begin.
        if not path.is_relative_to(out) or (event == "os.remove" and path.suffix == ".part"):
            return
        if left < 0:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    sys.addaudithook(refuse)


def _disturbed(name: str, root: Path, out: Path, said: Path, trouble: Callable[[Path, int], None], left: int) -> None:
    trouble(out, left)
    sentence = "it ended well"
    try:
        work(name, root, out, leave=False)
    except PbipError as error:
        sentence = str(error)
    if trouble is full:
        full(out, 1 << 30)
    said.write_text(sentence, encoding="utf-8")
    os._exit(0)


def disturbed(name: str, root: Path, out: Path, trouble: Callable[[Path, int], None], left: int) -> str:
    """Run a job in a separate process on such a disk; return its message."""
    said = out.with_name("said.txt")
    process = context().Process(target=_disturbed, args=(name, root, out, said, trouble, left))
    process.start()
    process.join()
    assert process.exitcode == 0
    return said.read_text(encoding="utf-8")


@pytest.mark.parametrize("trouble", [full, read_only], ids=lambda trouble: trouble.__name__)
def test_a_disk_that_can_be_written_no_more(
    job: tuple[str, Path, int], root: Path, tmp_path: Path, trouble: Callable[[Path, int], None]
) -> None:
    """In the middle of the job, which finishes when it is called again, and while its result is replaced."""
    name, whole, renames = job
    out = tmp_path / "out"
    if name == "write_results":  # a result that was there before
        shutil.copytree(root / "result", out)
    largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    middle, start, reason = (
        (largest // 2, 40, "File too large") if trouble is full else (renames // 2, -1, "Read-only file system")
    )
    sentence = disturbed(name, root, out, trouble, middle)
    if name == "compare" and trouble is full:  # it tells of each run that failed, and ends with a report
        assert sentence == "it ended well"
    else:
        assert f"cannot be written ({reason})" in sentence
    assert "\n" not in sentence
    if trouble is full:
        assert not [path for path in out.rglob("*") if path.name.endswith(".part")]
    assert run(name, root, out) == 0  # it can be written again
    assert list(different(whole, out)) == []
    assert "\n" not in disturbed(name, root, out, trouble, start)
    assert list(different(whole, out)) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if (
        not hasattr(os, "geteuid")
        or os.geteuid()
        or subprocess.run(command, check=False, capture_output=True).returncode
    ):
        pytest.skip("only root may make a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_small_disk(root: Path, small_disk: Path) -> None:
    """Too small for a model, and filled by another process in the middle of a slide, which is resumed afterwards."""
    with pytest.raises(PbipError, match="disk is full") as caught:
        list(JOBS["train"].start(root, small_disk / "run"))
    assert "\n" not in str(caught.value)
    shutil.rmtree(small_disk / "run")
    out, filler = small_disk / "slide", small_disk / "of somebody else"
    job = JOBS["segment"].start(root, out)
    for event in job:
        if getattr(event, "done", 0) > 10:
            break
    with filler.open("wb") as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    with pytest.raises(PbipError, match="disk is full") as caught:
        list(job)
    assert "\n" not in str(caught.value)
    filler.unlink()
    list(JOBS["segment"].start(root, out))
    whole = root / "segment-whole"
    if not whole.exists():
        assert run("segment", root, whole) == 0
    assert list(different(whole, out)) == []
