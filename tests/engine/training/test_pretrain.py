"""Pre-training on real slides and pictures: resumable, and its file starts trainings and encoders."""

from __future__ import annotations

import csv
import json
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from napari_pbip import samples
from napari_pbip.config import PretrainSettings
from napari_pbip.engine.training.pretrain import pretrain
from napari_pbip.engine.training.train import train
from napari_pbip.engine.training.unlabelled import Crops, find_sources
from napari_pbip.errors import ConfigError, DataError, OutputError, SlideError, WeightsUnavailable
from napari_pbip.events import Event, Finished, Job, Noted, Step, Warned
from napari_pbip.models import backbones, encoders
from napari_pbip.slides import save_mpp
from tests.engine.conftest import settings_for


def settings(*images: Path, **changes: object) -> PretrainSettings:
    small = {"steps": 5, "batch_size": 3, "crop": 64, "encoder_tiles": 32, "precision": "float32", "device": "cpu"}
    return PretrainSettings.parse({"images": images or (samples.slide(),), **small, **changes})


def stop_after(job: Job, steps: int) -> None:
    for event in job:
        if "loss" in getattr(event, "values", {}) and event.done >= steps:
            break
    job.close()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    out = tmp_path_factory.mktemp("pretrained") / "run"
    return out, list(pretrain(settings(), out))


def test_it_leaves_weights_and_what_they_were_made_of(finished: tuple[Path, list[Event]]) -> None:
    out, events = finished
    assert isinstance(events[-1], Finished)
    assert [e.done for e in events if isinstance(e, Step) and "loss" in e.values] == [1, 2, 3, 4, 5]
    facts = json.loads((out / "pretrain.json").read_text())
    assert facts["step"] == 5
    assert facts["learned_from"]["images"] == [str(samples.slide())]
    assert 0.3 < facts["learned_from"]["tissue_mm2"] < 1.5
    with (out / "curves.csv").open() as file:
        assert list(csv.DictReader(file))[-1].keys() == {"step", "learning_rate", "loss"}
    assert (out / "model.safetensors").stat().st_size < 8e6
    whole = {name for name, t in load_file(out / "model.safetensors").items() if t.dtype != torch.float16}
    assert whole
    assert all(".running_" in name for name in whole)


def test_resumed_it_is_bit_for_bit_an_uninterrupted_one(finished: tuple[Path, list[Event]], tmp_path: Path) -> None:
    stop_after(pretrain(settings(), tmp_path), 2)
    list(pretrain(settings(), tmp_path, resume=True))
    for name in ("model.safetensors", "state.safetensors"):
        whole, parts = load_file(finished[0] / name), load_file(tmp_path / name)
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[key], parts[key]) for key in whole), name
    assert (tmp_path / "curves.csv").read_text() == (finished[0] / "curves.csv").read_text()


def test_trainings_start_from_it_and_banks_are_made_with_it(
    finished: tuple[Path, list[Event]], weak_data: Path, tmp_path: Path
) -> None:
    out, _ = finished
    backbone = backbones.load("efficientnet-lite0", out)
    stored = load_file(out / "model.safetensors")
    name = "0.conv_stem.weight"
    assert torch.equal(backbone.stages.state_dict()[name], stored[f"backbone.stages.{name}"].float())
    before = backbone.mean.clone()
    assert torch.equal(backbone.as_pretrained().mean, before)  # it is taught with our statistics, not ImageNet's
    encoder = encoders.load("pretrained", out)
    image = torch.rand(2, 3, 96, 96, requires_grad=True)
    features = encoder(image)
    assert features.shape == (2, encoder.spec.dimension)
    features.sum().backward()
    assert image.grad.abs().sum() > 0
    torch.testing.assert_close(encoder(image[1:]), features[1:], atol=1e-4, rtol=1e-4)
    changes = {"bank": {"encoder": "pretrained", "weights": out}, "backbone": {"weights": out}}
    events = list(
        train(settings_for(weak_data, method={"name": "pbip"}, train={"steps": 2}, **changes), tmp_path / "run")
    )
    assert isinstance(events[-1], Finished)
    with pytest.raises(WeightsUnavailable, match="pre-training"):
        encoders.load("pretrained", tmp_path / "run" / "best.safetensors")


def test_crops_are_real_tissue_and_follow_from_the_seed(tmp_path: Path) -> None:
    for number, path in enumerate(sorted((samples.tiles() / "TUM").iterdir())[:2]):
        shutil.copy(path, tmp_path / f"{number}.png")
    Image.new("RGB", (700, 700), (245, 245, 245)).save(tmp_path / "glass.png")
    (tmp_path / "notes.txt").write_text("no picture")
    save_mpp(tmp_path / "0.png", 0.5)
    asked = settings(samples.slide(), tmp_path, image_mpp=0.5, crop=128)
    events, sources = drain(find_sources(asked))
    warned = " ".join(e.message for e in events if isinstance(e, Warned))
    assert "1 of 4 images show no tissue" in warned
    (noted,) = (e.message for e in events if isinstance(e, Noted))
    assert "Found 4 slides and pictures." in noted
    assert "1 .txt, such as notes.txt" in noted
    assert len(sources) == 3
    batches = np.concatenate(drawn(sources, asked, range(8)))
    assert batches.shape == (24, 128, 128, 3)
    assert ((batches.min(3) > 225).mean((1, 2)) < 0.9).all()  # nothing but tissue
    assert np.array_equal(batches[9:12], drawn(sources, asked, [3])[0])
    other = asked.model_copy(update={"seed": 1})
    assert not np.array_equal(batches[:3], drawn(sources, other, [0])[0])
    many = sources * 30  # more than are kept open
    assert drawn(many, asked, [0])[0].shape == (3, 128, 128, 3)


def test_results_and_system_folders_of_an_archive_are_left_out(tmp_path: Path) -> None:
    """Overlay pictures are not training data, and links may form cycles."""
    tile = next(iter(sorted((samples.tiles() / "TUM").iterdir())))
    archive = tmp_path / "archive"
    for place in ("case", "case/result", "case/@eaDir", "case/model"):
        (archive / place).mkdir(parents=True)
        shutil.copy(tile, archive / place / f"{Path(place).name}.png")
    (archive / "case/result/areas.csv").touch()
    (archive / "case/model/run.json").touch()
    store = archive / "case/result/case.ome.zarr"
    (store / "pbip").mkdir(parents=True)
    (store / "pbip" / "zarr.json").touch()
    (archive / "case" / "again").symlink_to(archive, target_is_directory=True)
    events, sources = drain(find_sources(settings(archive, image_mpp=0.5, crop=128)))
    assert [source.path.name for source in sources] == ["case.png"]
    (noted,) = (e.message for e in events if isinstance(e, Noted))
    for name in ("result", "model", "@eaDir"):
        assert name in noted
    with pytest.raises(DataError, match="is a result of napari-pbip"):
        drain(find_sources(settings(store, image_mpp=0.5)))


def test_nothing_is_seen_finer_than_it_was_scanned(tmp_path: Path) -> None:
    """Enlarged coarse scans would be blurred; they also have fewer crops than a fine scan of the same area."""
    pink, purple = (220, 130, 180), (90, 40, 120)
    board = (np.indices((512, 512)) // 4).sum(0) % 2  # another colour every four pixels
    Image.fromarray(np.array([pink, purple], np.uint8)[board]).save(tmp_path / "coarse.png")
    Image.new("RGB", (512, 512), pink).save(tmp_path / "fine.png")
    save_mpp(tmp_path / "coarse.png", 2.0)
    save_mpp(tmp_path / "fine.png", 0.5)
    asked = settings(tmp_path, tissue={"threshold": 0.01, "smallest_um": 0})
    sources = drain(find_sources(asked))[1]
    assert len(sources) == 2
    crops = np.concatenate(drawn(sources, asked, range(40)))
    coarse = crops[np.ptp(crops, (1, 2)).max(1) > 60]
    assert 0.3 < len(coarse) / len(crops) < 0.7
    changes = np.diff(coarse[..., 0] > 150, axis=2).mean((1, 2))
    assert changes.min() > 1 / 8  # an edge every four pixels, as scanned; enlarged to 1 micron, every eight


def drawn(sources, asked, steps):
    with closing(Crops(sources, asked)) as crops:
        return [crops.batch(step) for step in steps]


def drain(job):
    events = []
    while True:
        try:
            events.append(next(job))
        except StopIteration as end:
            return events, end.value


def test_what_cannot_be_is_one_sentence(finished: tuple[Path, list[Event]], tmp_path: Path) -> None:
    out, _ = finished
    tile = next((samples.tiles() / "TUM").iterdir())
    (tmp_path / "a.txt").write_text("x")
    Image.new("RGB", (700, 700), (245, 245, 245)).save(tmp_path / "glass.png")
    wrong = [
        (settings(tmp_path / "none"), {}, DataError, "is not there"),
        (settings(tmp_path / "a.txt"), {}, DataError, "no slide or picture"),
        (settings(tile), {}, SlideError, "`image_mpp`"),
        (settings(tmp_path / "glass.png", image_mpp=0.5), {}, DataError, "No tissue"),
        (settings(seed=1), {"resume": True}, ConfigError, "another seed"),
        (settings(steps=2), {"resume": True}, ConfigError, "5 steps already"),
        (settings(), {}, OutputError, "`resume=True`"),
    ]
    for asked, how, error, words in wrong:
        with pytest.raises(error, match=words) as caught:
            list(pretrain(asked, out, **how))
        assert "\n" not in str(caught.value)
    with pytest.raises(OutputError, match="leave `resume=True` out"):
        list(pretrain(settings(), tmp_path / "empty", resume=True))
    with pytest.raises(ConfigError, match="images"):
        PretrainSettings.parse({"images": []})
