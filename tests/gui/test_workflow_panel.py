"""The dock *Workflow*: all steps in one panel, on small and large screens, with mouse and keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from qtpy.QtCore import QLocale, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QWidget

from napari_pbip import samples
from napari_pbip.gui.samples import PROJECT
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.steps import Step
from napari_pbip.gui.widgets.scroll_column import ScrollColumn
from tests.gui.napari_privates import canvas_of, main_window
from tests.gui.qt_helpers import Settle, click, open_workflow

WIDTH = 400
"""Of the panel, in pixels, at which nothing has to be scrolled sideways."""


@pytest.fixture
def german() -> Iterator[None]:
    before = QLocale()
    QLocale.setDefault(QLocale("de_DE"))
    yield
    QLocale.setDefault(before)


@pytest.fixture
def open_panel(viewer: Any, settle: Settle) -> Callable[[], Any]:
    """Opens the panel from the plugin's menu."""

    def open_it() -> Any:
        panel = open_workflow(viewer, settle)
        panel.close_dock = panel.parentWidget().parentWidget().destroyOnClose  # the cross of its title
        return panel

    return open_it


def shown(panel: Any) -> Step:
    [step] = [step for step, page in panel.pages.items() if page.isVisible()]
    assert panel.buttons[step].isChecked()
    return step


def ticked(panel: Any) -> set[Step]:
    return {step for step, button in panel.buttons.items() if "✓" in button.text()}


@pytest.mark.parametrize("size", [(1366, 768), (1920, 1080)])
def test_every_page_fits_the_screen(
    viewer: Any, settle: Settle, open_panel: Callable[[], Any], german: None, size: tuple[int, int]
) -> None:
    session, window = session_of(viewer), main_window(viewer)
    window.resize(*size)
    viewer.open_sample("napari-pbip", "project")
    settle(lambda: session.folder.name == PROJECT and not session.jobs)
    panel = open_panel()
    assert panel.height() > window.height() - 120  # the whole height of its dock
    assert set(panel.pages) == {Step.SLIDES}
    for step in Step:
        click(panel.buttons[step])
        settle(lambda: not session.jobs)
        settle()
        assert shown(panel) is step
        window.resizeDocks([panel.parentWidget().parentWidget()], [WIDTH], Qt.Orientation.Horizontal)
        settle()
        assert panel.width() <= WIDTH, step
        assert (window.width(), window.height()) == size, step
        columns = [one for one in panel.findChildren(ScrollColumn) if one.isVisible()]
        assert [one for one in columns if one.horizontalScrollBar().maximum() > 0] == [], step
    bank = panel.pages[Step.BANK]
    assert not bank.form.isVisible()  # so that there is room for the clusters
    assert bank.clusters.height() > 2 * bank.clusters.rowHeight(1)
    click(panel.buttons[Step.BANK])
    settle()
    view = bank.clusters.viewport()
    parts = bank.clusters.indexWidget(bank.clusters.clusters.index(0, 0)).findChildren(QWidget)
    assert max(part.mapTo(view, part.rect().topRight()).x() for part in parts if part.isVisible()) < view.width()
    assert set(panel.pages) == set(Step)
    assert ticked(panel) == {Step.SLIDES, Step.LABEL_TILES, Step.BANK, Step.TRAIN}
    for step in (Step.SLIDES, Step.TUNE):
        click(panel.buttons[step])
        assert panel.next_button.text() == "Next: 5 Segment"  # this slide has no map yet


def test_first_use_explains_itself(viewer: Any, settle: Settle, open_panel: Callable[[], Any]) -> None:
    session, panel = session_of(viewer), open_panel()
    slides = panel.pages[Step.SLIDES]
    assert slides.welcome.isVisible()
    assert slides.open_button.isVisible()
    assert not slides.list.isVisible()
    assert panel.missing.text() == "No slide is open yet."
    click(slides.welcome.slide_button)
    settle(lambda: ticked(panel) == {Step.SLIDES})
    assert [one.slide.path for one in session.slides] == [samples.slide()]
    assert not slides.welcome.isVisible()
    assert slides.list.isVisible()
    assert not panel.missing.text()
    viewer.layers.clear()
    settle(lambda: not ticked(panel))
    click(slides.welcome.project_button)
    settle(lambda: session.folder.name == PROJECT and Step.TRAIN in ticked(panel))


def test_a_label_ticks_its_step_and_next_goes_on(viewer: Any, settle: Settle, open_panel: Callable[[], Any]) -> None:
    session, panel = session_of(viewer), open_panel()
    click(panel.pages[Step.SLIDES].welcome.slide_button)
    settle(lambda: Step.SLIDES in ticked(panel))
    click(panel.next_button)
    settle()
    assert shown(panel) is Step.LABEL_TILES
    assert panel.missing.text() == "There are no labelled tiles yet."
    assert panel.buttons[Step.LABEL_TILES].accessibleName() == "2 Label tiles"
    dock = panel.pages[Step.LABEL_TILES]
    click(dock.slide_labels.tool_button)
    canvas = canvas_of(viewer)
    QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=canvas.rect().center())
    settle(lambda: Step.LABEL_TILES in ticked(panel))
    assert panel.buttons[Step.LABEL_TILES].accessibleName() == "2 Label tiles, done"
    assert not panel.missing.text()
    click(dock.slide_labels.undo.undo_button)
    settle(lambda: Step.LABEL_TILES not in ticked(panel))
    click(panel.next_button)  # it never keeps anyone from going on
    settle()
    assert shown(panel) is Step.BANK
    assert not dock.slide_labels.tool.on
    settle(lambda: not session.jobs)


def test_keys_go_from_step_to_step(viewer: Any, settle: Settle, open_panel: Callable[[], Any]) -> None:
    session, panel = session_of(viewer), open_panel()
    window = main_window(viewer)
    window.activateWindow()
    settle(window.isActiveWindow)
    panel.buttons[Step.SLIDES].setFocus()
    for key, step in (
        (Qt.Key.Key_Left, Step.PROJECT),
        (Qt.Key.Key_Right, Step.SLIDES),
        (Qt.Key.Key_Down, Step.SEGMENT),
        (Qt.Key.Key_Up, Step.SLIDES),
    ):
        QTest.keyClick(panel.window().focusWidget(), key)
        settle()
        assert shown(panel) is step
        assert panel.buttons[step].hasFocus()
    canvas_of(viewer).setFocus()
    for key, step in (
        (Qt.Key.Key_PageDown, Step.LABEL_TILES),
        (Qt.Key.Key_PageUp, Step.SLIDES),
        (Qt.Key.Key_PageUp, Step.PROJECT),
        (Qt.Key.Key_PageUp, Step.PROJECT),
    ):
        QTest.keyClick(canvas_of(viewer), key, Qt.KeyboardModifier.ControlModifier)
        settle()
        assert shown(panel) is step
    settle(lambda: not session.jobs)


def test_the_page_stays_when_the_panel_is_opened_again(
    viewer: Any, settle: Settle, open_panel: Callable[[], Any]
) -> None:
    session, panel = session_of(viewer), open_panel()
    click(panel.buttons[Step.TUNE])
    settle()
    panel.close_dock()
    settle()
    panel = open_panel()
    assert set(panel.pages) == {Step.TUNE}
    assert panel.missing.text() == "There is no tissue map yet."
    assert shown(panel) is Step.TUNE
    settle(lambda: not session.jobs)


def test_a_step_beside_its_page_shows_the_same(viewer: Any, settle: Settle, open_panel: Callable[[], Any]) -> None:
    session, panel = session_of(viewer), open_panel()
    session.slides.open(samples.slide())
    click(panel.buttons[Step.LABEL_TILES])
    dock, beside = viewer.window.add_plugin_dock_widget("napari-pbip", "2 Label tiles")
    dock.setFloating(True)
    settle()
    page = panel.pages[Step.LABEL_TILES]
    canvas = canvas_of(viewer)
    click(page.slide_labels.tool_button)
    click(beside.slide_labels.tool_button)
    assert not page.slide_labels.tool_button.isChecked()
    QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=canvas.rect().center())
    settle(lambda: len(session.labelling.labels) == 1)
    settle(lambda: "1 labelled tile" in page.slide_labels.total.text())
    assert page.slide_labels.total.text() == beside.slide_labels.total.text()
    click(panel.buttons[Step.TUNE])
    settle()
    assert beside.slide_labels.tool.on
    assert viewer.layers["Labelled tiles"].visible  # the dock is still open
    settle(lambda: not session.jobs)
