"""However a training is stopped, nothing is lost: real signals to real processes, full memory, divergence."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from napari_pbip import samples
from napari_pbip.bank import load_single_tiles
from napari_pbip.config import BankSettings, DataSettings, JobSettings, PretrainSettings
from napari_pbip.engine import runs
from napari_pbip.engine.banks import build_bank
from napari_pbip.engine.encoding import TileEncoder
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.training.pretrain import pretrain
from napari_pbip.engine.training.train import train
from napari_pbip.errors import JobFailed, ModelError, PbipError
from napari_pbip.events import Epoch, Event, Finished, Job, Step, Warned
from napari_pbip.models.methods.cam import Cam
from napari_pbip.models.pretraining import Pretraining
from napari_pbip.signals import Stopped, answer_signals, held_back
from tests.engine import interrupted
from tests.engine.conftest import settings_for
from tests.forking import forking
from tests.waiting import PATIENCE

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no such signals")


def same(a: Path, b: Path) -> bool:
    first, second = load_file(a), load_file(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def whole(weak_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an uninterrupted run."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    list(train(settings_for(weak_data), out))
    return out


def failing_at(call: int, run: Callable[..., Any], error: Exception) -> Callable[..., Any]:
    """Return ``run`` with an error after the work of the call with this number."""
    calls = 0

    def failing(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        result = run(*args, **options)
        if calls == call:
            raise error
        return result

    return failing


def pretraining() -> PretrainSettings:
    values = {"steps": 5, "batch_size": 3, "crop": 64, "encoder_tiles": 16, "precision": "float32", "device": "cpu"}
    return PretrainSettings.parse({"images": (samples.slide(),), **values})


@POSIX
@pytest.mark.parametrize("kind", ["train", "pretrain"])
def test_signals_at_any_moment_change_nothing(weak_data: Path, tmp_path: Path, kind: str) -> None:
    """Ctrl+C, SIGTERM and both at once, many times, in a step, a validation or a save."""
    source = weak_data if kind == "train" else samples.slide()
    context = forking(interrupted.__name__)
    sittings = context.Value("i")
    process = context.Process(target=interrupted.main, args=(kind, tmp_path, source, sittings))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert sittings.value > 1
    for name in ("state", "last", "best") if kind == "train" else ("state", "model"):
        assert same(*(tmp_path / folder / f"{name}.safetensors" for folder in ("whole", "parts"))), name
    whole, parts = ((tmp_path / folder / "curves.csv").read_text() for folder in ("whole", "parts"))
    assert whole == parts
    if kind == "train":
        before, after = (runs.RunFacts.read(tmp_path / folder) for folder in ("whole", "parts"))
        assert (before.validations, before.best_epoch) == (after.validations, after.best_epoch)


@POSIX
@pytest.mark.parametrize(("kind", "number", "code"), [("train", signal.SIGTERM, 143), ("pretrain", signal.SIGINT, 130)])
def test_the_program_stops_cleanly(weak_data: Path, tmp_path: Path, kind: str, number: int, code: int) -> None:
    """After ``timeout``, ``scancel`` or Ctrl+C, there is one line, the signal's exit code, and a state for resuming."""
    out = tmp_path / "out"
    options = {
        "train": ["--method", "cam", "--data", weak_data, "--set", "train.steps=5000", "--set", "train.batch_size=4"],
        "pretrain": [samples.slide(), "--steps", 5000, "--set", "batch_size=2", "--set", "crop=64"],
    }
    command = [sys.executable, "-m", "napari_pbip", kind, *map(str, options[kind]), "--out", str(out)]
    # a shell without job control lets its children ignore Ctrl+C, and a test may be started by one
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"FORCE_COLOR": "1", "COLUMNS": "300"},  # with bars, as in a terminal
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    shown = b""
    while not re.search(rb"[1-9]\d*/5000", shown):  # steps that were made
        read = os.read(process.stderr.fileno(), 1 << 16)
        assert read, shown.decode()
        shown += read
    process.send_signal(number)
    said = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert "--resume continues from there" in said
    marker = out / ("run.json" if kind == "train" else "pretrain.json")
    assert json.loads(marker.read_text())["step"] > 0
    with safe_open(out / "state.safetensors", "pt") as state:
        assert int(state.get_tensor("step")) == json.loads(marker.read_text())["step"]


@POSIX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_bank_keeps_what_was_encoded(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes while the encoder computes the second batch."""
    for name in ("LYM", "MUS"):
        shutil.copytree(samples.tiles() / name, tmp_path / "tiles" / name)
    tiles = load_single_tiles(tmp_path / "tiles", DataSettings())
    settings = BankSettings(encoder="tiny", k=1, batch_size=3)
    encode, calls = TileEncoder.__call__, []

    def stopped(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            os.kill(os.getpid(), number)
        return encode(*args)

    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        answer_signals()
        with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, Stopped)):
            patch.setattr(TileEncoder, "__call__", stopped)
            list(build_bank.build_bank(tiles, tmp_path / "bank", settings))
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)
    *_, end = build_bank.build_bank(tiles, tmp_path / "bank", settings, update=True)
    assert isinstance(end, Finished)
    assert end.summary["encoded"] == len(tiles.single_class) - 3


def test_full_memory_costs_nothing(
    weak_data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(weak_data)
    errors = [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")]
    for number, error in enumerate(errors):
        out = tmp_path / f"parts{number}"
        with monkeypatch.context() as patch:
            patch.setattr(Cam, "loss", failing_at(5, Cam.loss, error))
            with pytest.raises(JobFailed, match=r"memory is full; use a smaller `train\.batch_size`"):
                list(train(settings, out))
        assert runs.RunFacts.read(out).step == 4
        list(train(settings, out, resume=True))
        for name in ("state", "last", "best"):
            assert same(whole / f"{name}.safetensors", out / f"{name}.safetensors"), name


def test_what_a_step_has_counted_before_it_failed_is_not_counted_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch normalisation has already updated its running means when the memory is full."""
    list(pretrain(pretraining(), tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(Pretraining, "loss", failing_at(3, Pretraining.loss, MemoryError()))
        with pytest.raises(JobFailed, match="memory is full"):
            list(pretrain(pretraining(), tmp_path / "parts"))
    assert load_file(tmp_path / "parts" / "state.safetensors")["step"] == 2
    list(pretrain(pretraining(), tmp_path / "parts", resume=True))
    for name in ("state", "model"):
        assert same(*(tmp_path / folder / f"{name}.safetensors" for folder in ("whole", "parts"))), name


def test_half_an_update_is_never_saved(
    weak_data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, out = settings_for(weak_data), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", failing_at(5, torch.optim.AdamW.step, MemoryError()))
        with pytest.raises(JobFailed, match="memory is full"):
            list(train(settings, out))
    assert runs.RunFacts.read(out).step == 3  # of the validation
    list(train(settings, out, resume=True))
    assert same(whole / runs.STATE, out / runs.STATE)


@pytest.mark.parametrize("when", ["loss", "weights"])
def test_numbers_that_are_none_are_never_saved(weak_data: Path, tmp_path: Path, when: str) -> None:
    rate = 1e30 if when == "weights" else 1e4
    # batch normalisation keeps the loss of the default backbone finite for long
    settings = settings_for(weak_data, backbone={"name": "mit-b0"}, train={"epochs": 4, "learning_rate": rate})
    out = tmp_path / "run"
    with pytest.raises(ModelError, match=r"diverged at step \d+ \((the loss|a weight)"):
        list(train(settings, out))
    for path in out.glob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(path).values()), path


def test_a_model_that_was_never_validated_can_be_used(weak_data: Path, tmp_path: Path) -> None:
    job = train(settings_for(weak_data, train={"epochs": 9}), tmp_path / "run")
    stop_at(job, 2)
    assert not (tmp_path / "run" / "best.safetensors").exists()
    model = runs.load_model(tmp_path / "run")
    assert model.which == "last"
    settings = JobSettings()
    quick = settings.segment.model_copy(update={"tile": 256, "device": "cpu"})
    events = list(segment(samples.slide(), tmp_path / "run", tmp_path / "out", quick, settings.thresholds))
    assert isinstance(events[-1], Finished)
    said = [event.message for event in events if isinstance(event, Warned)]
    assert any("before its first validation (2 of 27 steps)" in message for message in said)


def stop_at(job: Job, step: int) -> None:
    for event in job:
        if isinstance(event, Step) and "loss" in event.values and event.done == step:
            break
    job.close()


def test_a_score_of_zero_is_a_score(weak_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_right(*_: Any) -> Any:
        yield Step(0)
        figures = dict.fromkeys(("miou", "fwiou", "biou", "dice"), 0.0)
        return {"oracle": figures, "predicted": figures}

    monkeypatch.setattr("napari_pbip.engine.training.trainer.score_tiles", nothing_right)
    events: list[Event] = list(train(settings_for(weak_data, train={"epochs": 3}), tmp_path / "run"))
    assert [e.best for e in events if isinstance(e, Epoch)] == [True, False, False]


def test_the_progress_is_of_the_moment_of_the_state(weak_data: Path, tmp_path: Path) -> None:
    """After a power cut between two files of a save, ``run.json`` is that of the save before."""
    settings, out = settings_for(weak_data, train={"epochs": 3}), tmp_path / "run"
    list(train(settings, tmp_path / "whole"))
    stop_at(train(settings, out), 4)
    before = (out / "run.json").read_bytes()
    stop_at(train(settings, out, resume=True), 8)
    assert len(runs.RunFacts.read(out).validations) == 2
    (out / "run.json").write_bytes(before)
    list(train(settings, out, resume=True))
    assert runs.RunFacts.read(out).validations == runs.RunFacts.read(tmp_path / "whole").validations
    assert same(tmp_path / "whole" / "best.safetensors", out / "best.safetensors")


def test_a_state_of_an_earlier_version_is_gone_on_from(weak_data: Path, whole: Path, tmp_path: Path) -> None:
    settings, out = settings_for(weak_data), tmp_path / "run"
    stop_at(train(settings, out), 4)
    runs.write_weights(out / runs.STATE, load_file(out / runs.STATE))  # without facts of its own
    list(train(settings, out, resume=True))
    assert same(whole / "best.safetensors", out / "best.safetensors")
    assert runs.RunFacts.read(out).validations == runs.RunFacts.read(whole).validations


@POSIX
def test_a_signal_waits_until_the_block_has_ended() -> None:
    done = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), held_back():
            with held_back():  # a save within a block that is not to be interrupted
                os.kill(os.getpid(), signal.SIGINT)
                done.append("inner")
            done.append("outer")
        with pytest.raises(PbipError, match="disk"), held_back():
            os.kill(os.getpid(), signal.SIGINT)
            raise PbipError("The disk is full.")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == ["inner", "outer"]
