"""Labelling tiles in the window by annotations of QuPath."""

from __future__ import annotations

from pathlib import Path

import shapely
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDialogButtonBox, QFileDialog, QLineEdit

from napari_pbip.bank import load_tiles
from napari_pbip.gui.docks.label_tiles import LabelTilesWidget
from napari_pbip.gui.sessions import session_of
from napari_pbip.taxonomy import ClassDisplay
from tests.gui.qt_helpers import click
from tests.slides.test_annotations import feature, write


def choose(button, path: Path, settle) -> None:
    """Press a button that asks for a file, and type its path."""

    def dialog() -> QFileDialog | None:
        shown = (one for one in QApplication.topLevelWidgets() if isinstance(one, QFileDialog) and one.isVisible())
        return next(shown, None)

    click(button)
    settle(lambda: dialog() is not None)
    line = dialog().findChild(QLineEdit, "fileNameEdit")
    line.setCompleter(None)  # its list would take the click
    dialog().activateWindow()
    line.setFocus()
    settle(line.hasFocus)
    line.selectAll()
    QTest.keyClicks(line, str(path))
    click(dialog().findChild(QDialogButtonBox).button(QDialogButtonBox.StandardButton.Open))
    settle(lambda: dialog() is None)


def test_annotations_label_the_tiles_that_training_reads(viewer, settle, sample_slide, tmp_path):
    session = session_of(viewer)
    labelling = session.labelling
    dock = LabelTilesWidget(viewer)
    viewer.window.add_dock_widget(dock, name="Label tiles")
    panel = dock.slide_labels.annotations
    settle()
    assert not panel.button.isEnabled()  # there is no slide
    slide = session.slides.open(sample_slide).slide
    settle(panel.button.isEnabled)
    path = write(tmp_path / "a.geojson", feature(shapely.box(500, 600, 1500, 2000), "Tumor", [200, 0, 0]))
    choose(panel.button, path, settle)
    settle(lambda: bool(panel.notice.text()))
    tiles = dict(labelling.labels.tiles(slide.identity))
    assert panel.notice.text() == f"{len(tiles)} tiles of CMU-1-Small-Region have new labels."
    assert labelling.labels.taxonomy.names == ("Tumor",)
    settle(lambda: not labelling.saving)
    assert load_tiles(session.tiles_folder).counts == (len(tiles),)
    session.classes.display = ClassDisplay(titles={"Tumor": "Carcinoma"})
    titled = write(tmp_path / "c.geojson", feature(shapely.box(500, 0, 1500, 600), "Carcinoma"))
    choose(panel.button, titled, settle)
    settle(lambda: len(labelling.labels.tiles(slide.identity)) > len(tiles))
    assert labelling.labels.taxonomy.names == ("Tumor",)
    click(dock.slide_labels.undo.undo_button)
    click(dock.slide_labels.undo.undo_button)
    assert not labelling.labels.tiles(slide.identity)
    outside = write(tmp_path / "b.geojson", feature(shapely.box(9000, 600, 9500, 2000), "Tumor"))
    choose(panel.button, outside, settle)
    settle(lambda: "lie outside CMU-1-Small-Region" in panel.notice.text())
    settle(lambda: not labelling.saving)
