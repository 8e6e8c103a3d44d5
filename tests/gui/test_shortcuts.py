"""The keys of the window, with real key events on the canvas, in docks and in text fields."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDialog, QLabel

from napari_pbip import samples
from napari_pbip.gui.keys import Key, Place
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.steps import Step
from tests.gui.napari_privates import canvas_of, keys_of_napari, main_window
from tests.gui.qt_helpers import Settle, click, open_workflow
from tests.gui.state.project_process import make_store
from tests.waiting import PATIENCE

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "shortcuts.md"
NO, SHIFT = Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ShiftModifier


@pytest.fixture
def press(viewer: Any, settle: Settle) -> Callable[..., None]:
    """Press a key on the widget that has the focus, by default the canvas."""
    window = main_window(viewer)
    window.activateWindow()
    settle(window.isActiveWindow)

    def press_it(key: Qt.Key, modifiers: Qt.KeyboardModifier = NO, widget: Any = None) -> None:
        widget = canvas_of(viewer) if widget is None else widget
        window.activateWindow()
        widget.setFocus()
        settle(widget.hasFocus)
        QTest.keyClick(widget, key, modifiers)
        settle()

    return press_it


def open_result(session: Any, folder: Path) -> Any:
    """Open a result of the sample slide, which is open."""
    store = folder / "slide.ome.zarr"
    make_store(session.slides[0].slide, store)
    return session.results.open(store)


@pytest.fixture
def panel(viewer: Any, settle: Settle) -> Any:
    return open_workflow(viewer, settle)


def test_the_page_and_the_dialog_list_all_keys(viewer: Any, settle: Settle, panel: Any) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for place, keys in groupby(Key, lambda key: key.place):
        rows = "\n".join(f"| {key.keys} | {key.does} |" for key in keys)
        assert f"## {place}\n\n| keys | what they do |\n|---|---|\n{rows}\n\n" in page
    assert page.count("## ") == len(Place)
    click(panel.keys_button)
    settle()
    [dialog] = panel.findChildren(QDialog)
    said = {label.text() for label in dialog.findChildren(QLabel)}
    assert {key.keys for key in Key} | {key.does for key in Key} <= said
    dialog.close()
    settle()


def test_no_key_of_the_window_is_one_of_napari(viewer: Any, panel: Any) -> None:
    taken = {QKeySequence(keys).toString() for keys in keys_of_napari()}
    assert {"V", "Ctrl+Y", "Ctrl+O", "Space"} <= taken  # the list is not empty
    assert "Ctrl+Z" in taken  # of a layer of labels; those of docks end there
    ours = {QKeySequence(key.keys).toString() for key in Key if key.place is Place.WINDOW} - {"Ctrl+Z", "Ctrl+Shift+Z"}
    assert "" not in ours
    assert not ours & taken
    everywhere = [
        shortcut.key().toString()
        for shortcut in main_window(viewer).findChildren(QShortcut)
        if shortcut.context() == Qt.ShortcutContext.WindowShortcut
    ]
    assert sorted(keys for keys in everywhere if keys in ours) == sorted(ours)  # each once


def test_tools_are_switched_whatever_is_in_front(
    viewer: Any, settle: Settle, press: Callable[..., None], tmp_path: Path
) -> None:
    session = session_of(viewer)
    session.slides.open(samples.slide())
    settle()
    press(Qt.Key.Key_G)  # opens the panel
    panel = open_workflow(viewer, settle)
    labelling = panel.pages[Step.LABEL_TILES]
    assert panel.buttons[Step.LABEL_TILES].isChecked()
    assert labelling.slide_labels.tool.on
    press(Qt.Key.Key_G)
    assert not labelling.slide_labels.tool.on
    labelling.tabs.setCurrentWidget(labelling.folder)
    press(Qt.Key.Key_G, widget=panel.buttons[Step.LABEL_TILES])
    assert labelling.slide_labels.tool.on
    press(Qt.Key.Key_W)  # there is no map to ask about
    assert panel.buttons[Step.TUNE].isChecked()
    tune = panel.pages[Step.TUNE]
    assert not tune.why_button.isVisible()
    assert not tune.why_button.isChecked()
    press(Qt.Key.Key_G)  # the tool was on when its page was left
    assert labelling.slide_labels.tool.on
    click(panel.buttons[Step.TUNE])
    open_result(session, tmp_path)
    settle(lambda: tune.why_button.isVisible())
    click(panel.buttons[Step.SLIDES])
    press(Qt.Key.Key_W)
    assert panel.buttons[Step.TUNE].isChecked()
    assert tune.why_button.isChecked()
    click(panel.buttons[Step.SLIDES])
    press(Qt.Key.Key_W)
    assert tune.why_button.isChecked()
    press(Qt.Key.Key_W, widget=tune.controls.delta.slider)
    assert not tune.why_button.isChecked()
    settle(lambda: not session.jobs)


def test_slides_of_the_project_one_after_another(
    viewer: Any, settle: Settle, press: Callable[..., None], tmp_path: Path
) -> None:
    session = session_of(viewer)
    paths = [Path(shutil.copy(samples.slide(), tmp_path / f"{name}.tif")) for name in "abc"]
    session.project.add(paths)
    settle(lambda: len(session.project.slides) == 3 and not session.jobs)
    seen = []
    for modifiers in (NO, NO, NO, NO, SHIFT, SHIFT, SHIFT):
        press(Qt.Key.Key_N, modifiers)
        settle(lambda: not session.jobs)
        settle()
        seen.append(session.current_slide.slide.path.stem)
    assert "".join(seen) == "abccbaa"
    assert [slide.layer.visible for slide in session.slides] == [True, False, False]
    session.project.remove([paths[1]])
    settle(lambda: not session.jobs)
    press(Qt.Key.Key_N)
    settle(lambda: not session.jobs)
    assert session.current_slide.slide.path.stem == "c"
    session.project.add([paths[1], Path(shutil.copy(samples.slide(), tmp_path / "0.tif"))])  # in this order
    settle(lambda: len(session.project.slides) == 4 and not session.jobs)
    for following in "b0":
        press(Qt.Key.Key_N)
        settle(lambda: not session.jobs)
        assert session.current_slide.slide.path.stem == following
    settle(lambda: not session.jobs)


def test_the_map_is_hidden_while_the_key_is_held_and_from_press_to_press(
    viewer: Any, settle: Settle, press: Callable[..., None], panel: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, canvas = session_of(viewer), canvas_of(viewer)
    session.slides.open(samples.slide())
    layer = open_result(session, tmp_path).layer
    settle(lambda: not session.jobs)
    with monkeypatch.context() as patch:
        patch.setattr("napari_pbip.gui.shortcuts._HELD_S", PATIENCE)  # however slow this machine is
        press(Qt.Key.Key_H)
        assert not layer.visible
        press(Qt.Key.Key_H)
        assert layer.visible
    for shown in (True, False):  # held down, it is the other way round only as long
        layer.visible = shown
        QTest.keyPress(canvas, Qt.Key.Key_H)
        for _ in range(3):
            QTest.qWait(200)
            assert layer.visible is not shown
        QTest.keyRelease(canvas, Qt.Key.Key_H)
        settle()
        assert layer.visible is shown
    slide = session.slides[0].layer
    assert slide.visible
    layer.visible = True
    QTest.keyPress(canvas, Qt.Key.Key_H)
    QTest.qWait(500)
    click(panel.keys_button)
    [dialog] = panel.findChildren(QDialog)
    dialog.activateWindow()  # and gets the release, which a window manager would do by itself
    settle(lambda: layer.visible)
    dialog.close()
    settle()


def test_a_key_is_a_letter_where_somebody_types(viewer: Any, settle: Settle, press: Callable[..., None]) -> None:
    session = session_of(viewer)
    session.slides.open(samples.slide())
    _, project = viewer.window.add_plugin_dock_widget("napari-pbip", "Project")
    _, labels = viewer.window.add_plugin_dock_widget("napari-pbip", "2 Label tiles")
    settle()
    project.search.setFocus()
    for key in (Qt.Key.Key_G, Qt.Key.Key_H, Qt.Key.Key_W, Qt.Key.Key_N):
        press(key, widget=project.search)
    press(Qt.Key.Key_N, SHIFT, widget=project.search)
    assert project.search.text().lower() == "ghwnn"
    table = labels.slide_labels.table
    table.setFocus()
    QTest.keyClick(table, Qt.Key.Key_F2)
    editor = table.focusWidget() if table.focusWidget() is not table else main_window(viewer).focusWidget()
    QTest.keyClicks(editor, "gh")
    QTest.keyClick(editor, Qt.Key.Key_Return)
    settle()
    assert session.labelling.labels.taxonomy.names[0] == "gh"
    press(Qt.Key.Key_G, widget=labels.slide_labels.tile_size.pixels)
    assert not labels.slide_labels.tool.on
    settle(lambda: not session.jobs)


def test_a_letter_finds_an_entry_of_a_list(
    viewer: Any, settle: Settle, press: Callable[..., None], tmp_path: Path
) -> None:
    session = session_of(viewer)
    paths = [Path(shutil.copy(samples.slide(), tmp_path / f"{name}.tif")) for name in ("a", "gland", "nodule")]
    _, project = viewer.window.add_plugin_dock_widget("napari-pbip", "Project")
    session.project.add(paths)
    settle(lambda: len(project.table.cohort_model.entries) == 3 and not session.jobs)
    table = project.table
    table.selectRow(0)
    for key, found in ((Qt.Key.Key_N, "nodule"), (Qt.Key.Key_G, "gland")):
        QTest.qWait(2 * QApplication.keyboardInputInterval())  # else the letters are one word
        press(key, widget=table)
        settle(lambda found=found: [path.stem for path in table.selected()] == [found])
    table.cohort_model.beginResetModel()  # after which no slide is current
    table.cohort_model.endResetModel()
    QTest.qWait(2 * QApplication.keyboardInputInterval())
    press(Qt.Key.Key_N, widget=table)
    settle(lambda: [path.stem for path in table.selected()] == ["nodule"])
    table.setCurrentIndex(table.currentIndex().siblingAtColumn(2))  # the names are searched, whichever column it is
    QTest.qWait(2 * QApplication.keyboardInputInterval())
    press(Qt.Key.Key_G, widget=table)
    settle(lambda: [path.stem for path in table.selected()] == ["gland"])
    session.project.add([Path(shutil.copy(samples.slide(), tmp_path / "other.tif"))])
    settle(lambda: len(table.cohort_model.entries) == 4 and not session.jobs)
    assert table.path(table.currentIndex()).stem == "gland"
    assert not len(session.slides)
    _, labels = viewer.window.add_plugin_dock_widget("napari-pbip", "2 Label tiles")
    labels.tabs.setCurrentWidget(labels.folder)
    settle()
    layouts = labels.folder.layout_box
    press(Qt.Key.Key_G, widget=layouts)
    assert not labels.slide_labels.tool_button.isChecked()
    press(Qt.Key.Key_N, widget=canvas_of(viewer))
    settle(lambda: len(session.slides) and not session.jobs)
    assert session.current_slide.slide.path.stem == "a"
