"""Areas, statistics and polygons of a slide with regions, against computations by hand with shapely."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import shapely

from napari_pbip.config import ThresholdSettings
from napari_pbip.errors import OutputError
from napari_pbip.results import LargestScores, ScoreStore, areas, open_labels, write_areas, write_labels
from napari_pbip.results.corrections import CorrectionEditor
from napari_pbip.results.geojson import write_geojson
from napari_pbip.results.label_files import FOLDER
from napari_pbip.results.lazy import label_blocks, lazy_labels
from napari_pbip.results.overlay import LabelSummary
from napari_pbip.results.places import REGIONS
from napari_pbip.results.statistics import write_statistics
from napari_pbip.slides.regions import Kind, Region, Regions

# no border passes through the centre of a cell, which belongs to one side there, and to none for shapely
BED = shapely.Point(5003, 5001).buffer(3000).difference(shapely.Point(5003, 5001).buffer(800))
PART = shapely.box(9001, 7001, 13000.7, 10999.3)
FRONT = shapely.Polygon([(6001, 501), (14001, 903), (9001, 8007)])
PEN = shapely.box(4001, -10, 4603, 20000)
REGION = Regions(
    (
        Region("tumour bed", Kind.ANALYSE, BED),
        Region("tumour bed", Kind.ANALYSE, PART),
        Region("invasive front", Kind.ANALYSE, FRONT),
        Region("pen", Kind.LEAVE_OUT, PEN),
    ),
)
CELL = 16.0  # level-0 pixels


@pytest.fixture
def regional(labelled: ScoreStore) -> ScoreStore:
    """Return a store whose labels were written again with regions."""
    REGION.write(labelled.path.with_name(REGIONS))
    store = ScoreStore.open(labelled.path)
    write_labels(store, ThresholdSettings())
    return store


def centres_in(shape: shapely.Geometry, store: ScoreStore) -> np.ndarray:
    _, height, width = store.scores[0].shape
    return shapely.contains_xy(shape, *np.meshgrid((np.arange(width) + 0.5) * CELL, (np.arange(height) + 0.5) * CELL))


def masks(store: ScoreStore) -> dict[str, np.ndarray]:
    """Return the cells that count and lie in each region, found by shapely alone."""
    bed = centres_in(shapely.union(BED, PART), store)
    front, pen = centres_in(FRONT, store), centres_in(PEN, store)
    return {"": (bed | front) & ~pen, "tumour bed": bed & ~pen, "invasive front": front & ~pen}


def test_areas_are_those_of_the_cells_that_shapely_finds_in_the_regions(regional: ScoreStore, tmp_path: Path):
    everything = (slice(None), slice(None))
    labels = np.asarray(open_labels(regional)[0][0][everything])
    counted = masks(regional)
    assert (labels[~counted[""]] == 0).all()
    plain = ScoreStore.open(regional.path)
    plain.use_regions(Regions())
    tissue = plain.tiles_and_tissue(0, *everything)[2]
    rows = areas(regional)
    assert list(dict.fromkeys(row.region for row in rows)) == ["", "tumour bed", "invasive front"]
    for row in rows:
        inside = counted[row.region]
        cells = int((labels[inside] == row.label).sum()) if row.label else int((tissue & inside & (labels == 0)).sum())
        assert row.cells == cells
        assert row.percent_of_tissue == pytest.approx(100 * cells / int((tissue & inside).sum()))
    for region in counted:
        assert sum(row.percent_of_tissue for row in rows if row.region == region) == pytest.approx(100)
    left_out = int((tissue & ~counted[""]).sum()) * (regional.cell_um / 1000) ** 2
    assert regional.left_out_mm2 == pytest.approx(left_out)
    assert left_out > 0
    write_areas(tmp_path / "areas.csv", regional)
    with (tmp_path / "areas.csv").open(newline="", encoding="utf-8") as file:
        assert Counter(row["region"] for row in csv.DictReader(file)) == {"": 6, "tumour bed": 6, "invasive front": 6}


def test_areas_with_regions_and_corrections_are_those_of_the_cells_that_both_leave(regional: ScoreStore):
    model = np.asarray(open_labels(regional)[0][0][:, :])
    painted = np.zeros(model.shape, np.bool_)
    painted[300:500, 250:700] = True
    editor = CorrectionEditor(regional.corrections, "")
    assert regional.corrections.cells is not None
    regional.corrections.cells[painted] = 2
    editor.save()
    editor.close()
    store = ScoreStore.open(regional.path)
    by_hand = painted & (model != 0)  # what does not count by the regions cannot be corrected
    expected = np.where(by_hand, 2, model)
    thresholds = ThresholdSettings()
    summary = LabelSummary(store)
    for block in label_blocks(store, thresholds, LargestScores(store).percentile(thresholds.percentile)):
        summary.add(*block)
    rows = areas(store)
    assert summary.areas == rows
    for row in rows:
        inside = masks(store)[row.region]
        if row.label:
            assert row.cells == np.count_nonzero(expected[inside] == row.label)
        given = np.count_nonzero(by_hand & inside) if row.label == 2 else 0
        assert row.corrected_mm2 == pytest.approx(given * (store.cell_um / 1000) ** 2)
    assert sum(row.corrected_mm2 > 0 for row in rows) == 3


def test_scores_outside_the_regions_do_not_change_labels_inside(regional: ScoreStore):
    """The thresholds are shares of the largest score where it counts, so that changed regions need no new scores."""
    before = np.asarray(lazy_labels(regional, ThresholdSettings()).data)
    writable = ScoreStore.open(regional.path, "r+")
    scores = writable.scores[0][:]
    scores[:, ~masks(regional)[""]] = 1000
    writable.scores[0][:] = scores
    np.testing.assert_array_equal(np.asarray(lazy_labels(writable, ThresholdSettings()).data), before)


def test_labels_of_earlier_regions_are_not_measured(regional: ScoreStore):
    regional.path.with_name(REGIONS).unlink()
    store = ScoreStore.open(regional.path)
    with pytest.raises(OutputError, match="regions of slide have changed"):
        areas(store)
    write_labels(store, ThresholdSettings())
    assert {row.region for row in areas(store)} == {""}


def test_regions_that_cannot_be_used_are_named(labelled: ScoreStore):
    file = labelled.path.with_name(REGIONS)
    Regions((Region("far", Kind.ANALYSE, shapely.box(90_000, 0, 95_000, 50)),)).write(file)
    with pytest.raises(OutputError, match=r"regions\.geojson cannot be used: The region far lies outside slide"):
        ScoreStore.open(labelled.path)
    file.write_text("{", encoding="utf-8")
    with pytest.raises(OutputError, match="is no GeoJSON"):
        ScoreStore.open(labelled.path)


def test_statistics_of_a_region_are_those_of_its_cells(regional: ScoreStore, tmp_path: Path):
    list(write_statistics(tmp_path / "s.csv", regional, regional.path / FOLDER))
    with (tmp_path / "s.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    table = {(row["region"], row["class"], row["other"], row["quantity"]): float(row["value"]) for row in rows}
    assert len(table) == len(rows)
    for row in areas(regional):
        assert table[row.region, row.name, "", "area"] == pytest.approx(row.area_mm2, rel=1e-5)
    cell_mm2 = (regional.cell_um / 1000) ** 2
    assert table["", "left out", "", "area"] == pytest.approx(regional.left_out_mm2, rel=1e-5)
    labels = np.asarray(open_labels(regional)[0][0][:, :])
    inside = masks(regional)["invasive front"]
    row, column = np.nonzero(inside & (labels == 1))
    squares = shapely.box(column, row, column + 1, row + 1)
    patches = shapely.get_parts(shapely.union_all(squares)).tolist()
    assert table["invasive front", regional.taxonomy.names[0], "", "patches"] == len(patches)
    largest = max(one.area for one in patches) * cell_mm2
    assert table["invasive front", regional.taxonomy.names[0], "", "largest patch"] == pytest.approx(largest, rel=1e-5)


def test_polygons_end_at_regions_and_have_their_names(regional: ScoreStore, tmp_path: Path):
    list(write_geojson(tmp_path / "p.geojson", regional, regional.path / FOLDER, regional.taxonomy))
    features = json.loads((tmp_path / "p.geojson").read_text(encoding="utf-8"))["features"]
    found: Counter[tuple[str, str]] = Counter()
    for feature in features:
        about = feature["properties"]
        shape = shapely.from_geojson(json.dumps(feature["geometry"]))
        found[about["name"], about["classification"]["name"]] += shape.area / CELL**2
    labels, counted = np.asarray(open_labels(regional)[0][0][:, :]), masks(regional)
    first = counted["tumour bed"]
    expected = {
        (region, name): int((labels[inside] == n).sum())
        for region, inside in (("tumour bed", first), ("invasive front", counted["invasive front"] & ~first))
        for n, name in enumerate(regional.taxonomy.names, 1)
    }
    for key, cells in expected.items():
        assert found[key] == pytest.approx(cells, rel=1e-4)
