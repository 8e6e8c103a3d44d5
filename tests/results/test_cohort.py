"""A summary of a result says what its own files and jobs say, and the table of a cohort is read by others."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import shapely

from napari_pbip.config import ThresholdSettings
from napari_pbip.errors import OutputError
from napari_pbip.results import ScoreStore, write_labels
from napari_pbip.results.areas import areas
from napari_pbip.results.cohort import CohortRow, ResultSummary, class_names, summarise, write_cohort
from napari_pbip.results.places import REGIONS
from napari_pbip.slides.regions import Kind, Region, Regions
from tests.results import stores
from tests.results.test_corrections import correct

SHAPE = (300, 520)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    store = stores.create(tmp_path_factory.mktemp("cohort") / "slide.ome.zarr", SHAPE)
    stores.segment(store, stores.network(stores.smooth_field(SHAPE)))
    return store


def test_areas_are_those_of_the_labels(store):
    thresholds = ThresholdSettings(delta=0.3, class_delta={"TUM": 0.6, "of another model": 0.5})
    found = summarise(store.path, thresholds)
    write_labels(store, thresholds.of_classes(store.taxonomy.names))
    assert found.areas == tuple(areas(store))
    assert summarise(store.path).areas == found.areas  # by default as the labels in the store were made
    assert summarise(store.path, ThresholdSettings()).areas != found.areas
    assert found.tissue_mm2 == pytest.approx(300 * 520 * 0.008**2)
    assert (found.model, found.done) == ("run", found.planned)


def test_the_picture_has_the_colours_and_proportions_of_the_map(tmp_path):
    picture = summarise(stores.halves(tmp_path / "halves.ome.zarr").path, side=60).picture()
    assert picture.shape == (40, 60, 3)
    left, right = (stores.BCSS.classes[n].rgb for n in (0, 2))
    np.testing.assert_array_equal(picture[10, 10], left)
    np.testing.assert_array_equal(picture[10, 50], right)
    np.testing.assert_array_equal(picture[-1, 30], (255, 255, 255))  # not analysed


def test_an_unfinished_result_is_summarised(tmp_path):
    store = stores.create(tmp_path / "slide.ome.zarr", SHAPE)
    empty = summarise(store.path)
    assert empty.done == 0
    assert {area.area_mm2 for area in empty.areas[:-1]} == {0}
    stores.segment(store, stores.network(stores.smooth_field(SHAPE)), blocks=2)
    found = summarise(store.path)
    assert 0 < found.done < found.planned
    assert sum(area.percent_of_tissue for area in found.areas) == pytest.approx(100)


def by_scores(path: Path) -> ResultSummary:
    """Summarise a store as if it had no labels."""
    away = (path / "labels").rename(path.with_name("labels"))
    found = summarise(path)
    away.rename(path / "labels")
    return found


def test_labels_are_believed_as_long_as_nothing_has_changed(tmp_path, monkeypatch):
    path = tmp_path / "slide.ome.zarr"
    store = stores.create(path, SHAPE)
    network = stores.network(stores.smooth_field(SHAPE))
    stores.segment(store, network, blocks=2)
    write_labels(store, ThresholdSettings())
    summaries = [summarise(path)]

    def changed() -> None:
        summaries.append(summarise(path))
        assert summaries[-1] == by_scores(path)
        np.testing.assert_array_equal(summaries[-1].labels, by_scores(path).labels)
        assert summaries[-1].areas not in [one.areas for one in summaries[:-1]]

    with ScoreStore.open(path, "r+") as store:  # goes on
        stores.segment(store, network)
    changed()
    write_labels(ScoreStore.open(path), ThresholdSettings())
    assert summarise(path) == summaries[-1]
    correct(path, (np.s_[100:150, 200:300], 2))
    changed()
    Regions((Region("bed", Kind.ANALYSE, shapely.box(0, 0, 4000, 3000)),)).write(tmp_path / REGIONS)
    changed()
    write_labels(ScoreStore.open(path), ThresholdSettings())
    assert summarise(path) == summaries[-1]
    with monkeypatch.context() as patch:  # without a look at the scores, which are much larger
        patch.setattr("napari_pbip.results.cohort.label_blocks", None)
        assert summarise(path) == summaries[-1]


def test_what_is_no_store_is_said_so(tmp_path):
    with pytest.raises(OutputError, match="score store"):
        summarise(tmp_path)


def test_one_table_of_all(store, tmp_path):
    found = summarise(store.path, ThresholdSettings())
    rows = [
        CohortRow("ä, b", Path("ä, b.svs"), 0.25, "slide", found.tissue_mm2, found),
        CohortRow("c", Path("c.svs"), None, None, None, None),
    ]
    assert class_names(rows) == (*store.taxonomy.names, "not assigned", "not analysed")
    write_cohort(tmp_path / "cohort.csv", rows)
    with (tmp_path / "cohort.csv").open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert (first["slide"], first["mpp"], first["mpp_from"], first["model"]) == ("ä, b", "0.25", "slide", "run")
    assert float(first["TUM mm2"]) == pytest.approx(found.areas[0].area_mm2, rel=1e-5)
    assert (first["identity"], first["weights"]) == (store.facts.slide.identity, store.facts.model.hash)
    assert (first["TUM delta"], first["presence"], first["labels_made"]) == ("0.15", "0.5", "")
    assert sum(float(first[name]) for name in first if name.endswith(" percent")) == pytest.approx(100, rel=1e-4)
    assert second.pop("slide") == "c"
    assert second.pop("path") == "c.svs"
    assert set(second.values()) == {""}
