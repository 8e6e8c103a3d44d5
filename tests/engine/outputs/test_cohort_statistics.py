"""One table of many results, read by another library."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_pbip.config import ThresholdSettings
from napari_pbip.engine.outputs.cohort_statistics import cohort_statistics
from napari_pbip.errors import OutputError
from napari_pbip.events import Event, Finished, Warned
from napari_pbip.results import ScoreStore, areas, write_labels
from napari_pbip.results.places import find_stores
from napari_pbip.results.statistics_table import COLUMNS
from tests.results import stores

SHAPE = (130, 180)
STRICT = ThresholdSettings(delta=0.5)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one slide that two models segmented, another slide, and one without labels."""
    folder = tmp_path_factory.mktemp("cohort")
    for name, identity, seed in (("a/seed0", "a1", 0), ("a/seed1", "a1", 1), ("b", "b2", 2), ("c", "c3", 3)):
        values = stores.facts(SHAPE, identity=identity)
        values["slide"]["name"], values["model"]["run"] = identity, f"seed{seed}"
        (folder / name).mkdir(parents=True)
        store = stores.create(folder / name / "slide.ome.zarr", SHAPE, **values)
        stores.segment(store, stores.network(stores.smooth_field(SHAPE, seed=seed)))
        if name != "c":
            write_labels(store, ThresholdSettings())
    return folder


def measured(places: list[Path], out: Path, thresholds: ThresholdSettings | None = None) -> tuple[list[Event], dict]:
    *events, end = cohort_statistics({path: thresholds for place in places for path in find_stores(place)}, out)
    assert isinstance(end, Finished)
    return events, dict(end.summary)


def test_csv_and_parquet_are_the_same_tidy_table(project: Path, tmp_path: Path):
    tables = []
    for name, read in (("cohort.csv", pd.read_csv), ("cohort.parquet", pd.read_parquet)):
        events, summary = measured([project], tmp_path / name)
        (warned,) = (event.message for event in events if isinstance(event, Warned))
        assert warned.startswith("c/slide.ome.zarr is left out: ")
        assert summary == {"slides": 2, "results": 3, "failed": 1}
        tables.append(read(tmp_path / name))
    first, second = tables
    assert tuple(first.columns) == tuple(second.columns) == COLUMNS
    np.testing.assert_allclose(first[["value", "low", "high"]], second[["value", "low", "high"]], rtol=1e-5)
    assert first["class"].tolist() == second["class"].tolist()
    for store in find_stores(project)[:3]:
        wide = second[second["result"] == str(store)].pivot(
            index="class", columns=["quantity", "other"], values="value"
        )
        for row in areas(ScoreStore.open(store)):
            assert wide["area", ""][row.name] == pytest.approx(row.area_mm2)
    both = second[second["model"] == "mean of 2 models"]
    both = both[both["identity"] != ""]
    assert set(both["identity"]) == {"a1"}
    assert (both["range"] == "models").all()
    tumour = second[(second["class"] == "TUM") & (second["quantity"] == "area") & (second["identity"] == "a1")]
    of_seeds = tumour[tumour["result"] != ""]["value"]
    (mean,) = tumour[tumour["result"] == ""].itertuples()
    assert (mean.value, mean.low, mean.high) == pytest.approx((of_seeds.mean(), of_seeds.min(), of_seeds.max()))


def test_what_is_over_slides_is_what_pandas_makes_of_the_rows_of_slides(project: Path, tmp_path: Path):
    slides = [project / "a" / "seed0", project / "b", project / "c"]
    list(measured(slides, tmp_path / "cohort.parquet", STRICT))
    table = pd.read_parquet(tmp_path / "cohort.parquet")
    keys = ["class", "other", "quantity"]
    of_slides = table[table["identity"] != ""]
    assert of_slides["identity"].nunique() == 3
    assert (of_slides["weights"] == of_slides["weights"].iloc[0]).all()
    assert set(of_slides[of_slides["class"] == "TUM"]["delta"]) == {0.5}
    groups = of_slides.groupby(keys)["value"]
    over = {name: rows.set_index(keys) for name, rows in table[table["identity"] == ""].groupby("slide")}
    assert set(over) == {"all slides", "mean of slides", "standard deviation of slides"}
    mean, deviation, together = over["mean of slides"], over["standard deviation of slides"], over["all slides"]
    pd.testing.assert_series_equal(mean["value"], groups.mean(), check_like=True, check_names=False)
    pd.testing.assert_series_equal(mean["low"], groups.min(), check_like=True, check_names=False)
    pd.testing.assert_series_equal(mean["high"], groups.max(), check_like=True, check_names=False)
    pd.testing.assert_series_equal(deviation["value"], groups.std().dropna(), check_like=True, check_names=False)
    assert mean["slides"].to_dict() == groups.count().to_dict()
    areas_of = of_slides[of_slides["quantity"] == "area"].pivot(index="identity", columns="class", values="value")
    wide = of_slides.pivot(index="identity", columns=keys, values="value")
    expected = {}
    for name, other, quantity in together.index:
        values = wide[name, other, quantity]
        if quantity in ("area", "patches", "interface"):
            expected[name, other, quantity] = values.sum()
        elif quantity == "largest patch":
            expected[name, other, quantity] = values.max()
        elif quantity == "share of tissue":
            expected[name, other, quantity] = 100 * areas_of[name].sum() / areas_of.to_numpy().sum()
        elif quantity == "share of both":
            expected[name, other, quantity] = 100 * areas_of[name].sum() / areas_of[[name, other]].to_numpy().sum()
        else:  # the area of the class in a band of distance, on slides with both classes
            of_class = areas_of[name][values.notna()]
            expected[name, other, quantity] = (values * of_class).sum() / of_class.sum()
    assert together["value"].to_dict() == pytest.approx(expected)
    assert {"area", "share of tissue", "share of both", "0-50 um from edge", "interface"} <= set(
        together.reset_index()["quantity"]
    )
    assert "median patch" not in set(together.reset_index()["quantity"])


def test_thresholds_can_be_given(project: Path, tmp_path: Path):
    _, summary = measured([project / "b", project / "c"], tmp_path / "strict.csv", ThresholdSettings(delta=0.8))
    assert summary == {"slides": 2, "results": 2, "failed": 0}
    table = pd.read_csv(tmp_path / "strict.csv")
    copy = shutil.copytree(project / "b", tmp_path / "b") / "slide.ome.zarr"
    write_labels(ScoreStore.open(copy, "r+"), ThresholdSettings(delta=0.8))
    strict = areas(ScoreStore.open(copy))[0]
    assert strict.area_mm2 != areas(ScoreStore.open(project / "b" / "slide.ome.zarr"))[0].area_mm2
    found = table[(table["identity"] == "b2") & (table["class"] == "TUM") & (table["quantity"] == "area")]["value"]
    assert found.item() == pytest.approx(strict.area_mm2, rel=1e-5)


def test_nothing_is_written_if_nothing_can_be_measured(project: Path, tmp_path: Path):
    for places, reason in (([tmp_path], "no results"), ([project / "c"], "None of the results")):
        with pytest.raises(OutputError, match=reason):
            measured(places, tmp_path / "table.csv")
    assert not (tmp_path / "table.csv").exists()
