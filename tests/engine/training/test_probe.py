"""The linear probe as a method: it is fitted in seconds, and is then a model like any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch
from safetensors.torch import load_file

from napari_pbip.bank import load_tiles
from napari_pbip.config import JobSettings, ThresholdSettings
from napari_pbip.engine import runs
from napari_pbip.engine.inference.evaluate import evaluate
from napari_pbip.engine.inference.explain import Explainer
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.training import linear_probe, probe
from napari_pbip.engine.training.train import train
from napari_pbip.errors import ConfigError, DataError
from napari_pbip.events import Epoch, Event, Finished, Noted, Started, Step
from napari_pbip.models import encoders
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.results import LargestScores, ScoreStore, label_region
from tests.engine.conftest import settings_for


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platformdirs, "user_cache_path", lambda *_: folder)
        yield folder


def settings(data: Path, **method: object) -> JobSettings:
    return settings_for(data, method={"name": "probe", **method}, bank={"encoder": "efficientnet-lite0"})


@pytest.fixture(scope="module")
def finished(weak_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    out = tmp_path_factory.mktemp("runs") / "probe"
    return out, list(train(settings(weak_data), out))


def test_a_run_tells_what_cross_validation_found(finished: tuple[Path, list[Event]], weak_data: Path) -> None:
    out, events = finished
    tiles = load_tiles(weak_data)
    started = next(e for e in events if isinstance(e, Started))
    pictures = 3 * len(tiles.single_class)  # two mosaics for each tile
    assert (started.total, started.unit) == (pictures, "pictures")
    done = [e.done for e in events if isinstance(e, Step)]
    assert done == sorted(done)
    assert done[-1] == pictures
    assert any(
        "The probe leaves out 16 tiles with several classes" in e.message for e in events if isinstance(e, Noted)
    )
    (epoch,) = [e for e in events if isinstance(e, Epoch)]
    assert epoch.scores["predicted/miou"] > 40  # chance gives 33, and a single class 25
    assert isinstance(events[-1], Finished)
    facts = runs.RunFacts.read(out)
    assert facts.finished
    assert facts.best_score == epoch.scores["predicted/miou"]
    assert facts.fit["encoder"]["name"] == "efficientnet-lite0"
    assert facts.tile_size == 64
    assert facts.fit["strength"] in linear_probe.STRENGTHS
    assert facts.fit["tiles"] == len(tiles.single_class)
    assert facts.fit["balanced_accuracy"] > 90
    confusion = np.array(facts.fit["confusion"])
    assert confusion.sum() == len(tiles.single_class)
    assert confusion.diagonal().sum() == pytest.approx(confusion.sum(), abs=1)
    assert len(json.loads((out / "run.json").read_text())["fit"]["worst"]) == min(24, len(tiles.single_class))


def test_the_encoder_is_not_copied_into_the_run(finished: tuple[Path, list[Event]]) -> None:
    out, _ = finished
    assert set(load_file(out / "best.safetensors")) == {"mean", "scale", "weight", "bias"}
    model = runs.load_model(out)
    assert sum(p.numel() for p in model.method.parameters()) == 2 * (352 + 1)
    with pytest.raises(ConfigError, match="no dense features"):
        list(train(settings_for(Path(model.facts.settings.data.folder or ""), method={"name": "probe"}), out / "x"))


def test_scores_are_log_probabilities_relative_to_chance(finished: tuple[Path, list[Event]], weak_data: Path) -> None:
    out, _ = finished
    method = runs.load_model(out).method
    tile = load_tiles(weak_data, "test").tiles[0].read()
    images = torch.from_numpy(tile.copy()).permute(2, 0, 1)[None].float() / 255
    seen = method(images)
    assert seen.class_maps[0].shape == (1, 2, 8, 8)
    torch.testing.assert_close(seen.class_maps[0].exp().mean(1), torch.ones(1, 8, 8))  # N p of N classes
    scores = method.scores(images)
    torch.testing.assert_close(scores.maps, seen.class_maps[0])
    assert torch.equal(scores.presence, method.presence(seen))
    likeliest = (seen.class_maps[0].exp() / 2).amax((2, 3))
    assert (scores.presence.sigmoid() <= likeliest + 1e-5).all()
    assert (scores.presence.sigmoid() >= (seen.class_maps[0].exp() / 2).mean((2, 3))).all()


def test_a_tile_with_a_wrong_label_is_the_first_to_look_at_again(weak_data: Path, tmp_path: Path) -> None:
    data = shutil.copytree(weak_data, tmp_path / "data")
    wrong = sorted((data / "train").glob("*[[]10[]]*"))[0]
    wrong.rename(wrong.with_name(wrong.name.replace("[10]", "[01]")))
    list(train(settings(data), tmp_path / "run"))
    worst = runs.RunFacts.read(tmp_path / "run").fit["worst"]
    assert Path(worst[0]["path"]).name == wrong.name.replace("[10]", "[01]")
    assert (worst[0]["label"], worst[0]["predicted"]) == ("MUS", "LYM")
    assert [w["loss"] for w in worst] == sorted((w["loss"] for w in worst), reverse=True)


def test_a_second_fit_computes_no_features(
    weak_data: Path, finished: tuple[Path, list[Event]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = finished
    shutil.copytree(out, tmp_path / "run")
    without_masks = shutil.copytree(weak_data, tmp_path / "data", ignore=shutil.ignore_patterns("val"))
    list(train(settings(without_masks), tmp_path / "first"))

    def fail(self: Encoder, images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("computed again")

    monkeypatch.setattr(Encoder, "dense", fail)
    list(train(settings(without_masks), tmp_path / "first", resume=True))
    assert runs.RunFacts.read(tmp_path / "first").best_score is None
    weights, before = (load_file(folder / "best.safetensors") for folder in (tmp_path / "first", out))
    assert all(torch.equal(weights[name], before[name]) for name in weights)


def test_what_stops_it_leaves_a_run_to_be_resumed(weak_data: Path, tmp_path: Path) -> None:
    job = train(settings(weak_data), tmp_path / "run")
    assert next(e for e in job if isinstance(e, Step)).done > 0
    job.close()
    assert not runs.RunFacts.read(tmp_path / "run").finished
    list(train(settings(weak_data), tmp_path / "run", resume=True))
    assert runs.RunFacts.read(tmp_path / "run").finished
    with pytest.raises(ConfigError, match=r"method\.cells"):
        list(train(settings(weak_data, cells=5), tmp_path / "run", resume=True))


def test_it_is_evaluated_and_segments_as_any_other(
    finished: tuple[Path, list[Event]], weak_data: Path, sample_slide: Path, tmp_path: Path
) -> None:
    out, _ = finished
    summary = list(evaluate(out, settings(weak_data).data))[-1]
    assert isinstance(summary, Finished)
    assert summary.summary["protocols"]["oracle"]["miou"] > 40  # chance gives 33, and a single class 25
    list(segment(sample_slide, out, tmp_path / "slide", thresholds=ThresholdSettings(delta=0, presence=0)))
    (path,) = (tmp_path / "slide").glob("*.ome.zarr")
    store = ScoreStore.open(path)
    scores = store.read_scores(0, slice(None), slice(None)).astype(np.float32)
    largest = LargestScores(store).percentile(99.5)
    labels = label_region(
        store, ThresholdSettings(delta=0, presence=0, smoothing_um=0), largest, 0, slice(None), slice(None)
    )
    analysed = labels != 0
    assert analysed.any()
    assert np.nanmax(scores) <= np.log(2) + 1e-3
    best = np.where(scores.max(0) > 0, scores.argmax(0) + 1, 255)
    assert np.array_equal(labels[analysed], best[analysed])
    row, column = np.argwhere(labels == 1)[0]
    side = store.facts.grid.cell * 0.5 / 0.499
    matches = Explainer.from_store(path, (out,), ()).explain((column + 0.5) * side, (row + 0.5) * side).matches
    assert sorted(match.class_name for match in matches) == ["LYM", "MUS"]
    assert 1 >= matches[0].similarity > matches[1].similarity >= -1
    named = {"LYM": "[10]", "MUS": "[01]"}
    assert all(named[match.class_name] in tile.name and tile.exists() for match in matches for tile in match.tiles)


def test_a_class_without_a_tile_of_its_own(weak_data: Path, tmp_path: Path) -> None:
    data = shutil.copytree(weak_data, tmp_path / "data")
    for path in (data / "train").glob("*[[]10[]]*"):
        path.unlink()
    with pytest.raises(DataError, match="No tile shows LYM alone"):
        list(train(settings(data), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_one_tile_of_a_class_is_enough_to_fit_and_not_to_validate(weak_data: Path, tmp_path: Path) -> None:
    data = shutil.copytree(weak_data, tmp_path / "data")
    for path in sorted((data / "train").glob("*[[]10[]]*"))[1:]:
        path.unlink()
    events = list(train(settings(data), tmp_path / "run"))
    assert any(isinstance(e, Noted) and "How well LYM can be recognised" in e.message for e in events)
    fit = runs.RunFacts.read(tmp_path / "run").fit
    assert fit["balanced_accuracy"] == 100
    assert fit["confusion"] == [[0, 0], [0, 5]]
    assert {tile["label"] for tile in fit["worst"]} == {"MUS"}
    for path in sorted((data / "train").glob("*[[]01[]]*"))[1:]:
        path.unlink()
    list(train(settings(data), tmp_path / "run", overwrite=True))
    fit = runs.RunFacts.read(tmp_path / "run").fit
    assert (fit["balanced_accuracy"], fit["worst"]) == (None, [])
    assert fit["strength"] == linear_probe.DEFAULT_STRENGTH


def test_tiles_with_several_classes_join_where_there_are_enough_of_one(
    weak_data: Path, finished: tuple[Path, list[Event]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "ENOUGH", 3)
    list(train(settings(weak_data), tmp_path / "run"))
    tiles = load_tiles(weak_data)
    facts = runs.RunFacts.read(tmp_path / "run")
    assert facts.fit["mixed_tiles"] == len(tiles) - len(tiles.single_class)
    assert facts.steps == facts.step == len(tiles) + 2 * len(tiles.single_class)
    folders = (tmp_path / "run", finished[0])
    with_them, without = (load_file(folder / "best.safetensors")["weight"] for folder in folders)
    assert not torch.equal(with_them, without)


def test_many_tiles_are_not_all_learned_from_and_that_is_said(
    weak_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "MOST_TILES", 2)
    events = list(train(settings(weak_data), tmp_path / "run"))
    notes = " ".join(event.message for event in events if isinstance(event, Noted))
    assert "The probe leaves out" in notes
    assert "2 of each class are enough" in notes
    assert runs.RunFacts.read(tmp_path / "run").fit["tiles"] == 4


def test_an_encoder_with_other_weights_is_refused(finished: tuple[Path, list[Event]], tmp_path: Path) -> None:
    out, _ = finished
    facts = runs.RunFacts.read(out)
    changed = replace(facts, fit={**facts.fit, "encoder": {**facts.fit["encoder"], "weights_hash": "0" * 16}})
    with pytest.raises(Exception, match="not those of the training"):
        runs.recorded_encoder(changed)
    assert runs.recorded_encoder(facts).weights_hash == encoders.load("efficientnet-lite0").weights_hash
