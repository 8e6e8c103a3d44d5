"""Explanations of places by prototypes, and saving labels at new thresholds."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_pbip import samples
from napari_pbip.bank import ImageBank
from napari_pbip.config import SegmentSettings, ThresholdSettings
from napari_pbip.engine.banks.nearest_tiles import nearest_tiles
from napari_pbip.engine.inference.explain import Explainer
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.loading import to_tensor
from napari_pbip.engine.outputs.write_results import write_results
from napari_pbip.engine.runs import load_model
from napari_pbip.engine.training.train import train
from napari_pbip.errors import ModelError
from napari_pbip.events import Finished, Step, Warned
from napari_pbip.models.score_maps import fuse, merge_subclasses
from napari_pbip.results import LargestScores, ScoreStore, label_region, open_labels
from napari_pbip.slides import open_slide
from tests.engine.conftest import settings_for

ALL = slice(None)
QUICK = SegmentSettings(precision="float32", device="cpu", tile=64, overlap=16, batch_size=8)


def made(weak_data: Path, folder: Path, method: str) -> tuple[Path, Path]:
    """Return a run of two steps and its store of the sample slide."""
    run = folder / "models" / method
    list(train(settings_for(weak_data, data={"mpp": 4.0}, method={"name": method}, train={"steps": 2}), run))
    list(segment(samples.slide(), run, folder / method, QUICK, ThresholdSettings()))
    return run, next((folder / method).glob("*.ome.zarr"))


@pytest.fixture(scope="module")
def pbip(weak_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return made(weak_data, tmp_path_factory.mktemp("pbip"), "pbip")


def moved(path: Path, folder: Path, run: Path) -> Path:
    """Return a copy of a store whose model has been moved."""
    copy = folder / path.name
    shutil.copytree(path, copy)
    root = copy / "zarr.json"
    root.write_text(root.read_text().replace(str(run), str(folder / "gone")))
    return copy


def test_similarities_are_cosines_that_make_the_scores(pbip: tuple[Path, Path]) -> None:
    """In the middle of a tile, the score of a class is made from the scaled mean similarity of its prototypes."""
    run, path = pbip
    store, model = ScoreStore.open(path), load_model(run)
    grid = store.facts.grid
    row, column = np.argwhere(store.planned)[5]
    cell = row * grid.stride // 8 + grid.tile // 16, column * grid.stride // 8 + grid.tile // 16
    with open_slide(samples.slide()) as slide:
        side = 8 * grid.model_mpp / slide.require_mpp()
        image = slide.read(
            column * grid.stride / 8 * side, row * grid.stride / 8 * side, grid.tile, grid.tile, grid.model_mpp
        )
    found = Explainer.from_store(path, (run,), ()).explain((cell[1] + 0.5) * side, (cell[0] + 0.5) * side)
    similarity = np.empty(len(found.matches))
    for match in found.matches:
        similarity[match.subclass] = match.similarity
    assert np.abs(similarity).max() <= 1
    assert [m.similarity for m in found.matches] == sorted(similarity, reverse=True)
    with torch.inference_mode():
        maps = model.method(to_tensor(image[None])).subclass_maps
        scaled = [
            (w, m / h.scale) for w, m, h in zip(model.method.fusion_weights, maps, model.method.heads, strict=True) if w
        ]
        own = fuse(scaled, (grid.tile // 8,) * 2)[0, :, grid.tile // 16, grid.tile // 16]
    np.testing.assert_allclose(similarity, own, atol=1e-5)
    # two steps leave the scales of all stages where they began: fused maps are similarities times that
    means = merge_subclasses(torch.from_numpy(similarity[None]), model.method.subclass_class, 2, "mean")[0]
    scores = store.read_scores(0, slice(cell[0], cell[0] + 1), slice(cell[1], cell[1] + 1))[:, 0, 0]
    expected = model.method.to_scores(means * model.method.heads[2].scale.item())
    np.testing.assert_allclose(scores, expected, rtol=0.02, atol=0.02)


def test_tiles_are_those_of_the_bank(pbip: tuple[Path, Path]) -> None:
    run, path = pbip
    bank = ImageBank.read(run / "bank")
    best = Explainer.from_store(path, (run,), ()).explain(1000, 1000).matches[0]
    nearest = bank.nearest(best.subclass)
    assert [tile.stem for tile in best.tiles] == [tile.hash[:16] for tile in nearest]
    assert all(tile.exists() for tile in best.tiles)
    assert best.class_name == bank.taxonomy.names[nearest[0].class_index]


def test_without_its_bank_it_still_names_the_prototype(pbip: tuple[Path, Path], tmp_path: Path) -> None:
    run, path = pbip
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("bank"))
    path = moved(path, tmp_path, run)
    without = Explainer.from_store(path, (copy,), (tmp_path,)).explain(1000, 1000)
    assert "bank has changed" in without.note
    assert without.matches
    assert not without.matches[0].tiles
    assert Explainer.from_store(path, (copy,), (run / "bank",)).explain(1000, 1000).matches[0].tiles


def test_the_model_is_found_by_its_weights(pbip: tuple[Path, Path], tmp_path: Path) -> None:
    run, path = pbip
    renamed = tmp_path / "renamed"
    shutil.copytree(run, renamed)
    assert Explainer.from_store(path, (), ()).explain(1000, 1000).matches
    path = moved(path, tmp_path, run)
    assert Explainer.from_store(path, (tmp_path, renamed), ()).explain(1000, 1000).matches
    with pytest.raises(ModelError, match="put it back"):
        Explainer.from_store(path, (), ())


def test_a_model_without_prototypes_says_so(weak_data: Path, tmp_path: Path) -> None:
    run, path = made(weak_data, tmp_path, "cam")
    found = Explainer.from_store(path, (run,), ()).explain(1000, 1000)
    assert found.matches == ()
    assert "CAM" in found.note


def test_frozen_labels_are_those_of_the_thresholds(pbip: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / pbip[1].name
    shutil.copytree(pbip[1], path)
    thresholds = ThresholdSettings(delta=0.5, presence=0.1)
    events = list(write_results(path, thresholds))
    assert isinstance(events[-1], Finished)
    store = ScoreStore.open(path)
    levels, facts = open_labels(store)
    assert facts.thresholds == thresholds
    largest = LargestScores(store).percentile(99.5)
    np.testing.assert_array_equal(levels[0][:], label_region(store, thresholds, largest, 0, ALL, ALL))
    with (tmp_path / "areas.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)][:2] == list(store.taxonomy.names)
    assert (tmp_path / "overlay.png").exists()


def test_a_slide_that_is_gone_costs_the_overlay_alone(pbip: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / pbip[1].name
    shutil.copytree(pbip[1], path)
    root = path / "zarr.json"
    root.write_text(root.read_text().replace(str(samples.slide()), str(tmp_path / "gone.svs")))
    events = list(write_results(path, ThresholdSettings()))
    assert [e for e in events if isinstance(e, Warned) and "gone.svs" in e.message]
    assert (tmp_path / "areas.csv").exists()
    assert not (tmp_path / "overlay.png").exists()


def test_saving_stopped_half_way_leaves_the_labels_of_before(pbip: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / pbip[1].name
    shutil.copytree(pbip[1], path)
    before = open_labels(ScoreStore.open(path))
    job = write_results(path, ThresholdSettings(delta=0.9))
    total = next(job).total
    step = next(job)
    assert isinstance(step, Step)
    assert step.done < total
    job.close()
    after = open_labels(ScoreStore.open(path))
    assert after[1] == before[1]
    np.testing.assert_array_equal(after[0][0][:], before[0][0][:])
    assert [p.name for p in (path / "labels").iterdir() if p.is_dir()] == ["tissue"]


def test_learned_prototypes_are_shown_by_the_tiles_nearest_to_them(weak_data: Path, tmp_path: Path) -> None:
    run, path = made(weak_data, tmp_path, "lpd")
    before = Explainer.from_store(path, (run,), ()).explain(1000, 1000)
    assert "Prototypes in Train" in before.note
    assert not any(match.tiles for match in before.matches)
    list(nearest_tiles(run))
    after = Explainer.from_store(path, (run,), ()).explain(1000, 1000)
    assert [m.similarity for m in after.matches] == [m.similarity for m in before.matches]
    assert all(match.tiles and all(tile.exists() for tile in match.tiles) for match in after.matches)
    assert "were learned" in after.note
