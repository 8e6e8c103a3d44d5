"""What changed between two maps of a slide: areas and cells are those that numpy finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_pbip.config import ThresholdSettings
from napari_pbip.engine.outputs import compare_labels as module
from napari_pbip.engine.outputs.compare_labels import compare_labels
from napari_pbip.errors import DataError, OutputError
from napari_pbip.events import Finished
from napari_pbip.results import ScoreStore, open_labels, write_labels
from napari_pbip.results.lazy import lazy_labels
from napari_pbip.taxonomy import UNASSIGNED
from tests.results.stores import create, facts, network, segment, smooth_field

SHAPE = (400, 700)
BEFORE, AFTER = ThresholdSettings(delta=0.7), ThresholdSettings(delta=0.2)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ScoreStore:
    store = create(tmp_path_factory.mktemp("compare") / "slide.ome.zarr", SHAPE)
    segment(store, network(smooth_field(SHAPE)))
    write_labels(store, BEFORE)
    return store


def compared(before: ScoreStore, after: ScoreStore, thresholds: ThresholdSettings) -> Finished:
    *_, end = compare_labels(before.path, after.path, thresholds)
    assert isinstance(end, Finished)
    return end


def check(end: Finished, store: ScoreStore, before: np.ndarray, after: np.ndarray) -> None:
    both, mm2 = (before > 0) & (after > 0), (store.cell_um / 1000) ** 2
    assert np.array_equal(end.summary["picture"], np.where(both & (before != after), after, 0))
    assert end.summary["changed"] == pytest.approx((both & (before != after)).sum() * mm2)
    assert end.summary["compared"] == pytest.approx(both.sum() * mm2)
    rows = {row.name: (row.before, row.after) for row in end.summary["areas"]}
    for value, name in [*enumerate(store.taxonomy.names, 1), (UNASSIGNED, "not assigned")]:
        counts = (both & (before == value)).sum(), (both & (after == value)).sum()
        assert rows[name] == pytest.approx(tuple(np.array(counts) * mm2))


def test_two_sets_of_thresholds(store: ScoreStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = np.asarray(open_labels(store)[0][0]), lazy_labels(store, AFTER).data.compute()
    assert (before != after).mean() > 0.1
    check(compared(store, store, AFTER), store, before, after)
    assert compared(store, store, BEFORE).summary["changed"] == 0
    whole = compared(store, store, AFTER).summary["picture"]
    monkeypatch.setattr(module, "_LONGEST", 100)  # a slide that is too large for a picture of every cell
    small = compared(store, store, AFTER)
    assert np.array_equal(small.summary["picture"], whole[::7, ::7])
    assert small.summary["pixel_um"] == 7 * store.cell_um


def test_a_model_with_larger_cells(store: ScoreStore, tmp_path: Path) -> None:
    half = (200, 350)
    about = facts(half)
    coarse = create(
        tmp_path / "coarse.ome.zarr", half, slide=facts(SHAPE)["slide"], grid=about["grid"] | {"model_mpp": 2.0}
    )
    segment(coarse, network(smooth_field(half, seed=1)))
    write_labels(coarse, AFTER)
    assert coarse.cell_um == 2 * store.cell_um
    before = np.asarray(open_labels(coarse)[0][0]).repeat(2, 0).repeat(2, 1)
    check(compared(coarse, store, AFTER), store, before, lazy_labels(store, AFTER).data.compute())


def test_what_cannot_be_compared(store: ScoreStore, tmp_path: Path) -> None:
    other = create(tmp_path / "other.ome.zarr", SHAPE, slide=facts(SHAPE, identity="b2")["slide"])
    with pytest.raises(DataError, match="choose one of the same slide"):
        compared(other, store, AFTER)
    unlabelled = create(tmp_path / "unlabelled.ome.zarr", SHAPE)
    with pytest.raises(OutputError, match="no labels yet"):
        compared(unlabelled, store, AFTER)
