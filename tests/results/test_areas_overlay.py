"""Areas add up; the overlay lies where the labels lie and can be read."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
from PIL import Image
from stores import create, segment

from napari_pbip.config import ThresholdSettings
from napari_pbip.errors import OutputError
from napari_pbip.results import ScoreStore, areas, open_labels, overlay, write_areas, write_labels, write_overlay
from napari_pbip.results.lazy import label_blocks
from napari_pbip.results.overlay import LabelSummary, labels_like
from napari_pbip.taxonomy import BCSS


@pytest.fixture
def labelled(tmp_path, finished):
    path = tmp_path / "slide.ome.zarr"
    shutil.copytree(finished, path)
    store = ScoreStore.open(path)
    write_labels(store, ThresholdSettings())
    return store


def halves(path):
    """A slide of 800 x 1200 cells: the left half class 0, the right half class 2, a left-out band at the bottom."""
    shape = (800, 1200)
    planned = np.ones((34, 50), bool)
    planned[30:] = False
    store = create(path, shape, planned)

    def answer(row, column):
        scores = np.full((4, 28, 28), -1.0)
        left = column * 24 + np.arange(28) < 600
        scores[0, :, left] = 2
        scores[2, :, ~left] = 5
        return scores, np.ones(4)

    segment(store, answer)
    write_labels(store, ThresholdSettings())
    return store


def test_areas_are_those_of_the_picture(tmp_path):
    rows = {row.name: row for row in areas(halves(tmp_path / "s.ome.zarr"))}
    assert list(rows) == ["TUM", "STR", "LYM", "NEC", "not assigned", "not analysed"]
    # tile 29 is the last: it covers cells 696 to 723
    height = 724
    assert rows["TUM"].cells == rows["LYM"].cells == height * 600
    assert rows["TUM"].area_mm2 == pytest.approx(height * 600 * 64e-6)  # cells of 8 microns
    assert rows["not analysed"].cells == (800 - height) * 1200
    assert rows["TUM"].percent_of_tissue == pytest.approx(100 * height / 800 / 2)


def test_percentages_add_up(labelled):
    rows = areas(labelled)
    assert sum(row.percent_of_tissue for row in rows) == pytest.approx(100)
    assert sum(row.cells for row in rows) == labelled.tissue_cells
    labels = open_labels(labelled)[0][0][:]
    assert [row.cells for row in rows[:-1]] == [(labels == row.label).sum() for row in rows[:-1]]


def test_the_table_can_be_read_back(tmp_path, labelled):
    rows = areas(labelled)
    write_areas(tmp_path / "areas.csv", rows)
    with (tmp_path / "areas.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == ["name", "label", "cells", "area_mm2", "percent_of_tissue"]
    assert [row["name"] for row in read] == [row.name for row in rows]
    assert [float(row["area_mm2"]) for row in read] == pytest.approx([row.area_mm2 for row in rows], rel=1e-5)


def test_a_slide_without_tissue_has_no_areas(tmp_path):
    store = create(tmp_path / "s.ome.zarr", (100, 100), np.zeros((4, 4), bool), np.zeros((25, 25), bool))
    write_labels(store, ThresholdSettings())
    assert [row.percent_of_tissue for row in areas(store)] == [0] * 6


@pytest.mark.parametrize("size", [(800, 1200), (200, 300), (133, 200), (1600, 2400)])
def test_labels_lie_under_the_same_pixels_of_the_thumbnail(tmp_path, size):
    labels = labels_like(halves(tmp_path / "s.ome.zarr"), *size)
    height, width = size
    assert labels.shape == size
    assert (labels[: height * 7 // 10, : width // 2 - 4] == 1).all()
    assert (labels[: height * 7 // 10, width // 2 + 4 :] == 3).all()
    assert (labels[height * 19 // 20 :] == 0).all()


def test_a_small_picture_needs_no_fine_level(tmp_path):
    store = halves(tmp_path / "s.ome.zarr")
    shutil.rmtree(store.path / "labels" / "tissue" / "0" / "c")
    assert labels_like(store, 400, 600).any()
    assert not labels_like(store, 401, 600).any()


def test_the_overlay_mixes_colours_and_leaves_the_rest(tmp_path):
    thumbnail = np.full((4, 4, 3), 200, np.uint8)
    labels = np.array([[0, 1, 3, 255]] * 4, np.uint8)
    mixed = overlay(thumbnail, labels, BCSS, opacity=0.5)
    assert mixed[0].tolist() == [[200, 200, 200], [228, 100, 100], [100, 100, 228], [195, 195, 195]]


def test_the_picture_has_a_legend_in_the_class_colours(tmp_path):
    store = halves(tmp_path / "s.ome.zarr")
    write_overlay(tmp_path / "overlay.png", store, np.full((200, 300, 3), 255, np.uint8))
    with Image.open(tmp_path / "overlay.png") as image:
        picture = np.asarray(image)
    assert picture.shape[0] >= 200
    legend = picture[:, 300:]
    for one in BCSS:
        assert (legend == one.rgb).all(-1).sum() > 50
    assert (legend.max(-1) < 100).sum() > 200  # text


def test_a_file_that_cannot_be_written_is_said_so(tmp_path, labelled):
    for name in ("overlay.png", "areas.csv"):
        (tmp_path / name).mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_overlay(tmp_path / "overlay.png", labelled, np.zeros((70, 90, 3), np.uint8))
    with pytest.raises(OutputError, match="cannot be written"):
        write_areas(tmp_path / "areas.csv", areas(labelled))


@pytest.mark.parametrize("size", [(70, 90), (133, 200), (700, 900), (1000, 1300)])
def test_a_summary_without_writing_is_that_of_the_written_labels(labelled, size):
    summary = LabelSummary(labelled, *size)
    for block in label_blocks(labelled, ThresholdSettings()):
        summary.add(*block)
    assert summary.areas == areas(labelled)
    np.testing.assert_array_equal(summary.picture, labels_like(labelled, *size))
