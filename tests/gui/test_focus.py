"""Every control of every dock is reached by the Tab key in the order that is seen, has a name and shows its focus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from napari.utils.theme import get_theme
from qtpy.QtCore import QPoint, QRect, Qt
from qtpy.QtGui import QColor
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractScrollArea,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QFocusFrame,
    QLabel,
    QSlider,
    QWidget,
)

from napari_pbip import samples
from napari_pbip.gui.focus_frame import COLOUR
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.steps import Step
from tests.gui.contrast import contrast
from tests.gui.napari_privates import main_window
from tests.gui.qt_helpers import Settle, click, open_workflow, unfolded
from tests.gui.state.project_process import make_store


@pytest.fixture
def active(viewer: Any, settle: Settle) -> Any:
    """The main window, which has the focus."""
    window = main_window(viewer)
    window.activateWindow()
    settle(window.isActiveWindow)
    return window


def controls(page: QWidget) -> set[QWidget]:
    """Return what can have the focus by the Tab key; a field of a box has the focus of the box."""
    return {
        one
        for one in page.findChildren(QWidget)
        if one.isVisible()
        and one.isEnabled()
        and one.focusPolicy() & Qt.FocusPolicy.TabFocus
        and not one.focusProxy()
        and not isinstance(one.parentWidget(), (QComboBox, QAbstractSpinBox))
    }


def name_of(control: QWidget) -> str:
    """Return what a screen reader calls a control."""
    if control.accessibleName() or isinstance(control, QAbstractButton):
        return control.accessibleName() or control.text()  # type: ignore[attr-defined]
    return next((label.text() for label in control.window().findChildren(QLabel) if label.buddy() is control), "")


def place(control: QWidget, page: QWidget) -> QRect:
    return QRect(control.mapTo(page, QPoint(0, 0)), control.size())


def is_read_before(one: QRect, other: QRect) -> bool:
    """Return whether a place is above another one, or left of it in the same line."""
    same_line = one.top() < other.center().y() < one.bottom() or other.top() < one.center().y() < other.bottom()
    return one.left() <= other.left() if same_line else one.top() <= other.top()


def press_tab(first: QWidget, page: QWidget) -> tuple[list[QWidget], list[tuple[str, str]]]:
    """Press Tab from a control on until the focus leaves the page, or comes to a control again.

    Returns the controls in the order of the focus, and the names of those that follow each other against the order in
    which they are seen: at that moment, because the page may be scrolled, and in the end, because fields of a table
    that are out of sight may not have been moved yet.
    """
    first.setFocus()
    visited: list[QWidget] = []
    wrong: list[tuple[QWidget, QWidget]] = []
    while (now := QApplication.focusWidget()) is not None and page.isAncestorOf(now) and now not in visited:
        [frame] = [one for one in now.window().findChildren(QFocusFrame) if one.isVisible()]
        assert frame.widget() is now
        if visited and not in_order(visited[-1], now, page):
            wrong.append((visited[-1], now))
        visited.append(now)
        QTest.keyClick(now, Qt.Key.Key_Tab)
        QApplication.processEvents()  # which scrolls
    return visited, [(name_of(one), name_of(other)) for one, other in wrong if not in_order(one, other, page)]


def in_order(one: QWidget, other: QWidget, page: QWidget) -> bool:
    """Return whether a control is seen before another one.

    If one is in an area that can be scrolled and the other is not, their areas are compared. Controls of one area of
    which one is out of sight are in order: it is moved when it is scrolled into sight.
    """

    def within(control: QWidget) -> list[QWidget]:
        areas = [area for area in page.findChildren(QAbstractScrollArea) if area.isAncestorOf(control)]
        return [*sorted(areas, key=lambda area: sum(above.isAncestorOf(area) for above in areas)), control]

    first, second = next(pair for pair in zip(within(one), within(other), strict=False) if pair[0] is not pair[1])
    if first.visibleRegion().isEmpty() or second.visibleRegion().isEmpty():
        return True
    return is_read_before(place(first, page), place(second, page))


def settled(page: Any, settle: Settle) -> None:
    """Wait until a page shows what its threads have found, such as the size of tiles that it proposes."""
    before: set[Any] = set()
    while (now := controls(page)) != before:
        before = now
        for _ in range(3):
            settle()


def test_all_controls_in_the_order_that_is_seen(viewer: Any, settle: Settle, active: Any, tmp_path: Path) -> None:
    session, panel = session_of(viewer), open_workflow(viewer, settle)
    found: dict[Step, int] = {}
    for step, page in unfolded(viewer, panel, settle, tmp_path):
        settled(page, settle)
        there = controls(page)
        assert [one for one in there if not name_of(one)] == [], step
        first = min(there, key=lambda one: (place(one, page).top(), place(one, page).left()))
        visited, wrong = press_tab(first, page)
        assert set(visited) == there, step
        assert wrong == [], step
        found[step] = len(visited)
    assert found[Step.TUNE] > 10
    assert found[Step.TRAIN] > 30
    there = controls(panel)
    assert [one for one in there if not name_of(one)] == []
    settle(lambda: not session.jobs)


def test_sliders_answer_the_arrow_keys(viewer: Any, settle: Settle, active: Any, tmp_path: Path) -> None:
    session = session_of(viewer)
    slide = session.slides.open(samples.slide())
    make_store(slide.slide, tmp_path / "slide.ome.zarr")
    session.results.open(tmp_path / "slide.ome.zarr")
    docks = [viewer.window.add_plugin_dock_widget("napari-pbip", name)[1] for name in ("6 Tune", "1 Slides")]
    settle()
    click(docks[0].controls.more_button)
    tissue = docks[1].tissue
    click(tissue.button)
    settle(lambda: tissue.slider.isEnabled() and not session.jobs)
    count = 0
    for dock in docks:
        dock.parentWidget().raise_()
        settle()
        for slider in [one for one in dock.findChildren(QSlider) if one.isVisible()]:
            slider.setFocus()
            before = slider.value()
            keys = (Qt.Key.Key_Left, Qt.Key.Key_Right, Qt.Key.Key_Right, Qt.Key.Key_Right)
            for key in keys:  # also while the tissue is searched for
                QTest.keyClick(slider, key)
                settle()
            assert slider.value() == before - 1 + 3, slider.accessibleName()
            count += 1
    settle(lambda: not session.jobs)
    assert count == 4 + len(session.results[0].taxonomy) + 1
    mask = session.tissue.mask(slide)
    assert mask is not None
    assert mask.threshold == pytest.approx(tissue.slider.value())


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_focus_is_seen_in_both_themes(viewer: Any, settle: Settle, active: Any, theme: str) -> None:
    viewer.theme = theme
    panel = open_workflow(viewer, settle)
    button = panel.keys_button
    around = place(button, active).adjusted(-2, -2, 2, 2)

    def framed() -> float:
        image = active.grab(around).toImage()
        row = [image.pixelColor(x, 1).name().upper() for x in range(image.width())]
        return row.count(COLOUR) / len(row)

    assert framed() == 0
    button.setFocus()
    settle()
    assert framed() > 0.9
    button.clearFocus()
    settle()
    assert framed() == 0
    background = QColor(get_theme(theme).background.as_hex())
    dock = panel.parentWidget().parentWidget()
    dock.setFloating(True)
    dock.activateWindow()
    settle(dock.isActiveWindow)
    button.setFocus()
    [frame] = dock.findChildren(QFocusFrame)
    assert frame.isVisible()
    assert contrast(QColor(COLOUR), background) > 3
