"""ConStruct end to end: bank, training, resuming, a slide; and what a run saves of its frozen networks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel

from napari_pbip.config import JobSettings, SegmentSettings, ThresholdSettings
from napari_pbip.engine import runs
from napari_pbip.engine.inference.evaluate import evaluate
from napari_pbip.engine.inference.explain import Explainer
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.training.train import train
from napari_pbip.errors import ConfigError, ModelError
from napari_pbip.events import Finished, Started, Step
from napari_pbip.models import backbones, encoders
from napari_pbip.models.encoders.prompts import default_sentence
from napari_pbip.models.methods.construct import ConStruct
from tests.conftest import WEAK_SIDE as SIDE
from tests.engine.conftest import settings_for
from tests.engine.training.test_train import run, same, sentence, stop_after

WIDTH = 32
SMALL = {"hidden_size": WIDTH, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}


def write_facts(folder: Path) -> Path:
    facts = {"size": {"height": SIDE, "width": SIDE}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a vision transformer in the layout of the hub."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("student")
    ViTModel(ViTConfig(**SMALL, image_size=SIDE)).save_pretrained(folder)
    return write_facts(folder)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with the weights of a backbone."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("teacher") / "model.safetensors"
    save_file({f"backbone.{n}": t for n, t in backbones.load("efficientnet-lite0").state_dict().items()}, path)
    return path


def settings(data: Path, student: Path, teacher: Path | None, **changes: Any) -> JobSettings:
    values: dict[str, Any] = {
        "method": {"name": "construct", "memory": 16},
        "bank": {"encoder": "transformers", "weights": student, "k": 2},
        "backbone": {"weights": teacher},
    }
    for section, value in changes.items():
        values[section] = {**values.get(section, {}), **value}
    return settings_for(data, **values)


@pytest.fixture(scope="module")
def finished(weak_data: Path, student: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "construct"
    run(train(settings(weak_data, student, teacher), out))
    return out


def test_a_run_keeps_what_was_trained_and_not_what_it_looks_through(finished: Path) -> None:
    weights = load_file(finished / "best.safetensors")
    assert {name.split(".")[0] for name in weights} == {
        "backbone", "prototypes", "subclass_class", "heads", "offsets", "memory"
    }  # fmt: skip
    assert all(name.startswith("backbone.adapters.") for name in weights if name.startswith("backbone."))
    state = load_file(finished / "state.safetensors")
    assert not any("encoder" in name or "teacher" in name for name in state)
    facts = json.loads((finished / "run.json").read_text())
    assert facts["prototypes"]["encoder"]["name"] == "transformers"
    assert facts["prototypes"]["k"] == [2, 2]


def test_a_resumed_run_is_bit_for_bit_an_uninterrupted_one(
    weak_data: Path, student: Path, teacher: Path, finished: Path, tmp_path: Path
) -> None:
    job = settings(weak_data, student, teacher)
    stop_after(train(job, tmp_path / "parts"), 2)
    stop_after(train(job, tmp_path / "parts", resume=True), 4)
    events = run(train(job, tmp_path / "parts", resume=True))
    assert next(e for e in events if isinstance(e, Started) and e.unit == "steps").done == 4
    for file in ("last.safetensors", "best.safetensors", "state.safetensors"):
        assert same(finished / file, tmp_path / "parts" / file), file
    assert (finished / "curves.csv").read_text() == (tmp_path / "parts/curves.csv").read_text()
    assert int(load_file(finished / "last.safetensors")["memory.written"]) > 16  # it has gone round


def test_a_trained_model_scores_and_segments(
    weak_data: Path, finished: Path, sample_slide: Path, tmp_path: Path
) -> None:
    """Neither the bank nor the teacher is needed."""
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("bank"))
    job = settings_for(weak_data)
    scored = run(evaluate(tmp_path / "run", job.data, "test"))[-1]
    assert isinstance(scored, Finished)
    assert 0 <= scored.summary["protocols"]["predicted"]["miou"] <= 100
    segmented = run(segment(sample_slide, tmp_path / "run", tmp_path / "out", job.segment, job.thresholds))[-1]
    assert isinstance(segmented, Finished)
    assert sum(row["area_mm2"] for row in segmented.summary["areas"]) > 0


def test_prototypes_can_be_looked_at(finished: Path, sample_slide: Path, tmp_path: Path) -> None:
    quick = SegmentSettings(precision="float32", device="cpu", mpp=0.5, overlap=16, batch_size=8)
    run(segment(sample_slide, finished, tmp_path, quick, ThresholdSettings()))
    found = Explainer.from_store(next(tmp_path.glob("*.ome.zarr")), (finished,), ()).explain(1000, 1000)
    assert len(found.matches) == 4
    assert all(-1 <= match.similarity <= 1 and match.tiles for match in found.matches)
    assert "they started from" in found.note


def test_the_encoder_is_found_again_or_missed_in_one_sentence(
    weak_data: Path, student: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(student, tmp_path / "vit")
    run(train(settings(weak_data, tmp_path / "vit", teacher, train={"steps": 1}), tmp_path / "run"))
    identity = runs.load_model(tmp_path / "run").identity

    (tmp_path / "weights").mkdir()
    shutil.move(tmp_path / "vit", tmp_path / "weights" / "transformers")
    monkeypatch.delenv("NAPARI_PBIP_WEIGHTS", raising=False)
    with pytest.raises(ModelError, match=r"no longer in .*vit.*NAPARI_PBIP_WEIGHTS"):
        runs.load_model(tmp_path / "run")
    monkeypatch.setenv("NAPARI_PBIP_WEIGHTS", str(tmp_path / "weights"))
    assert runs.load_model(tmp_path / "run").identity == identity

    path = tmp_path / "weights/transformers/model.safetensors"
    weights = load_file(path)
    weights["layernorm.bias"] += 1
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ModelError, match="not those of the training"):
        runs.load_model(tmp_path / "run")


def test_what_it_cannot_train_with_is_said_before_anything_is_written(
    weak_data: Path, student: Path, teacher: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert "backbone.weights" in sentence(train(settings(weak_data, student, None), out), ConfigError)
    texture = settings_for(
        weak_data, method={"name": "construct"}, bank={"encoder": "texture"}, backbone={"weights": teacher}
    )
    assert "vision transformer" in sentence(train(texture, out), ModelError)
    prompted = settings(weak_data, student, teacher, method={"start": "text", "sentences": {"NEC": "Debris."}})
    assert "LYM, MUS" in sentence(train(prompted, out), ConfigError)
    prompted = settings(weak_data, student, teacher, method={"start": "text"})
    assert "no text tower" in sentence(train(prompted, out), ConfigError)
    assert not out.exists()


def test_without_structure_there_is_no_teacher(weak_data: Path, student: Path, tmp_path: Path) -> None:
    job = settings(weak_data, student, None, method={"structure": 0}, train={"steps": 2})
    losses = [e.values for e in run(train(job, tmp_path / "run")) if isinstance(e, Step) and "loss" in e.values]
    assert len(losses) == 2
    assert "structure" not in losses[0]


def test_what_comes_with_the_package_is_student_and_teacher(
    weak_data: Path, sample_slide: Path, tmp_path: Path
) -> None:
    """Without other weights, student and teacher are the same network, and differ only by the adapters."""
    values: dict[str, Any] = {
        "method": {"name": "construct", "memory": 16},
        "bank": {"encoder": "efficientnet-lite0", "k": 2},
    }
    job = settings_for(weak_data, **values, backbone={"weights": "builtin"}, train={"steps": 4, "precision": "float32"})
    losses = [e.values for e in run(train(job, tmp_path / "run")) if isinstance(e, Step) and "loss" in e.values]
    assert losses[0]["structure"] < 1e-8 < losses[-1]["structure"]
    segmented = run(segment(sample_slide, tmp_path / "run", tmp_path / "out", job.segment, job.thresholds))[-1]
    assert isinstance(segmented, Finished)
    assert sum(row["area_mm2"] for row in segmented.summary["areas"]) > 0


def clip(folder: Path) -> Path:
    """Return the folder of a vision-language model in the layout of the hub, with a vocabulary of letters."""
    torch.manual_seed(0)
    text = {**SMALL, "vocab_size": 99, "bos_token_id": 97, "eos_token_id": 98}
    vision = {**SMALL, "image_size": SIDE, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).save_pretrained(folder)
    letters = "abcdefghijklmnopqrstuvwxyz&,:.-"
    names = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {name: i for i, name in enumerate(names)} | {"<|startoftext|>": 97, "<|endoftext|>": 98}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return write_facts(folder)


def test_prototypes_start_at_sentences(weak_data: Path, teacher: Path, tmp_path: Path) -> None:
    """Default sentences, or those of the user, with an encoder that has a text tower and without a bank."""
    own = {"MUS": "Pink bundles of fibres."}
    method = {"start": "text", "sentences": own, "k": 3}
    job = settings(
        weak_data, clip(tmp_path / "clip"), teacher, method=method, train={"steps": 2, "learning_rate": 1e-9}
    )
    out = tmp_path / "run"
    run(train(job, out))
    assert not (out / "bank").exists()
    prototypes = load_file(out / "last.safetensors")["prototypes"]
    encoder = encoders.load("transformers", tmp_path / "clip")
    features = F.normalize(encoder.text_features([default_sentence("LYM"), own["MUS"]]), dim=1)
    assert prototypes.shape == (6, 24)
    noise = prototypes - features.repeat_interleave(3, 0)
    assert 0.01 < noise.std() < 0.03
    assert torch.pdist(prototypes).min() > 0.01
    assert runs.RunFacts.read(out).prototypes["k"] == [3, 3]
    assert isinstance(runs.load_model(out).method, ConStruct)
