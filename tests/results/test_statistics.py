"""Statistics of labels, against other computations on the whole array, whatever the blocks are."""

from __future__ import annotations

import csv
import math
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import shapely
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import perimeter_crofton

from napari_pbip.config import ThresholdSettings
from napari_pbip.results import ScoreStore, areas, label_region, write_labels
from napari_pbip.results.label_files import FOLDER, open_labels
from napari_pbip.results.statistics import SpatialStatistics, write_statistics
from napari_pbip.results.statistics_table import Statistic, mean_of_models, over_slides
from napari_pbip.taxonomy import BCSS
from tests.results import stores

CELL_UM = 20.0
NAMES = BCSS.names


def statistics_of(labels: np.ndarray, side: int = 512, cell_um: float = CELL_UM) -> SpatialStatistics:
    """Return the statistics of labels that are given in blocks of this side, from the last to the first."""
    found = SpatialStatistics(labels, 3, cell_um)
    for y in reversed(range(0, labels.shape[0], side)):
        for x in range(0, labels.shape[1], side):
            found.add(y, x, side)
    found.finish()
    return found


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    """Return smooth patches of three classes with small spots, tissue without a class, and glass."""
    rng = np.random.default_rng(0)
    scores = [
        ndimage.gaussian_filter(rng.normal(size=(131, 173)), 5) + rng.normal(size=(131, 173)) * 0.01 for _ in range(5)
    ]
    return np.array([0, 1, 2, 3, 255], np.uint8)[np.argmax(scores, 0)]


@pytest.mark.parametrize("side", [17, 64, 512])
def test_patches_are_those_of_the_whole_image(tissue: np.ndarray, side: int):
    found = statistics_of(tissue, side)
    for n in range(3):
        parts, count = ndimage.label(tissue == n + 1)
        sizes = np.bincount(parts.ravel())[1:] * (CELL_UM / 1000) ** 2
        assert count > 10
        np.testing.assert_allclose(np.sort(found.patches(n)), np.sort(sizes))


@pytest.mark.parametrize("side", [17, 64, 512])
def test_distances_are_those_to_the_nearest_cell_of_the_whole_image(tissue: np.ndarray, side: int):
    found = statistics_of(tissue, side)
    for n, m in permutations(range(3), 2):
        from_centres, _ = cKDTree(np.argwhere(tissue == m + 1)).query(np.argwhere(tissue == n + 1))
        distances = (from_centres - 0.5) * CELL_UM
        counts, _ = np.histogram(distances, [-1, 50.0001, 100.0001, 250.0001, np.inf])
        assert (counts > 0).all()
        np.testing.assert_allclose(found.distances(n, m), 100 * counts / counts.sum())


def test_distances_end_at_the_sides_of_cells_but_for_a_fifth_of_a_cell(tissue: np.ndarray):
    found = statistics_of(tissue, 64)
    for n, m in permutations(range(3), 2):
        rows, columns = np.nonzero(tissue == m + 1)
        other = shapely.union_all(shapely.box(columns, rows, columns + 1, rows + 1))
        shapely.prepare(other)
        rows, columns = np.nonzero(tissue == n + 1)
        distances = shapely.distance(other, shapely.points(columns + 0.5, rows + 0.5)) * CELL_UM
        within = np.cumsum(found.distances(n, m))
        for share, edge in zip(within, (50, 100, 250), strict=False):
            fifth = (math.sqrt(0.5) - 0.5) * CELL_UM
            least, most = (100 * np.mean(distances <= limit + 1e-6) for limit in (edge - fifth, edge))
            assert least <= share + 1e-9 <= most + 2e-9


@pytest.mark.parametrize("side", [1, 7, 40])
def test_bands_beside_a_straight_edge(side: int):
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 20:40], labels[:, 40:] = 1, 2
    found = statistics_of(labels, side)
    # the centres of the 20 columns are 10, 30, ... 390 µm from the edge: 3 of them within 50 µm, 5 in 100, 13 in 250
    np.testing.assert_allclose(found.distances(0, 1), [100 * columns / 20 for columns in (3, 2, 8, 7)])
    assert np.isnan(found.distances(0, 2)).all()


@pytest.mark.parametrize("side", [17, 64, 512])
def test_the_interface_of_two_classes_is_their_perimeter(tissue: np.ndarray, side: int):
    two = np.where(tissue == 1, 1, 2).astype(np.uint8)
    two[[0, -1]] = two[:, [0, -1]] = 2
    assert statistics_of(two, side).interface(0, 1) == pytest.approx(
        perimeter_crofton(two == 1, directions=4) * CELL_UM / 1000
    )


def test_the_interface_of_many_classes_does_not_depend_on_blocks(tissue: np.ndarray):
    whole, parts = statistics_of(tissue), statistics_of(tissue, 17)
    around = np.pad(tissue, 1)
    for n, m in permutations(range(3), 2):
        crossings = sum(
            np.count_nonzero((around == n + 1) & (np.roll(around, steps, (0, 1)) == m + 1)) / math.hypot(*steps)
            for steps in product((-1, 0, 1), repeat=2)
            if any(steps)
        )
        assert parts.interface(n, m) == whole.interface(n, m) == whole.interface(m, n)
        assert whole.interface(n, m) == pytest.approx(crossings * math.pi / 8 * CELL_UM / 1000)


@pytest.mark.parametrize("angle", [0, 10, 22.5, 30, 45, 77])
def test_the_length_of_a_straight_interface_is_within_six_percent(angle: float):
    y, x = np.mgrid[:400, :400] - 199.7
    along = np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
    side = x * -along[1] + y * along[0] > 0
    disc = np.hypot(y, x) < 180
    labels = np.where(disc, 1 + side, 0).astype(np.uint8)
    length = statistics_of(labels).interface(0, 1) / (360 * CELL_UM / 1000)
    assert 0.94 < length < 1.04


def test_a_disc():
    y, x = np.mgrid[:300, :300] - 149.5
    labels = np.where(np.hypot(y, x) < 100, 1, 2).astype(np.uint8)
    found = statistics_of(labels, 101, 5)  # its radius is 500 µm
    assert found.interface(0, 1) == pytest.approx(2 * math.pi * 0.5, rel=0.01)
    assert found.patches(0) == pytest.approx([math.pi * 0.5**2], rel=0.01)
    inner = [100 * (1 - distance / 500) ** 2 for distance in (0, 50, 100, 250)]
    np.testing.assert_allclose(found.distances(0, 1), -np.diff([*inner, 0]), atol=0.6)


def test_cells_beside_blocks_that_are_left_out_are_counted():
    labels = np.zeros((8, 8), np.uint8)
    labels[3, 4], labels[4, 3] = 1, 2  # they touch at a corner, and the first block has neither
    found = SpatialStatistics(labels, 2, CELL_UM)
    for y, x in ((4, 0), (0, 4)):
        found.add(y, x, 4)
    assert found.interface(0, 1) == statistics_of(labels, 8).interface(0, 1) > 0


def read(store: ScoreStore, path: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    for _ in write_statistics(path, store, store.path / FOLDER):
        pass
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["slide"], row["identity"], row["result"], row["model"]) for row in rows} == {
        ("slide", "a1", str(store.path), "run")
    }
    found = {(row["class"], row["other"], row["quantity"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def written(store: ScoreStore, path: Path) -> dict[tuple[str, str, str], tuple[str, float]]:
    rows = read(store, path).values()
    return {(row["class"], row["other"], row["quantity"]): (row["unit"], float(row["value"])) for row in rows}


def test_the_table(labelled: ScoreStore, tmp_path: Path):
    thresholds = ThresholdSettings(delta=0.3, class_delta={"TUM": 0.8}, smoothing_um=40)
    write_labels(labelled, thresholds)
    found = written(labelled, tmp_path / "slide.statistics.csv")
    table = {row.name: row for row in areas(labelled)}
    for row in table.values():
        assert found[row.name, "", "area"] == ("mm2", pytest.approx(row.area_mm2, rel=1e-5))
        assert found[row.name, "", "share of tissue"] == ("percent", pytest.approx(row.percent_of_tissue, rel=1e-5))
    of_two = table["TUM"].cells, table["STR"].cells
    assert found["TUM", "STR", "share of both"] == ("percent", pytest.approx(100 * of_two[0] / sum(of_two), rel=1e-5))
    spatial = SpatialStatistics(open_labels(labelled)[0][0], 4, 8)
    spatial.add(0, 0, 900)
    spatial.finish()
    sizes = spatial.patches(0)
    assert found[NAMES[0], "", "patches"] == ("count", len(sizes))
    assert found[NAMES[0], "", "largest patch"] == ("mm2", pytest.approx(sizes.max(), rel=1e-5))
    assert found[NAMES[0], "", "median patch"] == ("mm2", pytest.approx(np.median(sizes), rel=1e-5))
    assert found[NAMES[0], NAMES[1], "interface"] == ("mm", pytest.approx(spatial.interface(0, 1), rel=1e-5))
    bands = [f"{band} um from edge" for band in ("0-50", "50-100", "100-250", ">250")]
    shares = [found[NAMES[0], NAMES[1], band][1] for band in bands]
    np.testing.assert_allclose(shares, spatial.distances(0, 1), rtol=1e-5)


def test_ranges_are_those_of_labels_at_other_deltas(labelled: ScoreStore, tmp_path: Path):
    tables = []
    for tumour, others in ((0.8, 0.3), (0.4, 0.15), (1.0, 0.45)):  # half, and one and a half times, but at most 1
        write_labels(labelled, ThresholdSettings(delta=others, class_delta={"TUM": tumour}, smoothing_um=30))
        tables.append(read(labelled, tmp_path / "slide.statistics.csv"))
    found = tables[0]
    for key, row in found.items():
        values = [float(table[key]["value"]) for table in tables if key in table]
        assert row["range"] == "thresholds"
        assert [float(row["low"]), float(row["high"])] == pytest.approx([min(values), max(values)], rel=1e-5), key
    for quantity in ("area", "patches", "largest patch"):
        row = found["TUM", "", quantity]
        assert float(row["low"]) < float(row["high"])
    assert found["TUM", "STR", "interface"]["low"] != found["TUM", "STR", "interface"]["high"]


def test_what_is_not_defined_has_no_row(tmp_path: Path):
    found = written(stores.halves(tmp_path / "halves.ome.zarr"), tmp_path / "table.csv")
    first, absent, second, _ = NAMES
    assert found[absent, "", "patches"] == ("count", 0)
    assert (absent, "", "median patch") not in found
    assert (first, absent, ">250 um from edge") not in found
    assert found[first, second, "interface"][1] == pytest.approx(728 * 0.008, rel=0.06)


def test_refined_labels_have_no_range(labelled: ScoreStore, tmp_path: Path):
    thresholds = ThresholdSettings()
    write_labels(labelled, thresholds, lambda largest, y, x: label_region(labelled, thresholds, largest, 0, y, x))
    assert {row["range"] for row in read(labelled, tmp_path / "table.csv").values()} == {""}


def test_ranges_are_of_the_cells_that_have_labels(tmp_path: Path):
    store = stores.create(tmp_path / "slide.ome.zarr", (300, 520))
    answer = stores.network(stores.smooth_field((300, 520)))
    stores.segment(store, answer, blocks=2)
    write_labels(store, ThresholdSettings())
    stores.segment(ScoreStore.open(store.path, "r+"), answer)  # and labels are not written again
    found = read(ScoreStore.open(store.path), tmp_path / "table.csv")
    assert float(found["not analysed", "", "area"]["value"]) > 0
    rows = [found[name, "", "area"] for name in (*NAMES, "not assigned")]
    low, area, high = (sum(float(row[column]) for row in rows) for column in ("low", "value", "high"))
    assert low < area < high < 2 * area  # of the cells that were labelled


def test_the_mean_of_models_has_the_range_over_them():
    first = [
        Statistic("slide", "a1", path, model, "", "TUM", "", "area", "mm2", value, 0.0, 9.0, "thresholds")
        for path, model, value in (("x", "seed0", 1.0), ("y", "seed1", 4.0), ("z", "seed2", 1.0))
    ]
    alone = Statistic("slide", "a1", "x", "seed0", "", "TUM", "", "median patch", "mm2", 2.0)
    assert list(mean_of_models([[first[0], alone], [first[1]], [first[2]]])) == [
        Statistic("slide", "a1", "", "mean of 3 models", "", "TUM", "", "area", "mm2", 2.0, 1.0, 4.0, "models")
    ]


def test_regions_of_one_name_count_together_and_what_few_slides_list_has_no_mean():
    def row(slide: str, region: str, name: str, quantity: str, value: float) -> Statistic:
        return Statistic(slide, slide, slide, "run", region, name, "", quantity, "mm2", value)

    first = [row("a", "bed", "TUM", "area", 2.0), row("a", "margin", "TUM", "area", 1.0)]
    second = [row("b", "bed", "TUM", "area", 4.0), row("b", "", "left out", "area", 3.0)]
    third = [row("c", "", "TUM", "area corrected by hand", 0.5)]
    rows = {(one.slide, one.region, one.name): one for one in over_slides([first, second, third])}
    assert rows["all slides", "bed", "TUM"].value == 6
    assert (rows["mean of slides", "bed", "TUM"].value, rows["mean of slides", "bed", "TUM"].slides) == (3, 2)
    assert ("all slides", "margin", "TUM") not in rows
    assert rows["all slides", "", "left out"].value == 3
    assert rows["all slides", "", "TUM"].value == 0.5
    assert not {("mean of slides", "", "left out"), ("mean of slides", "", "TUM")} & set(rows)
    assert not list(over_slides([first]))
