"""Trainings in several processes, which torchrun starts."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from napari_pbip.config import JobSettings
from napari_pbip.engine import runs
from napari_pbip.engine.training.processes import joined
from napari_pbip.engine.training.train import train
from napari_pbip.errors import ConfigError
from tests.engine.conftest import settings_for

SLOW = {"learning_rate": 2e-5}
"""AdamW turns the rounding of gradients that are nearly zero into steps of this length."""


def torchrun(scratch: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a module in two processes; real ones, that exchange tensors with gloo.

    Args:
        scratch: Where torchrun puts its logs, which it leaves behind.
        arguments: The module, and what it is called with.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--log-dir", str(scratch / "logs"), "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)


def curves(run: Path) -> list[list[float]]:
    with (run / "curves.csv").open() as file:
        return [[float(value) for value in row] for row in list(csv.reader(file))[1:]]


def alone(settings: JobSettings, out: Path) -> Path:
    """Train in this process; return the run."""
    list(train(settings, out))
    return out


def test_two_processes_learn_what_one_does_and_write_once(weak_data: Path, tmp_path: Path) -> None:
    bank = {"encoder": "efficientnet-lite0"}  # so that a linear probe has a share, which the leader fits
    settings = settings_for(weak_data, method={"name": "pbip"}, bank=bank, train={"batch_size": 5, "steps": 4, **SLOW})
    settings.write(tmp_path / "job.yaml")
    done = torchrun(tmp_path, "napari_pbip", "train", tmp_path / "job.yaml", "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Training pbip on cpu, 2 processes") == done.stderr.count("Trained 4 steps") + 1 == 2
    whole = alone(settings, tmp_path / "one")
    assert curves(tmp_path / "two") == [pytest.approx(row, rel=2e-2, abs=2e-3) for row in curves(whole)]
    one, two = (runs.RunFacts.read(tmp_path / name) for name in ("one", "two"))
    assert (two.finished, two.prototypes, two.fit) == (True, one.prototypes, one.fit)
    fitted = [runs.read_weights(tmp_path / name / "last.safetensors")["probe.weight"] for name in ("one", "two")]
    torch.testing.assert_close(*fitted, rtol=0.02, atol=0.005)  # features are rounded as the number of threads decides
    assert [v["step"] for v in two.validations] == [v["step"] for v in one.validations]
    assert {path.name for path in (tmp_path / "two").iterdir()} == {path.name for path in whole.iterdir()}


def test_when_one_process_ends_all_do_and_one_can_go_on_alone(weak_data: Path, tmp_path: Path) -> None:
    settings = settings_for(weak_data, train=SLOW)
    settings.write(tmp_path / "job.yaml")
    done = torchrun(tmp_path, "tests.engine.losing_one", "train", tmp_path / "job.yaml", "--out", tmp_path / "run")
    assert done.returncode != 0
    assert "Error in process 1: The machine's memory is full" in done.stderr
    assert runs.RunFacts.read(tmp_path / "run").step == 2, done.stderr  # the leader saved what it had
    list(train(settings, tmp_path / "run", resume=True))
    whole = alone(settings, tmp_path / "whole")
    assert curves(tmp_path / "run") == [pytest.approx(row, rel=2e-2, abs=2e-3) for row in curves(whole)]


def test_other_commands_do_not_run_several_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "napari_pbip", "segment", "slide.svs", "--model", "run", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Error in process 1: Of the processes of torchrun only train and pretrain make use" in done.stderr


def test_each_process_needs_a_card_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without cards: what is known about them is said by a stand-in for torch's answers."""
    values = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"more processes on this machine than graphics cards \(1\)"), joined("auto"):
        pass
