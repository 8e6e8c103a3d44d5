"""Actions with mouse and keyboard, and waiting for their effects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.waiting import PATIENCE

Settle = Callable[..., None]
"""The fixture ``settle``."""


def click(button: Any) -> None:
    """Click a button that is visible and enabled."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    assert button.isVisible(), button.text()
    assert button.isEnabled(), button.text()
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def double_click(widget: Any, place: Any) -> None:
    """Double-click a place, a ``QPoint``, of a widget."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    left = Qt.MouseButton.LeftButton
    QTest.mouseClick(widget, left, pos=place)
    QTest.mouseDClick(widget, left, pos=place)
    QTest.mouseRelease(widget, left, pos=place)


def press(widget: Any, key: Any, modifiers: Any = None) -> None:
    """Give a widget the focus, and press a key."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    widget.window().activateWindow()
    widget.setFocus()
    assert QTest.qWaitForWindowActive(widget.window(), int(PATIENCE * 1000))
    QTest.keyClick(widget, key, modifiers or Qt.KeyboardModifier.NoModifier)


def open_workflow(viewer: Any, settle: Settle) -> Any:
    """Open the dock *Workflow* from the plugin's menu, and return its panel, which is imported in a thread."""
    _, widget = viewer.window.add_plugin_dock_widget("napari-pbip", "Workflow")
    settle(lambda: widget.panel is not None and widget.panel.isVisible())
    settle()
    return widget.panel


def unfolded(viewer: Any, panel: Any, settle: Settle, folder: Path) -> Iterator[tuple[Any, Any]]:
    """Show each page of the panel *Workflow* with all that can be folded, in the sample project; yield step and page.

    ``folder`` is that of a result, which is opened on the page *Tune*.
    """
    from qtpy.QtWidgets import QAbstractButton

    from napari_pbip.gui.samples import PROJECT
    from napari_pbip.gui.sessions import session_of
    from napari_pbip.gui.state.steps import Step
    from tests.gui.state.project_process import make_store

    session, store = session_of(viewer), folder / "slide.ome.zarr"
    viewer.open_sample("napari-pbip", "project")
    settle(lambda: session.folder.name == PROJECT and not session.jobs and len(session.slides) == 1)
    make_store(session.slides[0].slide, store)
    for step in Step:
        click(panel.buttons[step])
        if step is Step.TUNE:  # so that there are controls that were made later than those below
            session.results.open(store)
        settle(lambda: not session.jobs)
        settle()
        page = panel.pages[step]
        for fold in [one for one in page.findChildren(QAbstractButton) if one.text().startswith("▸")]:
            if fold.isVisible():
                click(fold)
        settle()
        yield step, page


def answer(parent: Any, settle: Settle, text: str) -> str:
    """Answer the question that is open over a widget; returns what it says."""
    from qtpy.QtWidgets import QMessageBox

    settle(lambda: parent.findChildren(QMessageBox))
    box = parent.findChildren(QMessageBox)[0]
    said = f"{box.text()} {box.informativeText()}"
    click(next(b for b in box.buttons() if b.text().replace("&", "") == text))
    settle(lambda: not parent.findChildren(QMessageBox))
    return said


def answer_text(parent: Any, settle: Settle, text: str) -> str:
    """Type a text into the dialog that is open over a widget; returns what it says."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QInputDialog, QLineEdit

    settle(lambda: parent.findChildren(QInputDialog))
    dialog = parent.findChildren(QInputDialog)[-1]
    said: str = dialog.labelText()
    line = dialog.findChild(QLineEdit)
    type_text(line, text)
    QTest.keyClick(line, Qt.Key.Key_Return)
    settle()
    return said


def type_text(line: Any, text: str) -> None:
    """Replace the text of a line."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    line.selectAll()
    QTest.keyClick(line, Qt.Key.Key_Delete)
    QTest.keyClicks(line, text)


def save_as(parent: Any, settle: Settle, path: Path) -> None:
    """Type a name into the dialog that is open over a widget and asks where to save, and wait for the file."""
    _answer_with_files(parent, settle, str(path))
    settle(path.exists)


def choose_files(parent: Any, settle: Settle, *paths: Path) -> None:
    """Type files into the dialog that is open over a widget and asks for some."""
    _answer_with_files(parent, settle, " ".join(f'"{path}"' for path in paths))


def _answer_with_files(parent: Any, settle: Settle, text: str) -> None:
    from qtpy.QtWidgets import QDialogButtonBox, QFileDialog, QLineEdit

    def visible() -> list[Any]:  # and none of before, which Qt has still to delete
        return [dialog for dialog in parent.findChildren(QFileDialog) if dialog.isVisible()]

    settle(visible)
    [dialog] = visible()
    dialog.findChild(QLineEdit).setText(text)
    button = dialog.findChild(QDialogButtonBox).buttons()[0]
    settle(button.isEnabled)
    click(button)


def choose_entry(box: Any, text: str) -> None:
    """Choose an entry of a list with the arrow keys."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    place = box.findText(text)
    assert place >= 0, text
    box.setFocus()
    for _ in range(abs(steps := place - box.currentIndex())):
        QTest.keyClick(box, Qt.Key.Key_Down if steps > 0 else Qt.Key.Key_Up)
    assert box.currentText() == text


def choose_colour(button: Any, colour: str) -> None:
    """Press a button that asks for a colour, and choose one, ``#RRGGBB``, in its dialog."""
    from qtpy.QtGui import QColor
    from qtpy.QtWidgets import QColorDialog

    click(button)
    dialog = button.findChildren(QColorDialog)[-1]
    dialog.setCurrentColor(QColor(colour))
    dialog.accept()


def choose_encoder(choice: Any, name: str) -> None:
    """Type the name of an encoder into its field, and press Return."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    line = choice.form.editor("encoder").lineEdit()
    type_text(line, name)
    QTest.keyClick(line, Qt.Key.Key_Return)


def open_slides(viewer: Any, dock: Any, settle: Settle, *paths: Path) -> None:
    """Give slides to the dock *Slides* of a viewer, and wait until they are shown, or it is told why not."""
    from napari_pbip.gui.sessions import session_of

    dock.take(paths)
    settle(lambda: not session_of(viewer).opening.paths)
    settle()


def run_job(button: Any, session: Any, settle: Settle) -> None:
    """Click a button that starts a job, and wait until no job runs."""
    click(button)
    settle(lambda: not session.jobs)


def dropped(widget: Any, *paths: Path) -> Any:
    """Drop files on a widget, and return the event, which says whether they were accepted."""
    from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
    from qtpy.QtGui import QDropEvent

    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    no = Qt.KeyboardModifier.NoModifier
    event = QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton, no)
    widget.dropEvent(event)
    return event


def drop_on_viewer(viewer: Any, settle: Settle, path: Path) -> str:
    """Drop a file on napari's window and press OK if it asks for a reader; return the readers that it offered."""
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication

    from tests.gui.napari_privates import is_reader_dialog, qt_viewer

    offered: list[str] = []

    def press_ok() -> None:
        for dialog in QApplication.topLevelWidgets():
            if is_reader_dialog(dialog) and dialog.isVisible():
                offered.extend(button.text() for button in dialog.reader_btn_group.buttons())
                dialog.accept()

    timer = QTimer()
    timer.timeout.connect(press_ok)
    timer.start(20)
    dropped(qt_viewer(viewer), path)
    settle()
    timer.stop()
    return " ".join(offered)


def drag(canvas: Any, places: Sequence[Any]) -> None:
    """Move the mouse over some places of a canvas with the button down, which QTest.mouseMove does not do."""
    from qtpy.QtCore import QEvent, QPointF, Qt
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    left, no = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    QTest.mouseMove(canvas, places[0].toPoint())
    QTest.mousePress(canvas, left, no, places[0].toPoint())
    for place in places[1:]:
        QTest.qWait(25)  # napari reports no two moves in quick succession
        everywhere = QPointF(canvas.mapToGlobal(place.toPoint()))
        move = QMouseEvent(QEvent.Type.MouseMove, place, everywhere, Qt.MouseButton.NoButton, left, no)
        QApplication.sendEvent(canvas, move)
    QTest.mouseRelease(canvas, left, no, places[-1].toPoint())
