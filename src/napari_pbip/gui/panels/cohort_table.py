"""The slides of a project as a table: sorted by any column, filtered by text; microns per pixel can be edited in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import (
    QAbstractTableModel,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QPersistentModelIndex,
    QSize,
    QSortFilterProxyModel,
    Qt,
    Signal,
)
from qtpy.QtGui import QFont, QResizeEvent
from qtpy.QtWidgets import (
    QAbstractItemDelegate,
    QAbstractItemView,
    QHeaderView,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QWidget,
)

from napari_pbip.gui.area_text import percent, square_millimetres
from napari_pbip.gui.connections import listen
from napari_pbip.gui.state.cohort import SIDE, Cohort, CohortEntry
from napari_pbip.gui.state.shown_classes import ShownClasses
from napari_pbip.gui.widgets.number_box import read_number
from napari_pbip.gui.widgets.words import tip
from napari_pbip.results.areas import Area
from napari_pbip.results.cohort import class_names
from napari_pbip.slides.mpp import is_usual

SLIDE, MAP, MPP, TISSUE, STATE, MODEL, AREAS = range(7)
"""The columns; from the last on, two for each class: mm² and percent."""
_COLUMNS = ("slide", "map", "mpp", "tissue_mm2", "state", "model")
"""Their names in the file of the project."""
_HEADERS = ("Slide", "Map", "µm per\npixel", "Tissue\nmm²", "State", "Model")
_WIDTHS = {SLIDE: 116, MAP: 52, MPP: 68, TISSUE: 52, STATE: 72, MODEL: 84}
"""Widths in pixels with which the columns up to the state are in sight in the workflow panel."""
_AREA_WIDTHS = 64, 160
"""Least and largest width in pixels of the columns of classes, which are as wide as their titles in between."""
_AROUND_TITLE = 22
"""Width in pixels of what is beside the title of a column: margins, and the arrow of the order of the rows."""
_MOST_OF_NAME = 360
"""Largest width in pixels that the names of slides get of what the other columns leave."""
_LEAST_HEIGHT = 150
"""Height in pixels with the heading, two slides and the bar for scrolling sideways."""
_MPP_FROM = {"slide": "as the slide says", "user": "given by you", None: "of an earlier version"}
_SORT = Qt.ItemDataRole.UserRole
_UNKNOWN = float("-inf")
Index = QModelIndex | QPersistentModelIndex


def _text(value: float, column: int) -> str:
    """Return a number as it is shown in its column, which is wide enough for it."""
    if column == MPP:
        return f"{value:.4g}"
    return percent(value) if (column - AREAS) % 2 and column > AREAS else square_millimetres(value)


def _is_figure(column: int) -> bool:
    return column in (MPP, TISSUE) or column >= AREAS


class CohortModel(QAbstractTableModel):
    """The table of a cohort; a row is a slide. Pictures and areas appear when they have been read."""

    mpp_given = Signal(object, float)
    """Emitted with the path of a slide and the microns per pixel that the user typed for it."""
    refused = Signal(str)
    """Emitted with a sentence on why what the user typed is refused, or an empty text."""

    def __init__(self, cohort: Cohort, classes: ShownClasses) -> None:
        super().__init__()
        self._cohort = cohort
        self._shown = classes
        self.entries: list[CohortEntry] = []
        self.classes: tuple[str, ...] = ()

    def refresh(self) -> None:
        """Show the entries as they are now."""
        entries = self._cohort.entries()
        classes = class_names(entry.row for entry in entries)
        same = classes == self.classes and [e.row.path for e in entries] == [e.row.path for e in self.entries]
        if not same:
            self.beginResetModel()
        before, self.entries, self.classes = self.entries, entries, classes
        if not same:
            self.endResetModel()
        elif changed := [row for row, entry in enumerate(entries) if entry != before[row]]:
            # the view sorts and filters these rows again
            self.dataChanged.emit(self.index(changed[0], 0), self.index(changed[-1], self.columnCount() - 1))

    def retitle(self) -> None:
        """Show the titles as they are now."""
        self.headerDataChanged.emit(Qt.Orientation.Horizontal, AREAS, self.columnCount() - 1)

    def path(self, row: int) -> Path:
        """Return the path of the slide in a row."""
        return self.entries[row].row.path

    @property
    def columns(self) -> list[str]:
        """The names of the columns, which do not depend on the titles of classes."""
        return [*_COLUMNS, *(f"{name} {unit}" for name in self.classes for unit in ("mm2", "percent"))]

    # what Qt asks --------------------------------------------------------------------------------------------

    def rowCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.entries)

    def columnCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else AREAS + 2 * len(self.classes)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation is not Qt.Orientation.Horizontal or role != Qt.ItemDataRole.DisplayRole:
            return None
        if section < AREAS:
            return _HEADERS[section]
        return f"{self._shown.title(self.classes[(section - AREAS) // 2])}\n{'%' if (section - AREAS) % 2 else 'mm²'}"

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        flags = super().flags(index)
        return flags | Qt.ItemFlag.ItemIsEditable if index.column() == MPP else flags

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        entry, column = self.entries[index.row()], index.column()
        if role in (Qt.ItemDataRole.DisplayRole, _SORT, Qt.ItemDataRole.EditRole):
            value = self._value(entry, column)
            if role == _SORT:
                return _UNKNOWN if value is None and _is_figure(column) else value
            if value is None and column == MPP:
                return "unknown" if role == Qt.ItemDataRole.DisplayRole else ""
            return _text(value, column) if isinstance(value, float) else value
        if role == Qt.ItemDataRole.DecorationRole and column == SLIDE:
            return self._cohort.picture(entry.row.path)
        if role == Qt.ItemDataRole.DecorationRole and column == MAP:
            return None if entry.row.result is None else self._cohort.map(entry.row.result)
        if role == Qt.ItemDataRole.ToolTipRole:
            lines = [str(entry.row.path), *filter(None, [entry.state, entry.problem])]
            if entry.row.mpp is not None:
                lines.append(f"{entry.row.mpp:.4g} µm per pixel, {_MPP_FROM[entry.row.mpp_from]}.")
            if len(entry.maps) > 1:
                lines.append(f"Maps by {', '.join(entry.maps)}; this row is of the one by {entry.shown}.")
            if self._is_recounted(entry):
                lines.append("Areas in italics are those of before; they are being counted again.")
            return tip("\n".join(lines))
        if role == Qt.ItemDataRole.FontRole and column >= AREAS and self._is_recounted(entry):
            font = QFont()
            font.setItalic(True)
            return font
        if role == Qt.ItemDataRole.TextAlignmentRole and _is_figure(column):
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None

    def setData(self, index: Index, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        if index.column() != MPP or role != Qt.ItemDataRole.EditRole:
            return False
        row, mpp = self.entries[index.row()].row, read_number(str(value))
        if str(value).strip() in ("", f"{row.mpp:.4g}" if row.mpp is not None else ""):
            return False  # it was only looked at
        if mpp is None:
            self.refused.emit(f"“{value}” is not a number; type microns per pixel, such as 0.25.")
            return False
        if not is_usual(mpp):
            self.refused.emit(f"{mpp:g} µm per pixel is unusual; if it is so for {row.path.name}, give it in Slides.")
            return False
        self.refused.emit("")
        self.mpp_given.emit(row.path, mpp)
        return True

    def _value(self, entry: CohortEntry, column: int) -> str | float | None:
        row, result = entry.row, entry.row.result
        match column:
            case 0:
                return row.path.name
            case 1:
                return "" if entry.known or entry.row.result is not None else "…"
            case 2:
                return row.mpp
            case 3:
                return row.tissue_mm2
            case 4:
                state = "cannot be read" if entry.problem else entry.state
                return f"{state}, {len(entry.maps)} maps" if len(entry.maps) > 1 else state
            case 5:
                return "" if result is None else entry.shown
        area = self._area(entry, self.classes[(column - AREAS) // 2])
        if area is None:
            return None
        return area.percent_of_tissue if (column - AREAS) % 2 else area.area_mm2

    def _is_recounted(self, entry: CohortEntry) -> bool:
        """Return whether the areas of a slide are those of before, until they are counted again."""
        return entry.row.result is not None and not entry.known

    def _area(self, entry: CohortEntry, name: str) -> Area | None:
        areas: Sequence[Area] = () if entry.row.result is None else entry.row.result.areas
        return next((area for area in areas if area.name == name), None)


class CohortTable(QTableView):
    """The view of a cohort.

    Parameters
    ----------
    cohort
        The slides.
    classes
        The titles of the classes.
    opened
        Called with the path of a slide that was double-clicked.
    """

    def __init__(self, cohort: Cohort, classes: ShownClasses, opened: Callable[[Path], None]) -> None:
        super().__init__()
        self.cohort_model = CohortModel(cohort, classes)
        self._proxy = QSortFilterProxyModel(self)
        self._proxy.setSourceModel(self.cohort_model)
        self._proxy.setSortRole(_SORT)
        self._proxy.setSortCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self._proxy.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self._proxy.setFilterKeyColumn(-1)
        self.setModel(self._proxy)
        self.setSortingEnabled(True)
        self.setAccessibleName("Slides of the project")
        self.setToolTip(
            "Double-click a slide to bring it and its map into view, its microns per pixel to change them (F2)"
        )
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        triggers = QAbstractItemView.EditTrigger
        self.setEditTriggers(triggers.DoubleClicked | triggers.EditKeyPressed)
        self.setTabKeyNavigation(False)
        self.setIconSize(QSize(SIDE, SIDE))
        self.setMinimumHeight(_LEAST_HEIGHT)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # names of slides differ at their ends
        self.setItemDelegateForColumn(SLIDE, _Names(self))
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        vertical, header = self.verticalHeader(), self.horizontalHeader()
        if vertical is not None and header is not None:
            vertical.hide()
            vertical.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
            vertical.setDefaultSectionSize(SIDE + 4)
            header.setStretchLastSection(False)
            header.setDefaultSectionSize(_AREA_WIDTHS[0])
            for column, width in _WIDTHS.items():
                header.resizeSection(column, width)
            header.sortIndicatorChanged.connect(self._on_sorted)
        self._cohort = cohort
        self._arranging = False
        self._opened = opened
        self._stale = False
        self.doubleClicked.connect(self._on_double_click)
        self.cohort_model.modelReset.connect(self._fit_titles)
        self.cohort_model.modelReset.connect(self._arrange)
        listen(self, (classes.changed, self._retitle), (cohort.arranged, self._arrange))
        self._arrange()

    def _on_sorted(self, column: int, order: Qt.SortOrder) -> None:
        if not self._arranging:
            name = self.cohort_model.columns[column] if column >= 0 else ""
            self._cohort.sort(name, order == Qt.SortOrder.DescendingOrder)

    def _arrange(self) -> None:
        """Sort and filter as the cohort says; a column of a class may appear later, when its areas have been read."""
        (name, descending), columns = self._cohort.order, self.cohort_model.columns
        self._arranging = True
        self.sortByColumn(
            columns.index(name) if name in columns else -1,
            Qt.SortOrder.DescendingOrder if descending else Qt.SortOrder.AscendingOrder,
        )
        self._arranging = False
        self._proxy.setFilterFixedString(self._cohort.filter)

    def _retitle(self) -> None:
        self.cohort_model.retitle()
        self._fit_titles()

    def _fit_titles(self) -> None:
        """Make the columns of classes as wide as their titles, up to a limit."""
        header, (least, most) = self.horizontalHeader(), _AREA_WIDTHS
        assert header is not None  # because a table has one
        for column in range(AREAS, self.cohort_model.columnCount()):
            title = str(self.cohort_model.headerData(column, Qt.Orientation.Horizontal)).splitlines()[0]
            wanted = header.fontMetrics().horizontalAdvance(title) + _AROUND_TITLE
            header.resizeSection(column, min(most, max(least, wanted)))
        self._fit_names()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        super().resizeEvent(event)
        self._fit_names()

    def _fit_names(self) -> None:
        """Give the names of the slides what the other columns leave."""
        header, viewport = self.horizontalHeader(), self.viewport()
        if header is not None and viewport is not None:
            spare = viewport.width() - (header.length() - header.sectionSize(SLIDE))
            header.resizeSection(SLIDE, min(max(spare, _WIDTHS[SLIDE]), _MOST_OF_NAME))

    def _on_double_click(self, index: QModelIndex) -> None:
        if index.column() != MPP:  # which is edited
            self._opened(self.path(index))

    def refresh(self) -> None:
        """Show the slides as they are now, or once no cell is edited any more; which are selected and current stays."""
        if self.state() == QAbstractItemView.State.EditingState:  # Qt would replace what was typed
            self._stale = True
            return
        before, current = self.selected(), self._current()
        self.cohort_model.refresh()
        if (viewport := self.viewport()) is not None:
            viewport.update()  # pictures are read, and coloured, when they are drawn
        selection = self.selectionModel()
        if selection is None or (self.selected(), self._current()) == (before, current):
            return
        again, flags = QItemSelection(), QItemSelectionModel.SelectionFlag
        for row in range(self._proxy.rowCount()):
            index = self._proxy.index(row, SLIDE)
            if self.path(index) == current:
                selection.setCurrentIndex(index, flags.NoUpdate)
            if self.path(index) in before:
                again.select(index, index)
        selection.select(again, flags.ClearAndSelect | flags.Rows)

    def closeEditor(self, editor: QWidget | None, hint: QAbstractItemDelegate.EndEditHint) -> None:
        super().closeEditor(editor, hint)
        if self._stale:
            self._stale = False
            self.refresh()

    def keyboardSearch(self, search: str | None) -> None:
        """Find a slide by the first letters of its name, whichever column is current."""
        current, selection = self.currentIndex(), self.selectionModel()
        if current.isValid() and selection is not None:
            selection.setCurrentIndex(current.siblingAtColumn(SLIDE), QItemSelectionModel.SelectionFlag.NoUpdate)
        super().keyboardSearch(search)

    def path(self, index: QModelIndex) -> Path:
        """Return the path of the slide in a row of the view."""
        return self.cohort_model.path(self._proxy.mapToSource(index).row())

    def selected_entries(self) -> list[CohortEntry]:
        """Return what is known of the selected slides, from top to bottom."""
        entries = {entry.row.path: entry for entry in self.cohort_model.entries}
        return [entries[path] for path in self.selected()]

    def _current(self) -> Path | None:
        index = self.currentIndex()
        return self.path(index) if index.isValid() else None

    def selected(self) -> list[Path]:
        """Return the paths of the selected slides, from top to bottom."""
        selection = self.selectionModel()
        if selection is None:
            return []
        # not by selectedRows(), which asks for every cell of many selected slides
        parts = selection.selection()
        rows = {row for n in range(len(parts)) for row in range(parts[n].top(), parts[n].bottom() + 1)}
        return [self.path(self._proxy.index(row, SLIDE)) for row in sorted(rows)]


class _Names(QStyledItemDelegate):
    """Draws the names of slides in several lines, which may end after an underscore too."""

    def initStyleOption(self, option: QStyleOptionViewItem | None, index: QModelIndex) -> None:
        super().initStyleOption(option, index)
        if option is not None and option.text is not None:  # which PyQt6 calls possible
            option.text = option.text.replace("_", "_\u200b")
