"""Backbones of other libraries in a run: batch statistics and dropout survive a stop, and weights are loaded."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import timm
from safetensors.torch import load_file, save_file

from napari_pbip.engine import runs
from napari_pbip.engine.inference.evaluate import evaluate
from napari_pbip.engine.training.train import train
from napari_pbip.errors import ModelError
from napari_pbip.events import Finished
from tests.engine.conftest import settings_for
from tests.engine.training.test_train import run, same, sentence, stop_after


@pytest.mark.parametrize("name", ["resnet18", "pvt-v2-b0"])
def test_a_resumed_run_is_bit_for_bit_an_uninterrupted_one(weak_data: Path, tmp_path: Path, name: str) -> None:
    settings = settings_for(weak_data, backbone={"name": name}, train={"steps": 3})
    run(train(settings, tmp_path / "whole"))
    stop_after(train(settings, tmp_path / "parts"), 1)
    run(train(settings, tmp_path / "parts", resume=True))
    for file in ("last.safetensors", "best.safetensors", "state.safetensors"):
        assert same(tmp_path / "whole" / file, tmp_path / "parts" / file), file
    scored = run(evaluate(tmp_path / "parts", settings.data, "test"))[-1]
    assert isinstance(scored, Finished)
    whole, parts = (runs.load_model(tmp_path / n).identity for n in ("whole", "parts"))
    assert whole == parts


def test_training_starts_from_weights_or_says_that_they_are_of_another(weak_data: Path, tmp_path: Path) -> None:
    settings = settings_for(weak_data, backbone={"name": "resnet18"}, train={"steps": 1})
    run(train(settings, tmp_path / "first"))
    first = load_file(tmp_path / "first/last.safetensors")
    again = settings_for(
        weak_data,
        backbone={"name": "resnet18", "weights": tmp_path / "first/last.safetensors"},
        train={"steps": 1, "learning_rate": 1e-12, "weight_decay": 0},
    )
    run(train(again, tmp_path / "second"))
    second = load_file(tmp_path / "second/last.safetensors")
    name = "backbone.stages.0.conv1.weight"
    assert (first[name] - second[name]).abs().max() < 1e-8

    save_file(first, tmp_path / "model.safetensors")
    other = settings_for(weak_data, backbone={"name": "pvt-v2-b0", "weights": tmp_path / "model.safetensors"})
    assert "does not hold the weights of pvt-v2-b0" in sentence(train(other, tmp_path / "third"), ModelError)


def test_the_automatic_learning_rate_depends_on_the_start(weak_data: Path, tmp_path: Path) -> None:
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "resnet18.safetensors")
    peaks = {}
    for name, backbone in {
        "published": {"name": "resnet18", "weights": tmp_path / "resnet18.safetensors"},
        "builtin": {"name": "efficientnet-lite0", "weights": "builtin"},
        "ours": {"name": "resnet18", "weights": tmp_path / "published/last.safetensors"},
        "random": {"name": "mit-b0", "weights": None},
    }.items():
        settings = settings_for(weak_data, backbone=backbone, train={"steps": 1, "learning_rate": "auto"})
        run(train(settings, tmp_path / name))
        with (tmp_path / name / "curves.csv").open() as file:
            peaks[name] = float(next(csv.DictReader(file))["learning_rate"])
    assert peaks == {"published": 5e-5, "builtin": 1e-3, "ours": 5e-4, "random": 5e-4}
