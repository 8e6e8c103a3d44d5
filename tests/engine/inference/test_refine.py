"""Refinement by dense CRF and test-time augmentation in the jobs for slides and evaluation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from scipy.ndimage import gaussian_filter

from napari_pbip import samples
from napari_pbip.config import DataSettings, RefineSettings, SegmentSettings, ThresholdSettings, TissueSettings
from napari_pbip.engine.inference.evaluate import evaluate
from napari_pbip.engine.inference.predict import ImageMaps, Predictor, refined_image, segment_image
from napari_pbip.engine.inference.refine import refined_labels
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.inference.windows import Windows
from napari_pbip.engine.outputs.export import export
from napari_pbip.engine.outputs.score_result import Truth, score_result
from napari_pbip.engine.outputs.write_results import write_results
from napari_pbip.engine.runs import load_model
from napari_pbip.engine.training.train import train
from napari_pbip.errors import OtherResult, SlideError
from napari_pbip.events import Finished, Job
from napari_pbip.results.label_files import open_labels
from napari_pbip.results.labels import label_region
from napari_pbip.results.largest import LargestScores
from napari_pbip.results.store import ScoreStore
from napari_pbip.slides import find_tissue, open_slide
from napari_pbip.taxonomy import LUAD, UNASSIGNED
from tests.engine.conftest import settings_for

THRESHOLDS = ThresholdSettings(delta=0.2, presence=0.3)
ALL = slice(0, 371), slice(0, 278)
TILE, STRIDE = 28, 24


def summary(job: Job) -> dict[str, Any]:
    *_, end = job
    assert isinstance(end, Finished)
    return dict(end.summary)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ScoreStore:
    """Return a store of noisy scores of the sample slide, at the slide's own resolution."""
    path = tmp_path_factory.mktemp("store") / "slide.ome.zarr"
    height, width = (part.stop for part in ALL)
    rng = np.random.default_rng(0)
    field = np.stack([gaussian_filter(rng.normal(size=(height + TILE, width + TILE)), 3) * 10 for _ in LUAD])
    rows, columns = (-(-(cells - TILE) // STRIDE) + 1 for cells in (height, width))
    with open_slide(samples.slide()) as slide:
        made = ScoreStore.create(
            path,
            taxonomy=LUAD,
            slide={
                "name": slide.name,
                "path": str(slide.path),
                "identity": slide.identity,
                "width": slide.width,
                "height": slide.height,
                "mpp": slide.require_mpp(),
            },
            model={"run": "run", "hash": "1"},
            settings={},
            grid={
                "tile": TILE * 8,
                "overlap": (TILE - STRIDE) * 8,
                "stride": STRIDE * 8,
                "rows": rows,
                "columns": columns,
                "model_mpp": slide.require_mpp(),
            },
            score_shape=(height, width),
            tissue=find_tissue(slide, TissueSettings()).array,
            planned=np.ones((rows, columns), bool),
        )
    blender = made.blender()
    with made:
        for row, column in blender.order:
            y, x = row * STRIDE, column * STRIDE
            scores = field[:, y : y + TILE, x : x + TILE].astype(np.float32)
            for region in blender.add(row, column, scores, np.full(len(LUAD), 0.9)):
                made.write_region(region)
    return made


def test_parts_of_a_slide_join_without_a_seam(store: ScoreStore) -> None:
    largest = LargestScores(store).percentile(99.5)
    with open_slide(samples.slide()) as slide:
        refine = refined_labels(store, slide, THRESHOLDS)
        whole = refine(largest, *ALL)
        parts = [[refine(largest, slice(y, y + 128), slice(x, x + 150)) for x in (0, 150)] for y in (0, 128, 256)]
    joined = np.block(parts)
    assert joined.shape == whole.shape
    # a part of a slide is read like the same part of a larger read to a grey level: hardly a tie is decided by it
    assert np.count_nonzero(joined != whole) <= 20
    assert len(np.unique(whole)) >= 5


def test_refined_labels_are_calmer_and_cover_what_the_plain_ones_cover(store: ScoreStore) -> None:
    largest = LargestScores(store).percentile(99.5)
    plain = label_region(store, THRESHOLDS, largest, 0, *ALL)
    with open_slide(samples.slide()) as slide:
        refined = refined_labels(store, slide, THRESHOLDS)(largest, *ALL)
    np.testing.assert_array_equal(refined == 0, plain == 0)

    def borders(labels: np.ndarray) -> int:
        return int((labels[1:] != labels[:-1]).sum() + (labels[:, 1:] != labels[:, :-1]).sum())

    assert borders(refined) < 0.9 * borders(plain)
    assert (refined == plain).mean() > 0.6  # and still the same map


def test_a_class_that_does_not_reach_its_thresholds_does_not_come_back(store: ScoreStore) -> None:
    largest = LargestScores(store).percentile(99.5)
    never = ThresholdSettings(class_delta={"NEC": 1.0, "TE": 1.0, "LYM": 1.0, "TAS": 1.0}, presence=1.0)
    with open_slide(samples.slide()) as slide:
        labels = refined_labels(store, slide, never)(largest, *ALL)
    assert set(np.unique(labels)) == {0, UNASSIGNED}


def test_saving_writes_refined_labels_and_says_so(store: ScoreStore) -> None:
    summary(write_results(store.path, THRESHOLDS, RefineSettings(crf=True)))
    levels, facts = open_labels(store)
    with open_slide(samples.slide()) as slide:
        expected = refined_labels(store, slide, THRESHOLDS)(LargestScores(store).percentile(99.5), *ALL)
    np.testing.assert_array_equal(np.asarray(levels[0]), expected)
    assert facts.refined
    summary(write_results(store.path, THRESHOLDS))
    levels, facts = open_labels(store)
    assert not facts.refined
    assert (np.asarray(levels[0]) != expected).any()


def test_without_its_slide_a_result_cannot_be_refined(store: ScoreStore, tmp_path: Path) -> None:
    moved = shutil.copytree(store.path, tmp_path / "slide.ome.zarr")
    facts = json.loads((moved / "zarr.json").read_text())
    facts["attributes"]["pbip"]["slide"]["path"] = str(tmp_path / "gone.svs")
    (moved / "zarr.json").write_text(json.dumps(facts))
    with pytest.raises(SlideError, match=r"gone\.svs"):
        list(write_results(moved, THRESHOLDS, RefineSettings(crf=True)))


@pytest.fixture(scope="module")
def run(weak_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of a few steps at 4 microns per pixel, for which the sample slide is a few tiles."""
    out = tmp_path_factory.mktemp("model") / "run"
    list(train(settings_for(weak_data, data={"mpp": 4.0}, train={"steps": 6}), out))
    return out


def test_evaluation_with_refinement_scores_other_labels_by_the_same_rules(run: Path, weak_data: Path) -> None:
    def score(**refine: bool) -> dict[str, Any]:
        data = DataSettings(folder=weak_data)
        return summary(evaluate(run, data, device="cpu", refine=RefineSettings(**refine)))

    plain, crf, tta = score(), score(crf=True), score(tta=True)
    assert plain["refine"] == {"crf": False, "tta": False}
    for refined in (crf, tta):
        assert refined["protocols"] != plain["protocols"]
        for protocol in ("oracle", "predicted"):
            truth = [sum(row) for row in plain["confusion"][protocol]]
            matrix = refined["confusion"][protocol]
            assert [sum(row) for row in matrix] == truth  # the same pixels are scored
            assert all(row[-1] == 0 for row in matrix)  # background is never chosen


def test_a_refined_image_has_present_classes_only(run: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 48, 3), np.uint8)
    maps = ImageMaps(tuple(torch.rand(1, 3, 5, 6) for _ in range(4)), torch.full((1, 3, 1, 1), 0.5), (0, 0.3, 0.3, 0.4))
    gates = [torch.tensor([a, b, c]).reshape(1, 3, 1, 1) for a, b, c in ((True, False, True), (False, True, False))]
    first, second, again = refined_image(image, maps, [*gates, gates[0]])
    np.testing.assert_array_equal(again, first)
    assert first.shape == (40, 48)
    assert set(np.unique(first)) <= {0, 2}
    assert set(np.unique(second)) == {1}
    per_pixel = (torch.arange(3).reshape(1, 3, 1, 1) == torch.arange(4).reshape(1, 1, 2, 2) % 3).float()
    (gated,) = refined_image(image, maps, [per_pixel.bool()])
    np.testing.assert_array_equal(gated, segment_image(maps, per_pixel.bool(), (40, 48)))


def test_test_time_augmentation_of_images_large_and_small(run: Path) -> None:
    method = load_model(run).method
    with open_slide(samples.slide()) as slide:
        image = slide.read(600, 600, 128, 128, 1.0)
    for part in (image[:64, :64], image):  # in one piece, and in windows
        turned = np.rot90(part).copy()
        maps, other = (
            Predictor(method, Windows(64, 64, 32), torch.device("cpu"), tta=True).maps([one])[0]
            for one in (part, turned)
        )
        for mine, theirs in zip(maps.stages, other.stages, strict=True):
            torch.testing.assert_close(torch.rot90(mine, 1, (2, 3)), theirs, atol=1e-3, rtol=1e-3)


def test_a_slide_with_test_time_augmentation_is_another_result(run: Path, tmp_path: Path) -> None:
    quick = SegmentSettings(precision="float32", device="cpu", overlap=16, batch_size=8)
    *_, end = segment(samples.slide(), run, tmp_path, quick, THRESHOLDS, refine=RefineSettings(tta=True, crf=True))
    assert isinstance(end, Finished)
    refined = ScoreStore.open(Path(end.summary["store"]))
    assert open_labels(refined)[1].refined
    with pytest.raises(OtherResult, match="tta"):
        list(segment(samples.slide(), run, tmp_path, quick, THRESHOLDS, resume=True))
    list(segment(samples.slide(), run, tmp_path, quick, THRESHOLDS, refine=RefineSettings(tta=True), resume=True))
    assert not open_labels(refined)[1].refined  # the scores stay, the labels are written anew


def test_refined_labels_are_scored_under_both_protocols(store: ScoreStore) -> None:
    truth = np.random.default_rng(1).integers(1, 5, (37, 28)).repeat(10, 0).repeat(10, 1).astype(np.uint8)
    refine = RefineSettings(crf=True)
    plain, refined = (summary(score_result(store.path, Truth(truth, 1), THRESHOLDS, r)) for r in (None, refine))
    for protocol in ("oracle", "predicted"):
        before, after = (np.array(one["confusion"][protocol]) for one in (plain, refined))
        np.testing.assert_array_equal(before.sum(1), after.sum(1))
        assert (before != after).any()
    summary(write_results(store.path, THRESHOLDS, refine))
    labels = np.asarray(open_labels(store)[0][0])
    counted = np.array(refined["confusion"]["predicted"])
    for n in range(len(LUAD)):
        assert abs(counted[:, n].sum() - np.count_nonzero(labels == n + 1)) <= 20  # ties, where parts meet


def test_an_export_can_be_refined_and_changes_nothing_in_the_store(store: ScoreStore, tmp_path: Path) -> None:
    summary(write_results(store.path, THRESHOLDS))
    before = {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}
    strict = THRESHOLDS.model_copy(update={"delta": 0.6})
    refine = RefineSettings(crf=True)
    for name, format in (("areas.csv", "csv"), ("labels.ome.zarr", "ome-zarr"), ("overlay.png", "png")):
        summary(export(store.path, tmp_path / name, format, strict, refine=refine))
    assert {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()} == before
    written = zarr.open_group(tmp_path / "labels.ome.zarr", mode="r")
    assert "source" not in written.attrs["ome"]["image-label"]  # it lies in no image
    summary(write_results(store.path, strict, refine))
    np.testing.assert_array_equal(written["0"][:], open_labels(store)[0][0][:])
    for name in ("areas.csv", "overlay.png"):
        assert (tmp_path / name).read_bytes() == (store.path.parent / name).read_bytes()
