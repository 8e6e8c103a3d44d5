"""Mosaics in training: their pixels are known, and a method learns from them."""

from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from napari_pbip.bank import TileSet, load_tiles
from napari_pbip.config import DataSettings, JobSettings, TrainSettings
from napari_pbip.engine import runs
from napari_pbip.engine.inference.evaluate import evaluate
from napari_pbip.engine.loading import TileReader
from napari_pbip.engine.training.synthesis import Composer
from napari_pbip.engine.training.train import train
from napari_pbip.errors import DataError
from napari_pbip.events import Finished, Noted, Step
from tests.engine.conftest import settings_for

GREYS = (60, 120, 200)


@pytest.fixture
def plain_tiles(tmp_path: Path) -> TileSet:
    """Return single-class tiles of 64 x 48 pixels, each of one grey, which shows the class of a pixel."""
    for name, grey in zip("abc", GREYS, strict=True):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.fromarray(np.full((48, 64, 3), grey, np.uint8)).save(tmp_path / name / f"{number}.png")
    return load_tiles(tmp_path, "train", DataSettings())


def test_masks_say_what_the_pixels_of_mosaics_show(plain_tiles: TileSet) -> None:
    compose = Composer(plain_tiles, TrainSettings(batch_size=8), TileReader())
    mosaics = compose(3)
    assert mosaics.images.shape == (4, 3, 48, 48)
    assert mosaics.masks.shape == (4, 48, 48)
    for image, mask in zip(mosaics.images, mosaics.masks, strict=True):
        assert len(mask.unique()) >= 2
        for n in mask.unique():
            shown = 255 * image.mean(0)[mask == n]
            assert ((shown - GREYS[int(n)]).abs() < 30).all()  # stains are changed by a fifth
    again = compose(3)
    assert torch.equal(mosaics.images, again.images)
    assert torch.equal(mosaics.masks, again.masks)
    assert not torch.equal(mosaics.masks, compose(4).masks)


def test_a_class_that_no_tile_shows_alone_is_told(plain_tiles: TileSet) -> None:
    both = tuple(replace(t, labels=(0, 2)) if t.class_index == 2 else t for t in plain_tiles.tiles)
    with pytest.raises(DataError, match=r"c has none; .* `method\.synthesis` to 0"):
        Composer(replace(plain_tiles, tiles=both), TrainSettings(), TileReader())


def test_a_training_that_cannot_have_mosaics_leaves_no_folder(stripes: Path, tmp_path: Path) -> None:
    shutil.copytree(
        stripes / "train", tmp_path / "data" / "train", ignore=lambda _, names: [n for n in names if "[01]" in n]
    )
    shutil.copy(stripes / "classes.txt", tmp_path / "data")
    with pytest.raises(DataError, match="steep has none"):
        list(train(settings(tmp_path / "data", 1.0), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_by_default_mosaics_are_used_where_every_class_has_tiles_of_its_own(stripes: Path, tmp_path: Path) -> None:
    out, chosen = tmp_path / "run", settings(stripes, "auto", steps=4)
    job = train(chosen, out)
    for event in job:
        if isinstance(event, Step) and event.done == 2:
            break
    job.close()
    list(train(chosen, out, resume=True))
    assert runs.RunFacts.read(out).settings.method.synthesis == 1
    assert runs.load_model(out, "last").method.calibrated
    rows = list(csv.DictReader((out / "curves.csv").read_text().splitlines()))
    assert [float(row["synthesis"]) > 0 for row in rows] == [True] * 4


def test_a_run_of_a_version_without_mosaics_is_resumed_without_them(stripes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    job = train(settings(stripes, 0, steps=4), out)
    for event in job:
        if isinstance(event, Step) and event.done == 2:
            break
    job.close()
    facts = json.loads((out / "run.json").read_text(encoding="utf-8"))
    del facts["settings"]["method"]["synthesis"]
    (out / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    list(train(settings(stripes, "auto", steps=4), out, resume=True))
    assert "synthesis" not in (out / "curves.csv").read_text(encoding="utf-8")
    assert not runs.load_model(out, "last").method.calibrated


def test_scores_are_probabilities_of_each_class(stripes: Path, tmp_path: Path) -> None:
    list(train(settings(stripes, 1.0, steps=2), tmp_path / "run"))
    method = runs.load_model(tmp_path / "run", "last").method
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        maps, scores = method(images).class_maps, method.scores(images).maps
    fused = sum(w * F.interpolate(m, (8, 8), mode="bilinear") for w, m in zip((0, 0.3, 0.3, 0.4), maps, strict=True))
    torch.testing.assert_close(scores.exp() / 2, fused.sigmoid())
    assert method.ceiling == math.log(2)


def test_without_such_tiles_there_are_none_by_default_and_a_note_says_so(stripes: Path, tmp_path: Path) -> None:
    shutil.copytree(
        stripes / "train", tmp_path / "data" / "train", ignore=lambda _, names: [n for n in names if "[01]" in n]
    )
    shutil.copy(stripes / "classes.txt", tmp_path / "data")
    events = list(train(settings(tmp_path / "data", "auto", steps=1), tmp_path / "run"))
    assert any(isinstance(event, Noted) and "No tile shows steep alone" in event.message for event in events)
    assert runs.RunFacts.read(tmp_path / "run").settings.method.synthesis == 0
    assert not runs.load_model(tmp_path / "run", "last").method.calibrated


def test_tiles_of_two_sizes_are_told(plain_tiles: TileSet) -> None:
    Image.fromarray(np.full((64, 64, 3), 60, np.uint8)).save(plain_tiles.tiles[0].path)
    with pytest.raises(DataError, match="must all have one size"):
        [Composer(plain_tiles, TrainSettings(), TileReader())(step) for step in range(20)]


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two classes of stripes in different directions; training images show one or both, masked ones both."""
    folder, rng = tmp_path_factory.mktemp("stripes"), np.random.default_rng(0)

    def texture(vertical: bool) -> np.ndarray:
        line = 130 + 80 * np.sin(np.arange(64) / 1.5 + rng.uniform(0, 6))
        image = np.broadcast_to(line, (64, 64)) + rng.normal(0, 10, (64, 64))
        image = image if vertical else image.T
        return np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, 2)

    (folder / "train").mkdir()
    (folder / "classes.txt").write_text("flat\nsteep\n")
    for i in range(24):
        kind, parts = i % 3, [texture(False), texture(True)]
        image = parts[kind] if kind < 2 else np.concatenate([parts[0][:40], parts[1][40:]])
        Image.fromarray(image).save(folder / "train" / f"{i}[{('10', '01', '11')[kind]}].png")
    for kind in ("img", "mask"):
        (folder / "test" / kind).mkdir(parents=True)
    for i in range(4):
        cut = 12 + 10 * i
        image = np.concatenate([texture(False)[:, :cut], texture(True)[:, cut:]], 1)
        Image.fromarray(image).save(folder / "test" / "img" / f"{i}.png")
        mask = (np.arange(64) >= cut).astype(np.uint8)
        Image.fromarray(np.broadcast_to(mask, (64, 64)).copy()).save(folder / "test" / "mask" / f"{i}.png")
    return folder


def settings(folder: Path, synthesis: float | str, **changes: object) -> JobSettings:
    method = {"name": "cam", "synthesis": synthesis}
    quick = {"steps": 30, "flip_and_turn": False, "warmup": 5, "learning_rate": 1e-3}
    return settings_for(folder, method=method, backbone={"name": "mit-b0"}, train={**quick, **changes})


def test_pixels_of_mosaics_teach_where_a_class_ends(stripes: Path, tmp_path: Path) -> None:
    def miou(synthesis: float) -> float:
        out = tmp_path / str(synthesis)
        list(train(settings(stripes, synthesis), out))
        end = list(evaluate(out, DataSettings(folder=stripes), "test"))[-1]
        assert isinstance(end, Finished)
        return float(end.summary["protocols"]["predicted"]["miou"])

    with_pixels = miou(1.0)
    assert with_pixels > 75
    assert with_pixels > miou(0.0) + 5


@pytest.mark.parametrize(
    "method", [{"name": "cam"}, {"name": "pbip"}, {"name": "lpd", "k": 2}], ids=["cam", "pbip", "lpd"]
)
def test_any_method_takes_the_term_and_resumes_with_it(weak_data: Path, tmp_path: Path, method: dict[str, str]) -> None:
    chosen = settings_for(weak_data, method={**method, "synthesis": 0.5}, train={"steps": 4})
    list(train(chosen, tmp_path / "whole"))
    job = train(chosen, tmp_path / "parts")
    for event in job:
        if "synthesis" in getattr(event, "values", {}) and event.done == 2:
            break
    job.close()
    list(train(chosen, tmp_path / "parts", resume=True))
    curves = [(tmp_path / name / "curves.csv").read_text() for name in ("whole", "parts")]
    assert curves[0] == curves[1]
    rows = list(csv.DictReader(curves[0].splitlines()))
    assert all(0 < float(row["synthesis"]) < 5 for row in rows)
    assert runs.load_model(tmp_path / "whole", "last").method.calibrated
