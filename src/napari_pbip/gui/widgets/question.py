"""A question before something that cannot be undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox, QWidget

from napari_pbip.gui.widgets.buttons import push_button


def ask(
    parent: QWidget, title: str, question: str, answers: Mapping[str, Callable[[], object]], details: str = ""
) -> None:
    """Ask in a dialog that does not block the window; nothing is done if the user cancels, which is the default.

    Parameters
    ----------
    parent
        Over which the dialog opens.
    title, question, details
        Of the dialog; ``details`` are below the question.
    answers
        The words of each button, and what is done if it is pressed.
    """
    box = QMessageBox(QMessageBox.Icon.Question, title, question, parent=parent)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setInformativeText(details)
    for words, act in answers.items():
        box.addButton(push_button(words, clicked=act), QMessageBox.ButtonRole.AcceptRole)
    box.setDefaultButton(box.addButton(QMessageBox.StandardButton.Cancel))
    box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    box.open()
