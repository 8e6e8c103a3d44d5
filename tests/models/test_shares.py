"""Several processes compute the losses, gradients and statistics of one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_two_processes_get_the_gradients_of_one(tmp_path: Path) -> None:
    """For every method, with a batch that cannot be divided evenly; real processes that exchange tensors (gloo)."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "--log-dir", str(tmp_path), "-m", "tests.models.in_shares"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
