"""Several processes compute the losses, gradients and statistics of one."""

from __future__ import annotations

from pathlib import Path

from tests.forking import forking
from tests.models import in_shares


def test_two_processes_get_the_gradients_of_one(tmp_path: Path) -> None:
    """For every method, with a batch that cannot be divided evenly; real processes that exchange tensors (gloo)."""
    context = forking(in_shares.__name__)
    processes = [context.Process(target=in_shares.main, args=(rank, tmp_path / "meeting")) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
