"""The magicgui widgets of settings, chosen by the type of the field in the settings model.

Choices and switches are magicgui's own widgets. Numbers are entered in its line edit, because its spin boxes round
values finer than their step, cannot hold a word such as ``auto``, and read ``1,000`` by the computer's language. For
files and for names with suggestions there are widgets below, with the reason at each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import yaml
from magicgui.widgets import FileEdit, LineEdit, create_widget
from magicgui.widgets.bases import BaseValueWidget, ValuedContainerWidget, ValueWidget
from qtpy.QtCore import QEvent, QModelIndex, QObject, Qt
from qtpy.QtWidgets import QComboBox, QMenu, QStyledItemDelegate, QStyleOptionViewItem

from napari_pbip.config.annotations import alternatives
from napari_pbip.gui.widgets.file_dialogs import Mode, ask_for
from napari_pbip.gui.widgets.number_box import read_number, read_whole_number

_NOTE = Qt.ItemDataRole.UserRole
_SCROLL_BAR = 24
"""Width of the scroll bar beside the widest value of a list, in pixels."""


def field_editor(annotation: Any, titles: Mapping[str, str]) -> BaseValueWidget[Any]:
    """Return the widget for values of a type, of which some may have titles to be shown in a list.

    Its ``value`` is what was entered, which the settings model validates; reading an ambiguous value raises
    :class:`ValueError`. ``changed`` is emitted when a value was chosen, or when a text loses the focus or Return is
    pressed. ``native`` is the Qt widget.
    """
    parts = alternatives(annotation)
    if Path in parts:
        return FileOrFolder([word for part in parts for word in get_args(part)])
    if parts == [str] and NoneType not in get_args(annotation):
        return Suggestions()
    if parts == [bool] or (len(parts) == 1 and get_origin(parts[0]) is Literal):
        choices = [(titles.get(value, str(value)), value) for value in get_args(parts[0])]
        widget = create_widget(annotation=parts[0], options={"choices": choices} if choices else {})
        assert isinstance(widget, BaseValueWidget)
        if isinstance(widget.native, QComboBox):
            _keep_small(widget.native)
        return widget
    return TypedText(annotation)


class TypedText(LineEdit):
    """A text for numbers, values separated by commas, or ``name: value`` pairs; it may be empty for optional settings.

    A single number may have a decimal point or comma, as in all boxes of the window.
    """

    def __init__(self, annotation: Any) -> None:
        kinds = {get_origin(part) for part in alternatives(annotation)}
        self._numbers = {int, float} & set(alternatives(annotation))
        self._sequence, self._pairs = tuple in kinds, dict in kinds
        self._only_pairs = kinds == {dict}
        self._optional = NoneType in get_args(annotation)
        super().__init__()
        if self._pairs:
            self.native.setPlaceholderText("TUM: …, STR: …" if self._only_pairs else "")
        elif self._optional:
            self.native.setPlaceholderText("none" if alternatives(annotation) == [str] else "automatic")

    def _post_init(self) -> None:
        """Emit changes only when the text loses the focus, because half a number is not a value."""
        super(ValueWidget, self)._post_init()
        self.native.editingFinished.connect(self._commit)

    def _commit(self) -> None:
        self.changed.emit(self.native.text())

    def get_value(self) -> Any:
        text = self.native.text().strip()
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
        self.native.setText(as_typed(value))
        self.native.setCursorPosition(0)


class Suggestions(ValuedContainerWidget[str]):
    """A name that is typed or chosen from a list with notes; magicgui's lists do not allow other names."""

    def __init__(self) -> None:
        super().__init__(layout="horizontal", labels=False)
        self.margins = (0, 0, 0, 0)
        self.box = QComboBox()
        self.box.setEditable(True)
        self.box.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.box.setItemDelegate(_Noted(self.box))
        _keep_small(self.box)
        self.native.layout().addWidget(self.box)
        self.native.setFocusProxy(self.box)
        self.box.textActivated.connect(self._commit)
        line = self.box.lineEdit()
        assert line is not None  # because the box is editable
        line.editingFinished.connect(self._commit)

    def _commit(self) -> None:
        self.changed.emit(self.box.currentText())

    def offer(self, choices: Mapping[str, str]) -> None:
        """Set the values of the list and the note beside each; the entered text is kept."""
        box, there = self.box, range(self.box.count())
        if list(choices.items()) == [(box.itemText(i), box.itemData(i, _NOTE)) for i in there]:
            return
        text = box.currentText()
        box.clear()
        for value, note in choices.items():
            box.addItem(value)
            box.setItemData(box.count() - 1, note, _NOTE)
        box.setCurrentText(text)
        view = box.view()
        if view is not None:
            view.setMinimumWidth(view.sizeHintForColumn(0) + _SCROLL_BAR)

    def get_value(self) -> str:
        return self.box.currentText()

    def set_value(self, value: Any) -> None:
        self.box.setCurrentText(str(value))


class FileOrFolder(FileEdit):
    """A file or folder, which is typed or browsed for; empty for none. ``words`` are further allowed values.

    magicgui's own widget browses for either files or folders, in a dialog that blocks the window, and converts every
    text to a path.
    """

    def __init__(self, words: Sequence[str] = ()) -> None:
        super().__init__(nullable=True)
        line, button = self.line_edit.native, self.choose_btn.native
        self.changed.disconnect()
        self.line_edit.changed.disconnect()
        self.choose_btn.changed.disconnect()
        line.setPlaceholderText("none")
        line.editingFinished.connect(self._commit)
        self.native.setFocusProxy(line)
        self.choose_btn.text = "…"
        button.setMaximumWidth(36)
        button.setToolTip("Browse")
        menu = QMenu(button)
        for word in words:
            menu.addAction(word.capitalize(), partial(self._chosen, word))
        menu.addAction("Choose a folder…", partial(self.browse, Mode.Directory))
        menu.addAction("Choose a file…", partial(self.browse, Mode.ExistingFile))
        button.setMenu(menu)

    def get_value(self) -> Any:
        return self.line_edit.native.text().strip() or None

    def set_value(self, value: Any) -> None:
        self.line_edit.native.setText(as_typed(value))

    def browse(self, mode: Mode) -> None:
        """Open a file dialog that does not block the window."""
        start = self.line_edit.native.text()
        ask_for(self.native, "Choose", mode, lambda paths: self._chosen(str(paths[0])), start=start)

    def _commit(self) -> None:
        self.changed.emit(self.value)

    def _chosen(self, path: str) -> None:
        self.set_value(path)
        self._commit()


class _Noted(QStyledItemDelegate):
    """Paints the values of a list with their notes."""

    def initStyleOption(self, option: QStyleOptionViewItem | None, index: QModelIndex) -> None:
        super().initStyleOption(option, index)
        note = index.data(_NOTE)
        if note and option is not None:
            option.text = f"{option.text}  –  {note}"


class _LeaveWheel(QObject):
    """Ignores the wheel over a list, so that scrolling the panel does not change settings."""

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        if event is None or event.type() != QEvent.Type.Wheel:
            return False
        event.ignore()
        return True


def _keep_small(box: QComboBox) -> None:
    """Let a list be as narrow as a dock, and ignore the wheel."""
    box.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    box.setMinimumContentsLength(8)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.installEventFilter(_LeaveWheel(box))


def as_typed(value: Any) -> str:
    """Return a value as a user would type it."""
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
    """Parse YAML with all scalars as text, which the settings model converts."""
    return yaml.load(text, Loader=yaml.BaseLoader)  # a part of the safe loader
