"""Titles and colours of classes: given in the legend, shown everywhere in the window, kept in the project file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QLineEdit

from napari_pbip import samples
from napari_pbip.gui.docks.label_tiles import LabelTilesWidget
from napari_pbip.gui.docks.legend import LegendWidget
from napari_pbip.gui.docks.project import ProjectWidget
from napari_pbip.gui.docks.tune import TuneWidget
from napari_pbip.gui.panels.cohort_table import AREAS, MAP
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.widgets.class_table import COLOUR, NAME
from napari_pbip.project import Project
from tests.gui.qt_helpers import Settle, answer_text, choose_colour, double_click, type_text
from tests.gui.state.test_history import docked, press_undo
from tests.gui.state.test_project import opened

LEFT = Qt.MouseButton.LeftButton


def test_a_double_click_in_the_legend_gives_a_class_another_title(
    viewer: Any,
    session: Any,
    settle: Settle,
    study: Path,
) -> None:
    table = docked(viewer, settle, ProjectWidget).table
    tune, legend = docked(viewer, settle, TuneWidget), docked(viewer, settle, LegendWidget).legend
    [result] = session.results
    settle(lambda: result.areas.exact and table.cohort_model.classes)
    double_click(legend.rows[1].eye, QPoint(5, legend.rows[1].eye.height() // 2))
    assert 1 not in result.display.hidden
    assert "TUM" in answer_text(legend, settle, "tumour <b>&</b> nests")
    assert legend.rows[1].eye.text() == "tumour <b>&&</b> nests"
    assert tune.controls.rows[0].title.text() == "tumour <b>&</b> nests"
    assert tune.legend.rows[1].eye.text() == "tumour <b>&&</b> nests"
    assert tune.controls.rows[0].name == "TUM"
    assert "tumour <b>&</b> nests" in set(result.layer.features["class"])
    assert table.model().headerData(AREAS, Qt.Orientation.Horizontal) == "tumour <b>&</b> nests\nmm²"
    assert legend.rows[1].area.text() != "–"
    assert session.results[0].taxonomy.names[0] == "TUM"
    legend.rows[2].eye.setFocus()
    QTest.keyClick(legend.rows[2].eye, Qt.Key.Key_F2)
    answer_text(legend, settle, "TUM")
    assert "Another class is called TUM" in answer_text(legend, settle, "stroma")
    assert session.classes.display.titles == {"TUM": "tumour <b>&</b> nests", "STR": "stroma"}

    session.project.save()
    assert Project.open(session.folder).titles == session.classes.display.titles
    folder, session.folder = session.folder, study / "another"
    assert session.classes.display.titles == {}
    session.folder = folder
    opened(session, settle)
    settle(lambda: 1 in legend.rows)
    assert legend.rows[2].eye.text() == "stroma"


def test_a_title_is_taken_back(viewer: Any, session: Any, settle: Settle) -> None:
    dock, tune = docked(viewer, settle, LegendWidget), docked(viewer, settle, TuneWidget)
    legend = dock.legend
    dock.parent().raise_()
    settle()
    for title in ("tumour", "carcinoma", ""):
        double_click(legend.rows[1].eye, QPoint(5, legend.rows[1].eye.height() // 2))
        answer_text(legend, settle, title)
        assert legend.rows[1].eye.text() == (title or "TUM")
    tune.parent().raise_()
    for shown in ("carcinoma", "tumour", "TUM"):
        press_undo(tune)
        assert legend.rows[1].eye.text() == shown


def test_a_folder_keeps_its_names_under_the_titles(viewer: Any, settle: Settle, tmp_path: Path) -> None:
    widget, session = docked(viewer, settle, LabelTilesWidget), session_of(viewer)
    table = widget.folder.table
    widget.tabs.setCurrentWidget(widget.folder)
    widget.folder.choose(samples.tiles())
    settle(lambda: table.isVisible() and not session.jobs)
    names = [table.item(row, NAME).text() for row in range(table.rowCount())]
    before = session.settings.data

    def rename(row: int, title: str) -> None:
        double_click(table.viewport(), table.visualItemRect(table.item(row, NAME)).center())
        editor = table.viewport().findChild(QLineEdit)
        type_text(editor, title)
        QTest.keyClick(editor, Qt.Key.Key_Return)
        settle()

    rename(0, "fat")
    assert table.item(0, NAME).text() == "fat"
    rename(1, "fat")
    assert f"another title for {names[1]}" in widget.folder.notice.text()
    assert table.item(1, NAME).text() == names[1]
    rename(1, "not assigned")
    assert "Tissue without a class is called not assigned" in widget.folder.notice.text()
    assert session.settings.data == before
    rename(0, names[0])
    assert session.classes.display.titles == {}


@pytest.mark.parametrize("title", ["Dermis", ""])
def test_what_is_shown_of_a_labelled_class_is_what_is_changed(
    viewer: Any,
    session: Any,
    settle: Settle,
    title: str,
) -> None:
    part = docked(viewer, settle, LabelTilesWidget).slide_labels
    name = session.labelling.labels.taxonomy.names[1]
    if title:
        session.classes.give(name, title, [name])
    part.table.renamed.emit(1, "papillary dermis")
    assert part.table.item(1, NAME).text() == "papillary dermis"
    assert session.labelling.labels.taxonomy.names[1] == (name if title else "papillary dermis")
    assert session.classes.display.titles == ({name: "papillary dermis"} if title else {})


def test_a_colour_that_is_chosen_in_the_legend_is_that_of_the_class_everywhere(
    viewer: Any, session: Any, settle: Settle, study: Path
) -> None:
    table, labels = docked(viewer, settle, ProjectWidget).table, docked(viewer, settle, LabelTilesWidget)
    tune, dock = docked(viewer, settle, TuneWidget), docked(viewer, settle, LegendWidget)
    part, legend = labels.slide_labels, dock.legend
    name = session.labelling.labels.taxonomy.names[1]
    session.labelling.labels.annotate(session.slides[0].slide.identity, {"TUM": [(0, 0)], name: [(1, 1)]})
    [result] = session.results
    settle(lambda: result.areas.exact and table.cohort_model.classes)
    key = [one.name for one in session.labelling.labels.taxonomy].index("TUM")

    def colours() -> dict[str, str]:
        """Return the colour of the class in each place, and that of most of the small picture of the map."""
        model = table.cohort_model
        picture = model.data(model.index(0, MAP), Qt.ItemDataRole.DecorationRole).toImage()
        pixels = [picture.pixelColor(x, y).name() for x in range(picture.width()) for y in range(picture.height())]
        red, green, blue, _ = (round(255 * float(part)) for part in result.layer.colormap.color_dict[1])
        return {
            "map": f"#{red:02x}{green:02x}{blue:02x}",
            "legend": legend.rows[1].swatch.icon().pixmap(14).toImage().pixelColor(3, 3).name(),
            "in tune": tune.legend.rows[1].swatch.icon().pixmap(14).toImage().pixelColor(3, 3).name(),
            "tune": tune.controls.rows[0].swatch.pixmap().toImage().pixelColor(3, 3).name(),
            "brush": tune.correct.paints.itemIcon(0).pixmap(14).toImage().pixelColor(3, 3).name(),
            "labels": part.table.item(key, COLOUR).icon().pixmap(14).toImage().pixelColor(3, 3).name(),
            "table": next((one for one in pixels if one == "#123456"), "another"),
        }

    before = colours()
    dock.parent().raise_()
    settle()
    choose_colour(legend.rows[1].swatch, "#123456")
    settle()
    assert set(colours().values()) == {"#123456"}
    assert result.store.taxonomy.classes[0].colour != "#123456"  # that of the model
    assert session.labelling.labels.taxonomy.classes[key].colour == "#123456"  # of the next model
    tune.parent().raise_()
    press_undo(tune)  # one step
    settle()
    assert colours() == before
    assert session.labelling.labels.taxonomy.classes[key].colour != "#123456"
    session.history.redo()
    settle()
    assert set(colours().values()) == {"#123456"}

    part.table.recoloured.emit(name, "#654321")
    assert session.classes.display.colours == {"TUM": "#123456", name: "#654321"}
    session.project.save()
    assert Project.open(session.folder).colours == session.classes.display.colours
    session.folder = study / "another"
    assert session.classes.display.colours == {}
