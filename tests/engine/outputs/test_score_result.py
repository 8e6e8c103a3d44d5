"""Scoring the labels of a slide against a mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image

from napari_pbip.config import ThresholdSettings
from napari_pbip.engine.outputs.score_result import Truth, read_mask, score_result
from napari_pbip.errors import DataError
from napari_pbip.events import Finished, Step, Warned
from napari_pbip.results import LargestScores, ScoreStore, label_region
from napari_pbip.results.places import REGIONS
from napari_pbip.slides.regions import Kind, Region, Regions
from tests.results import stores

SHAPE = (300, 520)
EVERYTHING = slice(None)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ScoreStore:
    path = tmp_path_factory.mktemp("scored") / "slide.ome.zarr"
    made = stores.create(path, SHAPE)
    stores.segment(made, stores.network(stores.smooth_field(SHAPE)))
    return ScoreStore.open(path)


def labels_of(store: ScoreStore, thresholds: ThresholdSettings) -> np.ndarray:
    largest = LargestScores(store).percentile(thresholds.percentile)
    return label_region(store, thresholds, largest, 0, EVERYTHING, EVERYTHING)


def scored(store: ScoreStore, values: np.ndarray, first: int = 1, thresholds: ThresholdSettings | None = None) -> dict:
    *events, end = score_result(store.path, Truth(values, first), thresholds or ThresholdSettings())
    assert isinstance(end, Finished)
    assert [e.done for e in events if isinstance(e, Step)] == [1, 2, 3, 4]  # two parts, both protocols
    return dict(end.summary)


def test_labels_agree_with_themselves(store):
    labels = labels_of(store, ThresholdSettings())
    assert set(np.unique(labels)) == {1, 2, 3, 4, 255}
    summary = scored(store, labels)
    figures = summary["protocols"]["predicted"]
    assert {figures[name] for name in ("miou", "fwiou", "biou", "dice")} == {100.0}
    assert np.array(summary["confusion"]["predicted"]).sum() == (labels != 255).sum()


def test_a_mask_of_another_resolution_and_numbering_gives_the_same(store):
    labels = labels_of(store, ThresholdSettings())
    from_zero = np.where(labels == 255, 255, labels - 1)
    doubled = from_zero.repeat(2, 0).repeat(2, 1)
    assert scored(store, doubled, first=0) == scored(store, labels)


def test_what_labels_call_background_is_a_miss(store):
    strict, lax = ThresholdSettings(delta=0.6), ThresholdSettings(delta=0)
    truth = labels_of(store, lax)
    summary = scored(store, truth, thresholds=strict)
    assert summary["protocols"]["predicted"]["miou"] < 90
    missed = (truth != 255) & (labels_of(store, strict) == 255)
    assert np.array(summary["confusion"]["predicted"])[:, -1].sum() == missed.sum() > 0


def test_the_oracle_is_told_the_classes_of_each_tile(store):
    """Presence from the mask replaces that of the network, so that a slide of one class is labelled correctly."""
    one_class = np.full(SHAPE, 3)
    thresholds = ThresholdSettings(delta=0)
    summary = scored(store, one_class, thresholds=thresholds)
    confusion = np.array(summary["confusion"]["oracle"])
    assert confusion[2, [0, 1, 3]].sum() == 0  # no other class is ever chosen
    assert np.array(summary["confusion"]["predicted"])[2, [0, 1, 3]].sum() > 0
    assert summary["protocols"]["oracle"]["per_class"]["LYM"]["iou"] > 0


def test_background_of_a_mask_counts_where_it_is_not_given(store):
    """In the numbering of published data sets, the value after the last class is background."""
    labels = labels_of(store, ThresholdSettings())
    truth = np.where(labels == 255, 255, labels - 1)
    truth[:, :200] = 4
    protocols = scored(store, truth, first=0)["protocols"]
    assert protocols["oracle_background"]["miou"] == 100
    assert protocols["predicted"]["miou"] < 70
    protocols = scored(store, np.where(truth == 255, 0, truth + 1), first=1)["protocols"]
    assert protocols["predicted"]["miou"] == 100  # in label images, there is no such value


def test_intervals_are_over_squares_of_a_millimetre(store):
    truth = labels_of(store, ThresholdSettings(delta=0))
    found = scored(store, truth, thresholds=ThresholdSettings(delta=0.6))["protocols"]["predicted"]
    assert found["intervals"]["squares"]["units"] == 3 * 5  # 2.4 x 4.2 mm
    low, high = found["intervals"]["squares"]["miou"]
    assert low < found["miou"] < high


def test_presence_and_scores_that_are_probabilities_are_calibrated(tmp_path):
    """Scores of a calibrated network are logarithms of N times the probability; here, 80 % of the cells are right."""
    shape, rng = (100, 124), np.random.default_rng(0)
    values = stores.facts(shape)
    values["model"]["ceiling"] = float(np.log(4))
    made = stores.create(tmp_path / "slide.ome.zarr", shape, model=values["model"])
    field = np.log(4 * np.full((4, 160, 160), 0.1, np.float32))
    field[1] = np.log(4 * 0.7)
    presence = np.array([0.05, 0.95, 0.05, 0.05])

    def answer(row: int, column: int) -> tuple[np.ndarray, np.ndarray]:
        return field[:, :28, :28], presence

    stores.segment(made, answer)
    truth = np.where(rng.random(shape) < 0.8, 1, 0)
    events = list(score_result(made.path, Truth(truth, 0), ThresholdSettings(smoothing_um=0)))
    assert [e.done for e in events if isinstance(e, Step)] == [1, 2, 3]
    calibration = events[-1].summary["calibration"]
    low, high = calibration["scores"]["bins"]
    assert (low["predicted"], high["predicted"]) == (pytest.approx(10, abs=0.1), pytest.approx(70, abs=0.1))
    assert high["observed"] == pytest.approx(80, abs=1)
    assert low["observed"] == pytest.approx(20 / 3, abs=1)
    # two classes occur in every tile, of which one is predicted
    assert [one["cases"] for one in calibration["presence"]["bins"]] == [3 * 20, 20]
    assert calibration["presence"]["bins"][0]["observed"] == pytest.approx(100 / 3)
    assert calibration["presence"]["bins"][1]["observed"] == 100


def test_only_what_counts_by_the_regions_is_scored(store):
    truth = labels_of(store, ThresholdSettings(delta=0))
    file = store.path.with_name(REGIONS)
    left_half = shapely.box(0, 0, SHAPE[1] * 8, SHAPE[0] * 16)
    Regions((Region("left", Kind.ANALYSE, left_half),)).write(file)
    try:
        confusion = np.array(scored(store, truth)["confusion"]["predicted"])
        assert confusion.sum() == (truth[:, : SHAPE[1] // 2] != 255).sum()
        with pytest.raises(DataError, match="shows no class where slide counts"):
            scored(store, np.where(np.arange(SHAPE[1]) < SHAPE[1] // 2, 0, truth))
    finally:
        file.unlink()


def test_wrong_masks_are_told(store, tmp_path):
    with pytest.raises(DataError, match="proportions"):
        scored(store, np.ones((300, 300), np.uint8))
    with pytest.raises(DataError, match=r"numbered 1 to 4 \(TUM, STR, LYM, NEC\)"):
        scored(store, np.zeros(SHAPE, np.uint8))
    for name in ("nowhere.png", "nowhere.tif"):
        with pytest.raises(DataError, match=r"does not exist|cannot be read"):
            read_mask(tmp_path / name)
    (tmp_path / "text.tif").write_text("no picture")
    with pytest.raises(DataError, match="cannot be read"):
        read_mask(tmp_path / "text.tif")
    Image.new("RGB", (4, 4)).save(tmp_path / "colour.png")
    with pytest.raises(DataError, match="colour picture"):
        read_mask(tmp_path / "colour.png")


def test_masks_that_hold_no_numbers(tmp_path: Path) -> None:
    chequered = (np.indices((16, 16)).sum(0) % 2).astype(np.uint8)
    Image.fromarray(chequered).save(tmp_path / "a.jpg")
    tifffile.imwrite(tmp_path / "jpeg.tif", chequered, compression="jpeg")
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([chequered] * 2))
    tifffile.imwrite(tmp_path / "half.tif", chequered / np.float32(2))
    reasons = {
        "a.jpg": "compressed as JPEG",
        "jpeg.tif": "compressed as JPEG",
        "pages.tif": "several",
        "half.tif": "0.5",
    }
    for name, reason in reasons.items():
        with pytest.raises(DataError, match=reason):
            read_mask(tmp_path / name)
    tifffile.imwrite(tmp_path / "whole.tif", chequered.astype(np.float32))
    np.testing.assert_array_equal(read_mask(tmp_path / "whole.tif"), chequered)


def test_a_class_that_the_mask_does_not_show_is_told(store):
    def warned(values: np.ndarray, first: int) -> list[str]:
        events = score_result(store.path, Truth(values, first), ThresholdSettings())
        return [event.message for event in events if isinstance(event, Warned)]

    whole = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 4
    assert warned(whole, 0) == []
    assert warned(whole + 1, 1) == []
    (sentence,) = warned(np.where(whole == 0, 0, 255), 0)
    assert "No mask shows STR, LYM, NEC" in sentence
    (sentence,) = warned(whole + 1, 0)  # they count from 1, and 0 was chosen
    assert "count the classes from 1" in sentence


@pytest.mark.parametrize("name", ["mask.png", "mask.tif", "palette.png"])
def test_masks_are_read_by_value(tmp_path: Path, name):
    values = np.arange(12, dtype=np.uint8).reshape(3, 4) % 5
    if name.endswith(".tif"):
        tifffile.imwrite(tmp_path / name, values, compression="zlib")
    else:
        picture = Image.fromarray(values)
        if name.startswith("palette"):
            picture = picture.convert("P")
            picture.putdata(values.ravel().tolist())
            picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9, 1, 2, 3])
        picture.save(tmp_path / name)
    np.testing.assert_array_equal(read_mask(tmp_path / name), values)
