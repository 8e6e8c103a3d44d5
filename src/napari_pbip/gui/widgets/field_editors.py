"""Editors of single settings: the widget follows from the type of the field, as the settings model declares it.

Each has ``value()`` (what was entered, for the model to validate), ``set_value`` and a signal ``value_changed``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import yaml
from qtpy.QtCore import QModelIndex, Qt, Signal
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QMenu,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QToolButton,
    QWidget,
)

from napari_pbip.config.annotations import alternatives
from napari_pbip.gui.widgets.number_box import read_number, read_whole_number

_NOTE = Qt.ItemDataRole.UserRole
_SCROLL_BAR = 24
"""Room for one beside the widest value of a list, in pixels."""


def editor_for(annotation: Any) -> Any:
    """A widget with ``value()`` (what was entered, for the model to validate), ``set_value`` and ``value_changed``.

    ``value()`` raises :class:`ValueError` where what was entered could be read in more than one way.
    """
    parts = alternatives(annotation)
    if parts == [bool]:
        return _Check()
    if Path in parts:
        return _File([word for part in parts for word in get_args(part)])
    if parts == [str]:
        return _Choice((), free=True)
    if len(parts) == 1 and get_origin(parts[0]) is Literal:
        return _Choice(get_args(parts[0]), free=False)
    return _Text(annotation)


class _Text(QLineEdit):
    """Numbers, several values with commas between, ``name: value`` pairs; empty where nothing need be given.

    A single number may be written with a point or a comma, as in every box of the window.
    """

    value_changed = Signal()

    def __init__(self, annotation: Any) -> None:
        super().__init__()
        kinds = {get_origin(part) for part in alternatives(annotation)}
        self._numbers = {int, float} & set(alternatives(annotation))
        self._sequence, self._pairs = tuple in kinds, dict in kinds
        self._only_pairs = kinds == {dict}
        self._optional = NoneType in get_args(annotation)
        if self._pairs:
            self.setPlaceholderText("TUM: …, STR: …" if self._only_pairs else "")
        elif self._optional:
            self.setPlaceholderText("automatic")
        self.editingFinished.connect(self.value_changed)

    def value(self) -> object:
        text = self.text().strip()
        if not text and self._optional:
            return None
        if self._sequence:
            return _flow(f"[{text}]")
        if self._only_pairs or (self._pairs and ":" in text):
            return _flow(f"{{{text}}}")
        number = read_number(text) if self._numbers else None
        if number is None or float in self._numbers:
            return text if number is None else number
        whole = read_whole_number(text)
        if whole is None and number.is_integer():  # 1.000 may mean a thousand
            raise ValueError(f"“{text}” is not a whole number; write it without a point or comma")
        return text if whole is None else whole

    def set_value(self, value: Any) -> None:
        self.setText(as_typed(value))
        self.setCursorPosition(0)


class _Choice(QComboBox):
    """One of several words; ``free`` lets the user type another."""

    value_changed = Signal()

    def __init__(self, choices: Sequence[str], *, free: bool) -> None:
        super().__init__()
        self.addItems(list(choices))
        self.setEditable(free)
        self.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMinimumContentsLength(8)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.textActivated.connect(self.value_changed)
        line = self.lineEdit()
        if line is not None:
            line.editingFinished.connect(self.value_changed)
        self.setItemDelegate(_Noted(self))

    def offer(self, choices: Mapping[str, str]) -> None:
        """Offer values, each with a note that is shown beside it in the list; what is entered stays."""
        there = range(self.count())
        if list(choices.items()) == [(self.itemText(i), self.itemData(i, _NOTE)) for i in there]:
            return
        text = self.currentText()
        self.clear()
        for value, note in choices.items():
            self.addItem(value)
            self.setItemData(self.count() - 1, note, _NOTE)
        self.setCurrentText(text)
        view = self.view()
        if view is not None:
            view.setMinimumWidth(view.sizeHintForColumn(0) + _SCROLL_BAR)

    def value(self) -> object:
        return self.currentText()

    def set_value(self, value: Any) -> None:
        self.setCurrentText(str(value))

    def wheelEvent(self, event: QWheelEvent | None) -> None:
        """Leave the wheel to the panel around: turning it there should not change settings."""
        if event is not None:
            event.ignore()


class _Noted(QStyledItemDelegate):
    """Values in a list, with the note at each."""

    def initStyleOption(self, option: QStyleOptionViewItem | None, index: QModelIndex) -> None:
        super().initStyleOption(option, index)
        note = index.data(_NOTE)
        if note and option is not None:
            option.text = f"{option.text}  –  {note}"


class _Check(QCheckBox):
    """Yes or no."""

    value_changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.clicked.connect(self.value_changed)

    def value(self) -> object:
        return self.isChecked()

    def set_value(self, value: Any) -> None:
        self.setChecked(bool(value))


class _File(QWidget):
    """A file or folder, typed or looked for; empty for none. ``words`` are what else it may be."""

    value_changed = Signal()

    def __init__(self, words: Sequence[str] = ()) -> None:
        super().__init__()
        self.text = QLineEdit()
        self.text.setPlaceholderText("none")
        self.text.editingFinished.connect(self.value_changed)
        self.setFocusProxy(self.text)
        browse = QToolButton()
        browse.setText("…")
        browse.setMinimumWidth(36)
        browse.setToolTip("Look for it")
        browse.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(browse)
        for word in words:
            menu.addAction(word.capitalize(), partial(self._chosen, word))
        menu.addAction("Choose a folder…", partial(self.browse, QFileDialog.FileMode.Directory))
        menu.addAction("Choose a file…", partial(self.browse, QFileDialog.FileMode.ExistingFile))
        browse.setMenu(menu)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.text, 1)
        layout.addWidget(browse)

    def value(self) -> object:
        return self.text.text().strip() or None

    def set_value(self, value: Any) -> None:
        self.text.setText(as_typed(value))

    def browse(self, mode: QFileDialog.FileMode) -> None:
        """Open a file dialog; the window works on."""
        dialog = QFileDialog(self, "Choose", self.text.text())
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setFileMode(mode)
        dialog.fileSelected.connect(self._chosen)
        dialog.open()

    def _chosen(self, path: str) -> None:
        self.text.setText(path)
        self.value_changed.emit()


def as_typed(value: Any) -> str:
    """A value as it is typed."""
    if value is None:
        return ""
    if isinstance(value, (tuple, dict)):
        plain = [_plain(item) for item in value] if isinstance(value, tuple) else value
        flow = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
        return str(flow).strip()[1:-1]
    return str(value)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _flow(text: str) -> Any:
    """YAML whose single values all stay text: the model knows what they have to become."""
    return yaml.load(text, Loader=yaml.BaseLoader)  # a part of the safe loader
