"""One history of labels, thresholds, tissue and removals: by the buttons and keys of the docks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_pbip.gui.docks.label_tiles import LabelTilesWidget
from napari_pbip.gui.docks.project import ProjectWidget
from napari_pbip.gui.docks.slides import SlidesWidget
from napari_pbip.gui.docks.tune import TuneWidget
from napari_pbip.gui.state import history
from tests.gui.qt_helpers import Settle, click, press
from tests.gui.state.test_project import opened


def docked(viewer: Any, settle: Settle, kind: Any) -> Any:
    widget = kind(viewer)
    viewer.window.add_dock_widget(widget, tabify=True)
    widget.parent().raise_()
    settle()
    return widget


def press_undo(widget: Any) -> None:
    press(widget, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)


def test_changes_of_every_kind_are_taken_back_in_turn(viewer: Any, session: Any, settle: Settle) -> None:
    tiles = docked(viewer, settle, LabelTilesWidget)
    [slide] = session.slides
    labels, identity = session.labelling.labels, slide.slide.identity
    assert not tiles.slide_labels.undo.undo_button.isEnabled()
    labels.label(identity, [(2, 3)], [1])
    tune = docked(viewer, settle, TuneWidget)
    result = session.results[0]
    before = result.thresholds
    QTest.keyClick(tune.controls.delta.slider, Qt.Key.Key_PageUp)
    after = result.thresholds
    assert after != before
    project = docked(viewer, settle, ProjectWidget)
    project.table.selectRow(0)
    click(project.remove_button)
    assert session.project.slides == ()
    assert not len(session.slides)
    assert not len(session.results)
    settle()
    assert "removal of slides" in project.undo.undo_button.toolTip()
    click(project.undo.undo_button)
    opened(session, settle)
    assert [one.path.name for one in session.project.slides] == ["skin.svs"]
    assert len(session.slides) == len(session.results) == 1
    assert session.results[0].thresholds == after
    assert "thresholds" in project.undo.undo_button.toolTip()
    press_undo(project.table)
    assert session.results[0].thresholds == before
    click(project.undo.undo_button)
    assert labels.tiles(identity) == {}
    assert not project.undo.undo_button.isEnabled()
    for _ in range(3):
        click(project.undo.redo_button)
    assert labels.tiles(identity) == {(2, 3): frozenset({1})}
    assert session.project.slides == ()
    session.folder = session.folder.with_name("another")
    assert not project.undo.undo_button.isEnabled()


def test_a_move_of_a_slider_is_one_step(
    viewer: Any, session: Any, settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_ONE_MOVE_S", 30.0)  # however slow this machine is
    tune = docked(viewer, settle, TuneWidget)
    before = session.results[0].thresholds
    for _ in range(4):
        QTest.keyClick(tune.controls.delta.slider, Qt.Key.Key_PageUp)
    press_undo(tune.controls.delta.slider)
    assert session.results[0].thresholds == before
    assert not session.history.last
    QTest.keyClick(tune.controls.delta.slider, Qt.Key.Key_PageUp)
    assert not session.history.next  # what was taken back is no more


def test_thresholds_of_a_closed_result_are_taken_back_too(viewer: Any, session: Any, settle: Settle) -> None:
    tune = docked(viewer, settle, TuneWidget)
    store, before = session.results[0].store.path, session.results[0].thresholds
    QTest.keyClick(tune.controls.delta.slider, Qt.Key.Key_PageUp)
    viewer.layers.remove(session.results[0].layer)
    session.project.save()
    session.history.undo()
    assert session.results.open(store).thresholds == before


def test_tissue_that_was_found_again_is_brought_back(viewer: Any, session: Any, settle: Settle) -> None:
    slides = docked(viewer, settle, SlidesWidget)
    [slide] = session.slides
    file = session.tissue_file(slide.slide)
    click(slides.tissue.button)
    settle(lambda: session.tissue.mask(slide) is not None and not session.jobs)
    assert not session.history.last  # there was none before
    layer = session.tissue.mask(slide).layer
    layer.data_setitem((np.arange(5, 40), np.full(35, 5)), 1)  # as a brush
    settle(lambda: session.tissue.mask(slide).corrected)
    # the history keeps files: two hundred corrections of a large slide would need 8 GB as arrays
    assert len(session.tissue.mask(slide).content) < layer.data.nbytes / 8
    painted = np.asarray(Image.open(file)) > 0
    click(slides.tissue.button)
    click(slides.tissue.replace_button)
    settle(lambda: not session.jobs and not session.tissue.mask(slide).by_hand)
    assert not np.array_equal(np.asarray(Image.open(file)) > 0, painted)
    click(slides.undo.undo_button)
    np.testing.assert_array_equal(np.asarray(Image.open(file)) > 0, painted)
    np.testing.assert_array_equal(np.asarray(session.tissue.mask(slide).layer.data) > 0, painted)
    assert session.tissue.mask(slide).by_hand
    settle()
    np.testing.assert_array_equal(np.asarray(Image.open(file)) > 0, painted)
