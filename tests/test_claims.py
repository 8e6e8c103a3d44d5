"""Only one process at a time writes a folder; tested with real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from napari_pbip.claims import claim, claims, is_read, keep_for_reading
from napari_pbip.errors import OutputError
from napari_pbip.events import Finished, Job
from napari_pbip.files import prepare_folder
from tests.waiting import PATIENCE

_HOLD = """
import sys, time
from pathlib import Path
from napari_pbip.claims import claim
with claim(Path(sys.argv[1]), "training"):
    print("have it", flush=True)
    sys.stdin.read()
"""


_READ = """
import sys
from pathlib import Path
from napari_pbip.claims import claim, keep_for_reading
folder = Path(sys.argv[1])
with claim(folder, "fetching"):
    keep_for_reading(folder)
print("have it", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(folder: Path, program: str = _HOLD) -> Iterator[subprocess.Popen[str]]:
    """Start a process that claims the folder, or keeps it for reading, until its input ends."""
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "have it"
        yield process
        process.kill()


def test_the_second_process_is_told_who_has_it_and_what_to_do(tmp_path: Path) -> None:
    with another_process(tmp_path / "run") as process:
        with pytest.raises(OutputError) as caught, claim(tmp_path / "run", "training"):
            pass
        said = str(caught.value)
        assert f"in use by process {process.pid} on {socket.gethostname()} (training)" in said
        assert "wait" in said
        assert "\n" not in said
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
    with claim(tmp_path / "run", "training"):
        pass


def test_a_crash_locks_nobody_out(tmp_path: Path) -> None:
    with another_process(tmp_path / "run") as process:
        os.kill(process.pid, signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
        process.wait()
    assert (tmp_path / "run" / ".in-use.json").exists()
    prepare_folder(tmp_path / "run", "run.json", overwrite=False)  # what is left of it is nothing of anybody's
    with claim(tmp_path / "run", "training"):
        pass
    assert not (tmp_path / "run" / ".in-use.json").exists()


def test_two_jobs_of_one_process_do_not_share_it_either(tmp_path: Path) -> None:
    @claims("out", "building a bank")
    def build(tiles: int, out: Path) -> Job:
        (out / "bank.json").write_text("{}")
        yield Finished(out)
        yield Finished(out)

    first = build(3, out=tmp_path / "bank")
    next(first)
    with pytest.raises(OutputError, match=rf"process {os.getpid()} on .*building a bank"):
        next(build(3, tmp_path / "bank"))
    first.close()
    assert [one.name for one in (tmp_path / "bank").iterdir()] == ["bank.json"]
    assert len(list(build(3, tmp_path / "bank"))) == 2


def test_one_can_wait_for_the_other(tmp_path: Path) -> None:
    with another_process(tmp_path / "labels") as process:
        assert process.stdin is not None
        process.stdin.close()
        with claim(tmp_path / "labels", "writing labels", wait=PATIENCE):
            assert process.wait() == 0


def test_a_job_that_writes_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), claim(tmp_path / "new" / "out", "training"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with claim(tmp_path / "mine", "training"):
        pass
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"]


def test_a_file_in_place_of_the_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"), claim(tmp_path / "out", "training"):
        pass
    assert (tmp_path / "out").read_text() == "a file"


def test_a_folder_is_read_until_all_processes_that_keep_it_have_ended(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    with another_process(folder, _READ) as first, another_process(folder, _READ) as second:
        assert is_read(folder)
        first.kill()
        first.wait()
        assert is_read(folder)
        second.kill()
        second.wait()
        assert not is_read(folder)
    assert not list(folder.iterdir())
    with claim(folder, "fetching"):
        keep_for_reading(folder)
        keep_for_reading(folder)
    assert is_read(folder)  # in this process itself
    assert len(list(folder.iterdir())) == 1
