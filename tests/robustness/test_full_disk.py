"""A disk that fills up in the middle of a job: one sentence, and what was there stays.

Where the disk cannot be made small (a tmpfs of some megabytes, for root on Linux), files are: no larger than a limit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from napari_pbip.errors import PbipError
from tests.robustness.kills import JOBS, context, different, prepare, run, work

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits of files and file systems in memory are POSIX")
_NAMES = ("bank", "train", "pretrain", "segment", "compare", "export", "freeze")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    prepare(folder)
    return folder


def limited(name: str, root: Path, out: Path, said: Path, limit: int) -> None:
    """Do a job while no file may be larger than so many bytes; writes down what it says."""
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    try:
        work(name, root, out, leave=False)
        sentence = "it ended well"
    except PbipError as error:
        sentence = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    said.write_text(sentence, encoding="utf-8")
    os._exit(0)


@pytest.mark.parametrize("name", _NAMES)
def test_a_disk_that_fills_up(name: str, root: Path, tmp_path: Path) -> None:
    whole, out, said = root / f"{name}-whole", tmp_path / "out", tmp_path / "said.txt"
    assert run(name, root, whole) == 0
    if name == "freeze":  # a result that was there before
        shutil.copytree(root / "result", out)
    largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    process = context().Process(target=limited, args=(name, root, out, said, largest // 2))
    process.start()
    process.join()
    assert process.exitcode == 0
    sentence = said.read_text(encoding="utf-8")
    if name == "compare":  # it tells of each run that failed, and ends with a report
        assert sentence == "it ended well"
    else:
        assert "cannot be written (File too large)" in sentence
    assert "\n" not in sentence
    assert not [path for path in out.rglob("*") if path.name.endswith(".part")]
    assert run(name, root, out) == 0  # room was made
    assert list(different(whole, out)) == []


@pytest.mark.parametrize("name", _NAMES)
def test_an_earlier_result_survives_a_full_disk(name: str, root: Path, tmp_path: Path) -> None:
    whole, out, said = root / f"{name}-whole", tmp_path / "out", tmp_path / "said.txt"
    if not whole.exists():
        assert run(name, root, whole) == 0
    shutil.copytree(whole, out)
    process = context().Process(target=limited, args=(name, root, out, said, 40))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert "\n" not in said.read_text(encoding="utf-8")
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
    """Too small for a model; and filled by somebody else in the middle of a slide, which goes on when there is room."""
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
