"""What changed on a slide, after a slider of *Tune* was moved."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_pbip.config import ThresholdSettings
from napari_pbip.gui.sessions import session_of
from napari_pbip.results import ScoreStore, open_labels, write_labels
from napari_pbip.slides.regions import WHOLE
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
