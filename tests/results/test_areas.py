"""Areas add up, and are read as they were written."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from stores import create, halves

from napari_pbip.config import ThresholdSettings
from napari_pbip.errors import OutputError
from napari_pbip.results import areas, open_labels, write_areas, write_labels
from napari_pbip.results.areas import area_rows
from napari_pbip.results.provenance import COLUMNS


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


def test_no_area_is_negative_if_cells_were_counted_at_a_coarser_level(labelled):
    counted = open_labels(labelled)[1].cells
    coarse = {region: {label: 3 * n for label, n in cells.items()} for region, cells in counted.items()}
    rows = area_rows(labelled, coarse)
    assert rows[-1].name == "not analysed"
    assert (rows[-1].cells, rows[-1].area_mm2, rows[-1].percent_of_tissue) == (0, 0, 0)


def test_the_table_can_be_read_back_and_says_what_it_comes_from(tmp_path, labelled):
    rows = write_areas(tmp_path / "areas.csv", labelled)
    assert rows == areas(labelled)
    read = pd.read_csv(tmp_path / "areas.csv")
    header = ["name", "label", "cells", "area_mm2", "percent_of_tissue", "region", "corrected_mm2"]
    assert list(read)[: len(header)] == header
    assert list(read)[len(header) :] == list(COLUMNS)
    assert read["name"].tolist() == [row.name for row in rows]
    assert read["area_mm2"].tolist() == pytest.approx([row.area_mm2 for row in rows], rel=1e-5)
    facts, labels = labelled.facts, open_labels(labelled)[1]
    said = read.iloc[0]
    assert (said["slide"], said["identity"]) == (facts.slide.name, facts.slide.identity)
    assert (said["model"], said["weights"]) == (facts.model.run, facts.model.hash)
    assert (said["presence"], said["smoothing_um"]) == (labels.thresholds.presence, labels.thresholds.smoothing_um)
    assert (said["scores_made"], said["labels_made"]) == (str(facts.made), str(labels.made))
    assert read["delta"].notna().tolist() == [row.name in labelled.taxonomy.names for row in rows]


def test_the_delta_of_a_row_is_that_of_its_class_and_who_made_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_PBIP_OPERATOR", "Dr B")
    store = halves(tmp_path / "s.ome.zarr")
    write_labels(store, ThresholdSettings(delta=0.2, class_delta={"LYM": 0.4}))
    write_areas(tmp_path / "areas.csv", store)
    read = pd.read_csv(tmp_path / "areas.csv").set_index("name")
    assert read["delta"].dropna().to_dict() == {"TUM": 0.2, "STR": 0.2, "LYM": 0.4, "NEC": 0.2}
    assert read["labels_made"].str.contains(" by Dr B, ").all()


def test_a_slide_without_tissue_has_no_areas(tmp_path):
    store = create(tmp_path / "s.ome.zarr", (100, 100), np.zeros((4, 4), bool), np.zeros((25, 25), bool))
    write_labels(store, ThresholdSettings())
    assert [row.percent_of_tissue for row in areas(store)] == [0] * 6


def test_a_table_that_cannot_be_written_is_said_so(tmp_path, labelled):
    (tmp_path / "areas.csv").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_areas(tmp_path / "areas.csv", labelled)


def test_counting_the_tissue_of_a_large_slide_needs_less_memory_than_its_mask(tmp_path):
    tissue = np.random.default_rng(0).random((3000, 3000)) < 0.3
    store = create(tmp_path / "s.ome.zarr", (600, 600), tissue=tissue)
    cells = np.minimum((np.arange(600) + 0.5) * 5, 2999).astype(int)  # the mask pixel under the middle of a cell
    tracemalloc.start()
    try:
        counted = store.tissue_cells
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert counted == np.count_nonzero(tissue[np.ix_(cells, cells)])
    assert peak < tissue.nbytes / 4
