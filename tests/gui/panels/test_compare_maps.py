"""What changed on a slide: after a slider of *Tune* was moved, as a difference, and side by side."""

from __future__ import annotations

import json
import shutil
from typing import Any

import numpy as np
import shapely
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_pbip.config import ThresholdSettings
from napari_pbip.gui.compat import grid_of
from napari_pbip.gui.sessions import session_of
from napari_pbip.results import ScoreStore, open_labels, write_labels
from napari_pbip.results.places import FURTHER_MAPS
from napari_pbip.slides.regions import WHOLE, Kind, Region, Regions
from tests.gui.panels.map_bench import Bench
from tests.gui.qt_helpers import click


def test_the_map_is_compared_with_the_saved_labels(
    viewer: Any,
    settle: Any,
    store: Any,
    result: Any,
    tune: Any,
) -> None:
    panel, session = tune.compare, session_of(viewer)
    click(panel.saved_button)
    settle(lambda: not session.jobs)
    assert "no labels yet" in panel.bar.notice.text()
    write_labels(ScoreStore.open(store), ThresholdSettings(delta=0.6))
    for _ in range(3):
        QTest.keyClick(tune.controls.delta.slider, Qt.Key.Key_PageUp)
    settle(lambda: result.areas.exact and not result.areas.counting)
    click(panel.saved_button)
    settle(lambda: not session.jobs)
    assert "mm² have another label" in panel.notice.text()
    table = panel.table
    rows = {table.item(row, 0).text(): [float(table.item(row, n).text()) for n in (1, 2)] for row in range(5)}
    saved = open_labels(ScoreStore.open(store))[1].cells[WHOLE]
    mm2 = (result.store.cell_um / 1000) ** 2
    for row in result.areas.rows[:-1]:
        before, now = rows[row.name]
        assert np.isclose(before, saved[row.label] * mm2, atol=1e-4)
        assert np.isclose(now, row.area_mm2, atol=1e-4)
    layer = next(layer for layer in viewer.layers if layer.name.startswith("What changed on"))
    assert not result.layer.visible
    assert np.asarray(layer.data).any()
    assert session.results.current is result
    corners = [np.array(one.extent.world) for one in (layer, result.layer)]
    assert np.allclose(corners[0], corners[1], atol=result.store.cell_um)
    QTest.keyClick(tune.controls.delta.slider, Qt.Key.Key_PageDown)
    assert "compare again" in panel.notice.text()
    click(panel.saved_button)
    settle(lambda: not session.jobs)
    assert "mm² have another label" in panel.notice.text()
    assert sum(layer.name.startswith("What changed on") for layer in viewer.layers) == 1


def differing(viewer: Any) -> float:
    """Return how much of the two views differs."""
    picture = viewer.screenshot(canvas_only=True)[..., :3].astype(int)
    width = picture.shape[1] // 2 - 2  # of a view, without the space between them
    return float(np.mean(np.abs(picture[:, :width] - picture[:, -width:]).max(2) > 40))


def test_the_two_maps_are_shown_side_by_side(bench: Bench, settle: Any) -> None:
    viewer, session, shown, panel = bench.viewer, bench.session, bench.result, bench.tune.compare
    write_labels(ScoreStore.open(bench.path), ThresholdSettings(delta=0.9))
    assert not panel.beside_button.isVisible()
    click(panel.saved_button)
    settle(lambda: not session.jobs and panel.beside_button.isVisible())
    before, grid = [*viewer.layers], grid_of(viewer)
    click(panel.beside_button)
    settle(lambda: grid.enabled and not session.jobs)
    picture, labels = viewer.layers[-2:]
    assert shown.layer.visible
    assert not viewer.layers[f"What changed on {shown.title}"].visible
    assert viewer.layers.selection.active is shown.layer
    np.testing.assert_array_equal(
        np.asarray(labels.data[0] if labels.multiscale else labels.data), open_labels(ScoreStore.open(bench.path))[0][0]
    )
    centre = [np.mean(one.extent.world, 0) for one in (labels, shown.layer)]
    assert np.allclose(*centre, atol=shown.store.cell_um)
    settle(lambda: session.slides[0].pyramid.pending == 0)
    settle()
    assert differing(viewer) > 0.2
    for layer in (shown.layer, labels):
        layer.visible = False
    settle()
    assert differing(viewer) < 0.02  # the same slide, at the same place
    for layer in (shown.layer, labels):
        layer.visible = True
    bench.session.regions.change(session.slides[0], Regions((Region("a", Kind.ANALYSE, shapely.box(0, 0, 900, 900)),)))
    settle()  # a layer that is added belongs to the first view
    assert tuple(viewer.layers[-2:]) == (picture, labels)
    assert grid.stride == len(viewer.layers) - 2
    session.history.undo()
    grid.enabled = False  # with napari's own button
    settle(lambda: not panel.beside_button.isChecked())
    assert not {picture, labels} & {*viewer.layers}
    assert grid.stride == 1
    click(panel.beside_button)
    settle(lambda: grid.enabled and not session.jobs)
    click(panel.beside_button)
    assert not grid.enabled
    assert {*before} <= {*viewer.layers}
    click(panel.beside_button)
    settle(lambda: grid.enabled and not session.jobs)
    viewer.layers.remove(shown.layer)
    settle(lambda: not grid.enabled)


def test_the_map_is_compared_with_that_of_another_model(bench: Bench, settle: Any) -> None:
    panel, session = bench.tune.compare, bench.session
    other = bench.path.parent / FURTHER_MAPS / "2" / bench.path.name
    shutil.copytree(bench.path, other)
    facts = json.loads((other / "zarr.json").read_text())
    facts["attributes"]["pbip"]["model"] |= {"run": "second", "hash": "weights 2"}
    (other / "zarr.json").write_text(json.dumps(facts))
    write_labels(ScoreStore.open(other), ThresholdSettings(delta=0.9))
    click(panel.other_button)
    settle(panel.menu.isVisible)
    assert [choice.text() for choice in panel.menu.actions()] == ["The map by “second”", "", "Another folder…"]
    QTest.keyClick(panel.menu, Qt.Key.Key_Down)
    QTest.keyClick(panel.menu, Qt.Key.Key_Return)
    settle(lambda: panel.beside_button.isVisible() and not session.jobs)
    assert "mm² have another label than in the map by “second”" in panel.notice.text()
    assert panel.table.horizontalHeaderItem(1).text() == "second, mm²"
    saved, mm2 = open_labels(ScoreStore.open(other))[1].cells[WHOLE], (bench.result.store.cell_um / 1000) ** 2
    first = bench.result.taxonomy.names[0]
    assert panel.table.item(0, 0).text() == first
    assert np.isclose(float(panel.table.item(0, 1).text()), saved[1] * mm2, atol=1e-4)
    click(panel.beside_button)
    settle(lambda: not session.jobs)
    assert panel.beside_notice.text().endswith("Right: that by “second”.")
    click(panel.beside_button)
