"""The tissue classes as a table: number key, colour, name, tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from napari_pbip.gui.widgets.swatch import ask_colour, square_icon
from napari_pbip.taxonomy import Taxonomy

KEY, COLOUR, NAME, TILES = range(4)
_HEADERS = ("Key", "Colour", "Class", "Tiles")
_ROWS = 9


class ClassTable(QTableWidget):
    """A table of classes, in which names can be changed.

    Parameters
    ----------
    own
        Whether the classes are the user's own: they have keys, the row of the current cell is the chosen class, and
        colours can be changed, too.
    """

    renamed = Signal(int, str)
    """Emitted with the index of a class and its new name."""
    recoloured = Signal(str, str)
    """Emitted with the name of a class and its new colour ``#RRGGBB``."""
    chosen = Signal(int)
    """Emitted with the index of the class that the user has chosen."""

    def __init__(self, *, own: bool) -> None:
        super().__init__(0, len(_HEADERS))
        self._own = own
        self._taxonomy: Taxonomy | None = None
        self._shown: list[str] = []
        self.setHorizontalHeaderLabels(_HEADERS)
        self.setAccessibleName("Classes")
        vertical, header = self.verticalHeader(), self.horizontalHeader()
        if vertical is not None and header is not None:
            vertical.hide()
            header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
            header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        modes = QAbstractItemView.SelectionMode
        self.setSelectionMode(modes.SingleSelection if own else modes.NoSelection)
        self.setTabKeyNavigation(False)
        self.setColumnHidden(KEY, not own)
        triggers = QAbstractItemView.EditTrigger.DoubleClicked | QAbstractItemView.EditTrigger.EditKeyPressed
        self.setEditTriggers(triggers)
        self.itemChanged.connect(self._on_item)
        self.cellActivated.connect(self._on_activated)
        self.cellDoubleClicked.connect(self._on_activated)
        self.currentCellChanged.connect(self._on_current)
        self.setToolTip(
            "Double-click a name or a colour to change it; clicks on the slide give the selected class"
            if own
            else "Double-click a name to show the class under another one; the folder stays as it is"
        )

    def show_classes(self, taxonomy: Taxonomy, counts: Sequence[int], title: Callable[[str], str]) -> None:
        """Show these classes by their titles, with their numbers of tiles, and keep the chosen row."""
        shown = [title(name) for name in taxonomy.names]
        self.blockSignals(True)
        try:
            if (taxonomy, shown) != (self._taxonomy, self._shown):
                self._taxonomy, self._shown = taxonomy, shown
                self._fill(taxonomy)
            for row, count in enumerate(counts):
                self._cell(row, TILES).setText(f"{count:,}")
        finally:
            self.blockSignals(False)

    def choose(self, index: int) -> None:
        """Choose a class."""
        self.setCurrentCell(index, NAME)

    def edit_name(self) -> None:
        """Start editing the name of the chosen class."""
        item = self.item(self.currentRow(), NAME)
        if item is not None:
            self.setFocus()
            self.editItem(item)

    def pick_colour(self, index: int) -> None:
        """Open the dialog for the colour of a class."""
        if self._taxonomy is None:
            return
        one = self._taxonomy.classes[index]
        ask_colour(self, self._shown[index], one.colour, partial(self.recoloured.emit, one.name))

    def _fill(self, taxonomy: Taxonomy) -> None:
        row = max(0, min(self.currentRow(), len(taxonomy) - 1))
        self.setRowCount(len(taxonomy))
        for n, tissue in enumerate(taxonomy):
            self._cell(n, KEY).setText(str(n + 1) if n < 9 else "")
            self._cell(n, COLOUR).setIcon(square_icon(tissue.colour))
            self._cell(n, COLOUR).setData(Qt.ItemDataRole.AccessibleTextRole, tissue.colour)
            self._cell(n, NAME).setText(self._shown[n])
        self.setCurrentCell(row, NAME)
        header = self.horizontalHeader()
        frame = 2 * self.frameWidth() + (0 if header is None else header.sizeHint().height()) + 4
        self.setFixedHeight(frame + self.rowHeight(0) * min(len(taxonomy), _ROWS))

    def _cell(self, row: int, column: int) -> QTableWidgetItem:
        item = self.item(row, column)
        if item is None:
            item = QTableWidgetItem()
            flags = Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled
            item.setFlags(flags | Qt.ItemFlag.ItemIsEditable if column == NAME else flags)
            if column in (KEY, TILES):
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            self.setItem(row, column, item)
        return item

    def _on_item(self, item: QTableWidgetItem) -> None:
        if item.column() != NAME:
            return
        typed, name = item.text(), self._shown[item.row()]
        self.blockSignals(True)
        item.setText(name)  # the new name is shown when it was accepted
        self.blockSignals(False)
        if typed != name:
            self.renamed.emit(item.row(), typed)

    def _on_activated(self, row: int, column: int) -> None:
        if column == COLOUR and self._own:
            self.pick_colour(row)

    def _on_current(self, row: int, *_: int) -> None:
        if row >= 0:
            self.chosen.emit(row)
