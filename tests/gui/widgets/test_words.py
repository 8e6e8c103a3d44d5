"""Names of classes and files are shown unchanged, also if they look like HTML or contain a ``&``."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QTextDocumentFragment, QWheelEvent
from qtpy.QtWidgets import QApplication, QCheckBox, QLabel

from napari_pbip import samples
from napari_pbip.gui.docks.label_tiles import LabelTilesWidget
from napari_pbip.gui.docks.slides import SlidesWidget
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.widgets.job_bar import Notice
from napari_pbip.gui.widgets.plot import DockPlot
from napari_pbip.gui.widgets.words import PlainLabel, caption, rich, tip
from tests.gui.qt_helpers import open_slides

NAME = "<b>tumour</b> & co"


def seen(label: QLabel) -> str:
    """Return the text that a user reads."""
    plain = label.textFormat() == Qt.TextFormat.PlainText or not Qt.mightBeRichText(label.text())
    return label.text() if plain else QTextDocumentFragment.fromHtml(label.text()).toPlainText()


def test_names_in_rich_text_tooltips_and_captions(application):
    assert QTextDocumentFragment.fromHtml(tip(f"Show {NAME}\nhere")).toPlainText() == f"Show {NAME}\nhere"
    assert QTextDocumentFragment.fromHtml(f"<b>{rich(NAME)}</b>").toPlainText() == NAME
    assert seen(PlainLabel(NAME)) == NAME
    assert QCheckBox(caption("T&B")).shortcut().isEmpty()
    notice = Notice()
    notice.info(NAME)
    assert seen(notice) == NAME


def test_names_of_slides_and_classes_in_docks(viewer, settle, tmp_path):
    path = tmp_path / "&lt;slide&gt; & co.svs"
    path.write_bytes(samples.slide().read_bytes())
    slides, teach = SlidesWidget(viewer), LabelTilesWidget(viewer)
    for dock in (slides, teach):
        viewer.window.add_dock_widget(dock)
    open_slides(viewer, slides, settle, path)
    assert "&lt;slide&gt; & co" in seen(teach.slide_labels.slide_label)
    labels = session_of(viewer).labelling.labels
    labels.rename_class(0, NAME)
    labels.rename_class(1, "stroma")
    teach.slide_labels.table.renamed.emit(1, NAME)
    assert NAME in seen(teach.slide_labels.class_notice)


@pytest.mark.parametrize("control", [False, True])
def test_the_wheel_over_a_plot_scrolls_the_dock(application, settle, control):
    plot = DockPlot()
    plot.plot([0, 1], [0, 1])
    plot.show()
    settle()
    before = plot.viewRange()
    modifiers = Qt.KeyboardModifier.ControlModifier if control else Qt.KeyboardModifier.NoModifier
    place = QPointF(100, 100)
    viewport = plot.viewport()
    event = QWheelEvent(
        place, QPointF(viewport.mapToGlobal(place.toPoint())), QPoint(), QPoint(0, -120), Qt.MouseButton.NoButton,
        modifiers, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    assert event.type() == QEvent.Type.Wheel
    QApplication.sendEvent(viewport, event)
    assert (plot.viewRange() != before) is control
    assert event.isAccepted() is control  # what is not accepted goes on to the dock around
    plot.close()
    plot.deleteLater()
    settle()
