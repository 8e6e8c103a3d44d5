"""Corrections by hand: what is on disk, who reads them, and that without them the model's result is as it was."""

from __future__ import annotations

import csv
import json
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest
import shapely
import zarr
from stores import create, facts, halves

from napari_pbip.config import ThresholdSettings
from napari_pbip.engine.outputs.export import export
from napari_pbip.engine.outputs.score_result import Truth, score_result
from napari_pbip.errors import FolderInUse, OutputError
from napari_pbip.progress import run
from napari_pbip.results import LargestScores, ScoreStore, label_region, lazy_labels, open_labels
from napari_pbip.results.areas import areas
from napari_pbip.results.corrections import CorrectionEditor
from napari_pbip.results.lazy import label_blocks
from napari_pbip.results.metrics import PROTOCOLS
from napari_pbip.results.overlay import LabelSummary, labels_like
from napari_pbip.slides.regions import WHOLE
from napari_pbip.taxonomy import UNASSIGNED

ALL = slice(None)
LEFT, STROMA, RIGHT = 1, 2, 3


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return halves(tmp_path_factory.mktemp("halves") / "slide.ome.zarr").path


@pytest.fixture
def path(made, tmp_path):
    return shutil.copytree(made, tmp_path / "slide.ome.zarr")


def correct(path, *changes, who="", keep=False):
    """Set rectangles of cells, one after another, in one sitting."""
    store = ScoreStore.open(path)
    editor = CorrectionEditor(store.corrections, who)
    for rectangle, value in changes:
        store.corrections.cells[rectangle] = value
        editor.save()
    editor.close()
    return store


def every_byte(folder):
    return {one.relative_to(folder): one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}


def areas_of(path):
    return {row.name: row for row in areas(ScoreStore.open(path))}


def test_every_reader_sees_the_corrections(path):
    before = areas_of(path)
    correct(path, (np.s_[100:140, 200:260], STROMA), (np.s_[500:600, 590:610], UNASSIGNED))
    store = ScoreStore.open(path)
    thresholds = ThresholdSettings()
    largest = LargestScores(store).percentile(thresholds.percentile)
    model = lazy_labels(store, thresholds, corrected=False).data.compute()
    expected = model.copy()
    expected[100:140, 200:260] = STROMA
    expected[500:600, 590:610] = UNASSIGNED
    np.testing.assert_array_equal(lazy_labels(store, thresholds).data.compute(), expected)
    np.testing.assert_array_equal(label_region(store, thresholds, largest, 0, ALL, ALL), expected)
    levels, read = open_labels(store)
    for n, level in enumerate(levels):
        np.testing.assert_array_equal(level[:], expected[:: 2**n, :: 2**n])
    assert (labels_like(store, 200, 300) == STROMA).any()
    now = areas_of(path)
    changes = {name: now[name].cells - before[name].cells for name in now}
    assert changes == {
        "TUM": -2400 - 1000,
        "STR": 2400,
        "LYM": -1000,
        "NEC": 0,
        "not assigned": 2000,
        "not analysed": 0,
    }
    assert now["STR"].corrected_mm2 == pytest.approx(2400 * 0.008**2)
    assert read.by_hand[WHOLE] == {1: 0, STROMA: 2400, 3: 0, 4: 0, UNASSIGNED: 2000}
    summary = LabelSummary(store)
    for block in label_blocks(store, thresholds, largest):
        summary.add(*block)
    assert summary.areas == list(now.values())


def test_cells_that_were_not_analysed_stay_so(path):
    before = areas_of(path)
    store = correct(path, (np.s_[700:800, :], STROMA))
    model = lazy_labels(store, ThresholdSettings(), corrected=False).data.compute()
    assert (model[700:] == 0).any()
    now = areas_of(path)
    assert now["STR"].cells - before["STR"].cells == np.count_nonzero(model[700:])
    assert now["not analysed"] == before["not analysed"]


def test_taken_back_the_result_is_as_the_model_made_it(path):
    before = every_byte(path)
    labels = lazy_labels(ScoreStore.open(path), ThresholdSettings()).data.compute()
    correct(path, (np.s_[0:700, 0:900], RIGHT), who="A. Person")
    correct(path, (np.s_[5:9, 5:9], 0), (np.s_[50:60, 5:9], STROMA))
    store = ScoreStore.open(path)
    assert [(one.who, [count for _, count in one.changes]) for one in store.corrections.sittings] == [
        ("A. Person", [630_000]),
        ("", [16, 40]),
    ]
    assert store.corrections.cells[6, 6] == 0
    editor = CorrectionEditor(store.corrections, "")
    editor.take_back()
    assert (store.corrections.cells[0:700, 0:900] == RIGHT).all()
    assert not store.corrections.cells[700:].any()
    editor.take_back()
    editor.close()
    np.testing.assert_array_equal(lazy_labels(ScoreStore.open(path), ThresholdSettings()).data.compute(), labels)
    after = every_byte(path)
    assert {place: some for place, some in after.items() if "corrections" not in place.parts} == before
    shutil.rmtree(path / "corrections")
    assert every_byte(path) == before


def test_what_was_taken_back_can_be_put_back(path):
    correct(path, (np.s_[0:700, 0:900], RIGHT), who="A. Person")
    store = correct(path, (np.s_[5:9, 5:9], 0), (np.s_[50:60, 5:9], STROMA), who="B. Person")
    before, cells, sittings = every_byte(path), store.corrections.cells.copy(), store.corrections.sittings
    editor = CorrectionEditor(store.corrections, "C. Person")
    taken = [editor.take_back(), editor.take_back()]
    assert not store.corrections.cells.any()
    store.corrections.cells[700:705, 5:9] = STROMA  # painted, and undone
    editor.save()
    store.corrections.cells[700:705, 5:9] = 0
    editor.save()
    editor.put_back(taken[1])
    assert (store.corrections.cells[0:700, 0:900] == RIGHT).all()
    editor.put_back(taken[0])
    np.testing.assert_array_equal(store.corrections.cells, cells)
    assert store.corrections.sittings == sittings
    store.corrections.cells[100, 100] = STROMA  # another sitting
    editor.save()
    assert [one.who for one in store.corrections.sittings] == ["A. Person", "B. Person", "C. Person"]
    editor.take_back()
    editor.close()
    assert every_byte(path) == before


def test_undoing_a_change_later_leaves_no_sitting(path):
    store = correct(path, (np.s_[1:3, 1:3], STROMA), who="A. Person")
    other = CorrectionEditor(store.corrections, "", 2)
    assert other.save() is None
    other.close()
    editor = CorrectionEditor(store.corrections, "", 1)
    store.corrections.cells[1:3, 1:3] = 0
    editor.save()
    editor.close()
    assert not ScoreStore.open(path).corrections.sittings
    again = CorrectionEditor(store.corrections, "A. Person", 1)  # redone
    store.corrections.cells[1:3, 1:3] = STROMA
    again.save()
    again.close()
    assert [one.who for one in ScoreStore.open(path).corrections.sittings] == ["A. Person"]


def test_a_change_can_be_undone_exactly(path):
    store = ScoreStore.open(path)
    editor = CorrectionEditor(store.corrections, "")
    store.corrections.cells[10:20, 500:530] = STROMA
    editor.save()
    store.corrections.cells[15:25, 510:700] = RIGHT
    changed, before = editor.save()
    assert changed == np.s_[15:25, 510:700]
    store.corrections.cells[changed] = before
    editor.save()
    assert editor.save() is None
    editor.close()
    again = ScoreStore.open(path).corrections.cells
    assert np.count_nonzero(again) == 300
    assert (again[10:20, 500:530] == STROMA).all()


def test_a_sitting_of_which_nothing_is_left_is_forgotten(path):
    correct(path, (np.s_[1:3, 1:3], STROMA), (np.s_[1:3, 1:3], 0))
    assert not ScoreStore.open(path).corrections.sittings


def test_one_window_corrects_at_a_time(path):
    store = ScoreStore.open(path)
    editor = CorrectionEditor(store.corrections, "")
    with pytest.raises(FolderInUse, match="in use"):
        CorrectionEditor(ScoreStore.open(path).corrections, "")
    editor.close()
    CorrectionEditor(ScoreStore.open(path).corrections, "").close()


def test_damaged_corrections_are_not_ignored(path):
    correct(path, (np.s_[1:30, 1:30], STROMA))
    chunk = next(place for place in (path / "corrections" / "0" / "c").rglob("*") if place.is_file())
    chunk.write_bytes(chunk.read_bytes()[:10])
    with pytest.raises(OutputError, match=r"corrections is damaged.*remove this folder"):
        _ = ScoreStore.open(path).corrections


def test_a_result_that_is_made_again_keeps_them(path):
    correct(path, (np.s_[1:30, 1:30], STROMA), who="A. Person")
    create(path, (800, 1200), overwrite=True)
    store = ScoreStore.open(path)
    assert np.count_nonzero(store.corrections.cells == STROMA) == 29 * 29
    assert store.corrections.sittings[0].who == "A. Person"
    with pytest.raises(OutputError, match=r"corrected by hand.*other cells"):
        create(path, (400, 600), overwrite=True, **{**facts((400, 600))})
    assert ScoreStore.open(path).corrections.sittings


def test_exports_have_the_corrections_and_say_so(path, tmp_path):
    correct(path, (np.s_[100:140, 200:260], STROMA))
    expected = lazy_labels(ScoreStore.open(path), ThresholdSettings()).data.compute()
    run(export(path, tmp_path / "areas.csv", "csv"))
    table = (tmp_path / "areas.csv").read_text(encoding="utf-8")
    rows = {row["name"]: row for row in csv.DictReader(table.splitlines())}
    assert float(rows["STR"]["corrected_mm2"]) == pytest.approx(0.1536)
    assert float(rows["TUM"]["corrected_mm2"]) == 0
    for thresholds in (None, ThresholdSettings()):
        target = tmp_path / f"labels-{thresholds is None}.ome.zarr"
        run(export(path, target, "ome-zarr", thresholds))
        group = zarr.open_group(target, mode="r")
        np.testing.assert_array_equal(group["0"][:], expected)
        assert group.attrs["pbip"]["by_hand"]["2"] == 2400
        assert group.attrs["pbip"]["provenance"]["corrected_by_hand_mm2"] == pytest.approx(0.1536)
    run(export(path, tmp_path / "map.geojson", "geojson"))
    text = (tmp_path / "map.geojson").read_text(encoding="utf-8")
    origin = json.loads(text)["napari_pbip"]
    assert origin["corrected_by_hand_mm2"] == pytest.approx(0.1536)
    assert origin["slide_identity"] == ScoreStore.open(path).facts.slide.identity
    assert origin["weights"] == ScoreStore.open(path).facts.model.hash
    assert origin["thresholds"]["delta"] == ThresholdSettings().delta
    stroma = [one for one in shapely.from_geojson(text).geoms if shapely.box(3200, 1600, 4160, 2240).equals(one)]
    assert len(stroma) == 1
    run(export(path, tmp_path / "map.ome.tiff", "ome-tiff"))
    import tifffile

    with tifffile.TiffFile(tmp_path / "map.ome.tiff") as tiff:
        np.testing.assert_array_equal(tiff.asarray(), expected)
        described = ElementTree.fromstring(tiff.ome_metadata).findtext(".//{*}Description")
        assert json.loads(described[described.index("{") :]) == origin
    run(export(path, tmp_path / "all.statistics.csv", "statistics"))
    table = (tmp_path / "all.statistics.csv").read_text(encoding="utf-8")
    corrected = [row for row in csv.DictReader(table.splitlines()) if row["quantity"] == "area corrected by hand"]
    assert [(row["class"], float(row["value"])) for row in corrected] == [("STR", pytest.approx(0.1536))]


def test_what_another_process_corrected_meanwhile_stays(path):
    opened = ScoreStore.open(path)
    assert opened.corrections.cells is None
    correct(path, (np.s_[1:30, 1:30], STROMA), who="A. Person")
    editor = CorrectionEditor(opened.corrections, "B. Person")
    opened.corrections.cells[40:50, 1:30] = RIGHT
    editor.save()
    editor.close()
    again = ScoreStore.open(path).corrections
    assert (again.cells[1:30, 1:30] == STROMA).all()
    assert (again.cells[40:50, 1:30] == RIGHT).all()
    assert [one.who for one in again.sittings] == ["A. Person", "B. Person"]


def test_an_evaluation_is_of_the_model_with_the_corrected_map_beside_it(path):
    truth = np.full((800, 1200), LEFT)
    truth[:, 600:] = RIGHT
    truth[100:300, 100:300] = STROMA
    model = run(score_result(path, Truth(truth, 1), ThresholdSettings())).summary
    assert set(model["protocols"]) == set(PROTOCOLS)
    correct(path, (np.s_[100:300, 100:300], STROMA))
    both = run(score_result(path, Truth(truth, 1), ThresholdSettings())).summary
    assert {key: both["protocols"][key] for key in model["protocols"]} == model["protocols"]
    iou = {key: found["per_class"]["STR"]["iou"] for key, found in both["protocols"].items()}
    assert iou["predicted"] == 0
    assert iou["corrected"] == 100
