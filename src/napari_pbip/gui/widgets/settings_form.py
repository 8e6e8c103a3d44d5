"""A form for any settings model, from which its fields, bounds, choices and help texts are taken.

The model validates what is entered. A field counts when it loses the focus or Return is pressed. After invalid input, a
sentence is shown at the field, and the previous value is kept. The widgets of a field are made when it is first seen,
because a form of all methods has more than a hundred fields, of which few are ever shown.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Literal, TypeVar, cast

import yaml
from magicgui.widgets.bases import BaseValueWidget
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from qtpy.QtCore import Signal
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QGridLayout, QGroupBox, QLabel, QToolButton, QVBoxLayout, QWidget

from napari_pbip.config import Settings
from napari_pbip.config.annotations import alternatives
from napari_pbip.config.labels import label
from napari_pbip.gui.widgets.buttons import folding_button
from napari_pbip.gui.widgets.field_editors import FileOrFolder, Suggestions, as_typed, field_editor
from napari_pbip.gui.widgets.job_bar import Notice
from napari_pbip.gui.widgets.tab_order import set_tab_order

S = TypeVar("S", bound=Settings)
Names = tuple[str, ...]
"""The path to a field in nested models, such as ``("train", "epochs")``."""
PRESET = "preset"
"""Name of the field that sets the other fields of its model."""


class SettingsForm(QWidget, Generic[S]):
    """Widget that edits a settings model.

    Parameters
    ----------
    value
        The first settings; their class determines the fields.
    only
        Fields of the model (with their sections) to show; by default all.
    main
        Dotted names of the most important fields, such as ``train.epochs``, which are at the top; all others are in a
        panel that can be opened. By default all fields are at the top.
    """

    value_changed = Signal(object)
    """Emitted with the new valid settings when the user has changed them, and not by :meth:`set_value`."""

    def __init__(self, value: S, *, only: Sequence[str] | None = None, main: Sequence[str] = ()) -> None:
        super().__init__()
        self._value = value
        self.rows = [row for row in _rows(type(value)) if only is None or row.names[0] in only]
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        # several methods may have a field of one name
        on_top = [row for name in main for row in self.rows if row.dotted == name]
        others = [row for row in self.rows if row not in on_top]
        self._in_order = [*on_top, *others]
        self._hidden_in_panel = set(others) if main else set()
        self._shown = self._opened = False
        _place(on_top, layout)
        self.others_button: QToolButton | None = None
        self._groups: list[tuple[QGroupBox, list[_Row]]] = []
        self._left_out: Sequence[str] = ()
        if main and others:
            panel = QWidget()
            tip = "Show the settings that seldom need a change"
            self.others_button = folding_button("All settings", tip, panel)
            self.others_button.toggled.connect(self._on_opened)
            layout.addWidget(self.others_button)
            layout.addWidget(panel)
            layout = QVBoxLayout(panel)
            layout.setContentsMargins(0, 0, 0, 0)
        for section in dict.fromkeys(row.names[:-1] for row in others):
            rows = [row for row in others if row.names[:-1] == section]
            if not section:
                _place(rows, layout)
                continue
            group = QGroupBox(label(".".join(section)))
            _place(rows, QVBoxLayout(group))
            layout.addWidget(group)
            self._groups.append((group, rows))
        self._show_rows()

    def showEvent(self, event: QShowEvent | None) -> None:
        super().showEvent(event)
        if not self._shown:
            self._shown = True
            self._show_rows()

    def value(self) -> S:
        """The last valid settings."""
        return self._value

    def set_value(self, value: S) -> None:
        """Show these settings; a text that is being typed is kept if it agrees with them."""
        shown = {row.names[0] for row in self.rows}
        if any(getattr(value, name) != getattr(self._value, name) for name in shown):
            for row in self.rows:
                if row.wrong or row.get(value) != row.get(self._value):
                    row.show(value)
        self._value = value
        self._show_rows()

    def problems(self) -> list[str]:
        """Return the dotted names of fields with invalid values, including texts that are still being typed."""
        for row in self.rows:
            if row.made and row.belongs_to(self._value):
                self._on_edit(row)
        return [row.dotted for row in self.rows if row.belongs_to(self._value) and row.wrong]

    def editor(self, name: str) -> QWidget:
        """Return the Qt widget of a field by its dotted name."""
        widget = self._row(name).editor
        native: QWidget = widget.box if isinstance(widget, Suggestions) else widget.native
        return native

    def controls(self, name: str) -> list[QWidget]:
        """Return what the Tab key visits at a field by its dotted name."""
        return self._row(name).controls

    def problem(self, name: str) -> Notice:
        """Return the notice below a field by its dotted name."""
        return self._row(name).problem

    def reveal(self, name: str) -> None:
        """Open the panel of a field and give it the focus."""
        editor = self.editor(name)
        if self.others_button is not None and not editor.isVisible():
            self.others_button.setChecked(True)
        editor.setFocus()

    def put_below(self, name: str, widget: QWidget, controls: Sequence[QWidget]) -> None:
        """Show a widget below a field, which is given by its dotted name; the Tab key visits its controls in order."""
        row = self._row(name)
        assert row.place is not None  # because every row has been placed
        grid, line = row.place
        grid.addWidget(widget, line + _LINES - 1, 0, 1, 2)
        row.below = controls
        self._order()

    def offer(self, name: str, choices: Sequence[str] | Mapping[str, str]) -> None:
        """Offer values for a text field, with notes if they are a mapping; other values can still be typed."""
        self._row(name).offer(choices if isinstance(choices, Mapping) else dict.fromkeys(choices, ""))

    def leave_out(self, names: Sequence[str]) -> None:
        """Hide fields that change nothing now, by the dotted names of them or of what they are part of."""
        self._left_out = names
        self._show_rows()

    def remark(self, sentences: Mapping[str, object]) -> None:
        """Show what is missing at fields, by their dotted names, and clear the remarks of all others."""
        for row in self.rows:
            row.remark = sentences.get(row.dotted, "")
            row.set_visible(self._shows(row))

    def _row(self, name: str) -> _Row:
        """Return the row of a field with its widgets."""
        row = next(row for row in self.rows if row.dotted == name and row.belongs_to(self._value))
        if self._make(row):
            self._order()
        return row

    def _make(self, row: _Row) -> bool:
        """Make the widgets of a row; return False if they were there."""
        if row.made:
            return False
        row.make(partial(self._on_edit, row))
        row.show(self._value)
        row.set_visible(self._shows(row))
        return True

    def _order(self) -> None:
        """Have the Tab key visit the fields as they are seen, whenever they were made."""
        made = [row for row in self._in_order if row.made]
        on_top = [control for row in made if row not in self._hidden_in_panel for control in row.controls]
        others = [control for row in made if row in self._hidden_in_panel for control in row.controls]
        button = [] if self.others_button is None else [self.others_button]
        set_tab_order(self, *on_top, *button, *others)

    def _on_edit(self, row: _Row) -> None:
        before = self._value
        try:
            value = replaced(before, row.names, row.editor.value)
        except (ValueError, yaml.YAMLError) as error:  # pydantic's errors are ValueErrors
            row.refuse(error, before)
            return
        row.accept()
        if row.get(value) == row.get(before):
            return  # a default that was shown and not changed is not a choice of the user
        self._value = value
        for other in self.rows:
            if other is not row and other.get(value) != other.get(before):  # after the choice of a preset or method
                other.show(value)
        self._show_rows()
        self.value_changed.emit(value)

    def _on_opened(self, opened: bool) -> None:
        if opened and not self._opened:
            self._opened = True
            self._show_rows()

    def _show_rows(self) -> None:
        """Show the fields of the chosen methods, and hide those of all others."""
        new = False
        for row in self._in_order:
            shows = self._shows(row)
            if shows and (self._opened if row in self._hidden_in_panel else self._shown):
                new = self._make(row) or new
            row.set_visible(shows)
        if new:
            self._order()
        for group, rows in self._groups:
            group.setVisible(any(map(self._shows, rows)))

    def _shows(self, row: _Row) -> bool:
        return row.belongs_to(self._value) and not any(f"{row.dotted}.".startswith(f"{n}.") for n in self._left_out)


# fields ------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Row:
    """The row of a field: its label, its editor and the notice below, once they are made."""

    names: Names
    owner: type[Settings] | None
    """Name of the method that the field belongs to; None if all have it."""
    info: FieldInfo
    titles: Mapping[str, str] = field(default_factory=dict)
    """What values are called in the list."""

    def __post_init__(self) -> None:
        self.made = self.wrong = False
        self.remark: object = ""
        self.place: tuple[QGridLayout, int] | None = None
        self.label: QLabel
        self.editor: BaseValueWidget[Any]
        self.problem: Notice
        self.below: Sequence[QWidget] = ()
        """Controls that were put below the field."""

    def make(self, edited: Callable[[], object]) -> None:
        """Make the widgets, and have the editor call a function after each change."""
        assert self.place is not None  # because every row has been placed
        self.label = QLabel(label(self.dotted, self.info))
        self.editor = field_editor(self.info.annotation, self.titles)
        self.problem = Notice()
        self.made = True
        tip = f"<qt>{html.escape(self.info.description or '')}</qt>"  # rich text, because it is wrapped
        for widget in (self.label, self.editor.native):
            widget.setToolTip(tip)
        self.label.setBuddy(self.editor.native)
        for widget in (self.editor.native, self.editor.native.focusProxy()):
            if widget is not None:  # who listens is on the one that has the focus
                widget.setAccessibleName(self.label.text())
        grid, line = self.place
        grid.addWidget(self.label, line, 0)
        grid.addWidget(self.editor.native, line, 1)
        grid.addWidget(self.problem, line + 1, 0, 1, 2)
        self.editor.changed.connect(edited, max_args=0)

    @property
    def controls(self) -> list[QWidget]:
        """What the Tab key visits in this row, once it is made."""
        editor = self.editor
        if isinstance(editor, FileOrFolder):
            own = [editor.line_edit.native, editor.choose_btn.native]
        else:
            own = [editor.box if isinstance(editor, Suggestions) else editor.native]
        return [*own, *self.below]

    @property
    def dotted(self) -> str:
        return ".".join(self.names)

    def belongs_to(self, value: Settings) -> bool:
        """Return whether the settings have this field, which those of other methods may not have."""
        model: Any = value
        for name in self.names[:-1]:
            model = getattr(model, name)
        return self.owner is None or type(model) is self.owner

    def get(self, value: Settings) -> object:
        """Return the field's value, or None if the settings do not have it."""
        if not self.belongs_to(value):
            return None
        model: Any = value
        for name in self.names:
            model = getattr(model, name)
        found: object = model
        return found

    def show(self, value: Settings) -> None:
        """Show the value of the field, if there are widgets; they are made with the present one."""
        if not self.made:
            return
        self.accept()
        if self.belongs_to(value):
            with self.editor.changed.blocked():
                self.editor.value = self.get(value)

    def offer(self, choices: Mapping[str, str]) -> None:
        """Offer values, with a note on each.

        Raises
        ------
        TypeError
            If this is no text field.
        """
        if not isinstance(self.editor, Suggestions):
            raise TypeError(f"{self.dotted} is not a text field")
        self.editor.offer(choices)

    def accept(self) -> None:
        self.wrong = False
        self._show_remark()

    def refuse(self, error: Exception, value: Settings) -> None:
        self.wrong = True
        kept = as_typed(self.get(value))
        self.problem.error(f"{_fault(error)}; {kept + ' is kept' if kept else 'it stays empty'}.")

    def set_visible(self, visible: bool) -> None:
        if not self.made:
            return
        self.label.setVisible(visible)
        self.editor.native.setVisible(visible)
        if not self.wrong:
            self._show_remark()
        self.problem.setVisible(visible and bool(self.wrong or self.remark))

    def _show_remark(self) -> None:
        self.problem.clear()
        if self.remark:
            self.problem.warn(self.remark)


def _rows(model: type[Settings], above: Names = (), common: str | None = None) -> Iterator[_Row]:
    """Yield rows of all fields of a model and of its sections; ``common`` is the field that distinguishes methods."""
    for name, info in model.model_fields.items():
        names = (*above, name)
        models = [
            part for part in alternatives(info.annotation) if isinstance(part, type) and issubclass(part, Settings)
        ]
        if isinstance(info.discriminator, str):
            tags = tuple(part.model_fields[info.discriminator].default for part in models)
            choice = FieldInfo(annotation=cast("Any", Literal[tags]), description=info.description)
            titles = {tag: getattr(part, "title", "") or tag for tag, part in zip(tags, models, strict=True)}
            yield _Row((*names, info.discriminator), None, choice, titles)
        for part in models:
            yield from _rows(part, names, info.discriminator if isinstance(info.discriminator, str) else None)
        if not models and name != common:
            yield _Row(names, model, info)


def replaced(model: Settings, names: Names, raw: object) -> Any:
    """Return ``model`` with another, validated value of a field; defaults are still distinguished from given values."""
    name, *rest = names
    given = {given: getattr(model, given) for given in model.model_fields_set}
    discriminator = type(model).model_fields[name].discriminator
    if rest and rest[0] == discriminator:
        raw = {discriminator: raw}
    elif rest:
        raw = replaced(getattr(model, name), tuple(rest), raw)
    elif name == PRESET:
        given = {}
    return type(model).model_validate({**given, name: raw})


def _fault(error: Exception) -> str:
    """Return what is wrong, as the main clause of a sentence."""
    if isinstance(error, yaml.YAMLError):
        return "This cannot be read"
    if not isinstance(error, ValidationError):
        return str(error)
    faults = error.errors()
    if any(fault["type"] == "missing" for fault in faults):
        return "There are too few values"
    wanted = [fault["msg"].partition(", unable")[0] for fault in faults]
    if all(text.startswith("Input should be ") for text in wanted):
        wanted = [text.removeprefix("Input should be ") for text in dict.fromkeys(wanted)]
        return f"This should be {' or '.join(wanted)}".replace("a valid dictionary", "pairs of a class and its value")
    said = wanted[0].removeprefix("Value error, ")  # of a validator of ours
    return said[:1].upper() + said[1:]


# layout ------------------------------------------------------------------------------------------------------


_LINES = 3
"""Grid rows per field: its editor, its notice, and a widget below that."""


def _place(rows: Sequence[_Row], into: QVBoxLayout) -> None:
    """Give each row its place in a new grid."""
    grid = QGridLayout()
    grid.setColumnStretch(1, 1)
    for i, row in enumerate(rows):
        row.place = (grid, _LINES * i)
    into.addLayout(grid)
