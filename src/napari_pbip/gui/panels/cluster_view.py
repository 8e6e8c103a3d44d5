"""The clusters of a bank as rows of thumbnails, nearest to the centre first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from napari.utils.theme import get_theme
from qtpy.QtCore import (
    QAbstractTableModel,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QPersistentModelIndex,
    QPoint,
    QRect,
    QSize,
    Qt,
    Signal,
)
from qtpy.QtGui import QColor, QPainter, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QLabel,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QWidget,
)

from napari_pbip.bank import BankTile, ClusterFacts, Curation, ImageBank
from napari_pbip.gui.connections import listen
from napari_pbip.gui.state.shown_classes import ShownClasses
from napari_pbip.gui.state.thumbnails import SIDE, Thumbnails, read_tile
from napari_pbip.gui.widgets.number_box import NumberBox
from napari_pbip.gui.widgets.swatch import swatch
from napari_pbip.gui.widgets.tab_order import set_tab_order
from napari_pbip.gui.widgets.words import tip

_MARGIN = 4
_CELL = SIDE + 2 * _MARGIN
_CLASS_HEIGHT = 42
_HEADER_WIDTH = 118
_MOST_CLUSTERS = 50
_FEWEST_COLUMNS = 3
"""Smallest number of columns, so that the line above a class, which spans all columns, fits."""

if TYPE_CHECKING:
    from napari.viewer import ViewerModel

PICTURE = Qt.ItemDataRole.UserRole
"""Role of the picture of a tile; with Qt's decoration role it would be tinted when it is selected."""

Index = QModelIndex | QPersistentModelIndex
Part = TypeVar("Part")


@dataclass(frozen=True)
class _Row:
    """A row: a class, or one of its clusters with its tiles."""

    class_index: int
    count: int
    """Number of its tiles."""
    facts: ClusterFacts | None = None
    number: int = 0
    """Number of the cluster within its class, from 1."""
    tiles: tuple[BankTile, ...] = ()


class Clustered(Protocol):
    """Anything that is shown as clusters: the bank of the project, or the prototypes of a model."""

    changed: Any
    """Signal that the bank has changed."""
    selection_changed: Any
    """Signal that the selection has changed."""
    thumbnails: Thumbnails
    one: str
    """Word for one of the clusters."""
    selected: frozenset[str]
    """Hashes of the selected tiles."""

    @property
    def bank(self) -> ImageBank | None: ...

    @property
    def clusters(self) -> Sequence[ClusterFacts]: ...

    @property
    def folder(self) -> Path: ...

    @property
    def curation(self) -> Curation: ...

    def select(self, hashes: Collection[str]) -> None: ...


class ClusterModel(QAbstractTableModel):
    """A table model whose rows are classes with their clusters below them, and whose columns are tiles."""

    def __init__(self, work: Clustered, classes: ShownClasses, parent: QWidget) -> None:
        super().__init__(parent)
        self._work = work
        self._classes = classes
        self._rows: list[_Row] = []
        self._places: dict[str, list[tuple[int, int]]] = {}
        self._columns = 0
        self.reset()

    def reset(self) -> None:
        """Show the present bank."""
        self.beginResetModel()
        self._rows = [] if self._work.bank is None else _rows(self._work.bank, self._work.clusters)
        self._columns = max([_FEWEST_COLUMNS, *(len(row.tiles) for row in self._rows)]) if self._rows else 0
        self._places = {}
        for number, row in enumerate(self._rows):
            for column, tile in enumerate(row.tiles):
                self._places.setdefault(tile.hash, []).append((number, column))
        self.endResetModel()

    @property
    def rows(self) -> Sequence[_Row]:
        return self._rows

    def tile(self, index: Index) -> BankTile | None:
        """Return the tile at an index, or None."""
        tiles = self._rows[index.row()].tiles if index.isValid() else ()
        return tiles[index.column()] if index.column() < len(tiles) else None

    def where(self, tile_hash: str) -> list[tuple[int, int]]:
        """Return the rows and columns of a tile; several if several tiles have the same picture."""
        return self._places.get(tile_hash, [])

    def rowCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._rows)

    def columnCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else self._columns

    def flags(self, index: Index) -> Qt.ItemFlag:
        if self.tile(index) is None:
            return Qt.ItemFlag.NoItemFlags
        return Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        tile = self.tile(index)
        bank = self._work.bank
        if tile is None or bank is None:
            return None
        if role == PICTURE:
            return self._work.thumbnails.get(tile.hash, partial(read_tile, self._work.folder, tile))
        if role in (Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.AccessibleTextRole):
            title = self._classes.title(bank.taxonomy.names[tile.class_index])
            lines = [tile.path.replace("\\", "/").rsplit("/", 1)[-1], title]
            lines.append(f"similarity to the {self._work.one} {tile.similarity:.2f}")
            if tile.origin is not None:
                lines.append(f"from {tile.origin.slide}, {tile.origin.x:,}, {tile.origin.y:,}")
            if tile.hash in self._work.curation.tiles:
                lines.append("moved here by hand")
            return "\n".join(lines)
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        bank = self._work.bank
        if orientation != Qt.Orientation.Vertical or bank is None or section >= len(self._rows):
            return None
        row = self._rows[section]
        tissue = self._classes.coloured(bank.taxonomy).classes[row.class_index]
        title = self._classes.title(tissue.name)
        if row.facts is None:
            if role == Qt.ItemDataRole.DisplayRole:
                return f"{title}\n{_tiles(row.count)}"
            return swatch(tissue.colour) if role == Qt.ItemDataRole.DecorationRole else None
        facts = row.facts
        if role == Qt.ItemDataRole.DisplayRole:
            symbol = "⚠ " * bool(facts.warning)
            return f"{symbol}{self._work.one} {row.number}\n{_tiles(row.count)}\npurity {facts.purity:.0%}"
        if role == Qt.ItemDataRole.ToolTipRole:
            name = f"{title}, {self._work.one} {row.number}"
            what = f"{name}: {facts.tiles:,} tiles, mean similarity {facts.similarity:.2f}."
            pure = f"{facts.purity:.0%} of them are nearer to a prototype of {title} than to any other."
            remark = f"\n⚠ {facts.warning[0].upper()}{facts.warning[1:]}." if facts.warning else ""
            return f"{what}\n{pure}{remark}"
        return None


class ClusterView(QTableView):
    """A table of the clusters in which tiles are selected by mouse or keys; the selection is shared with other views.

    Parameters
    ----------
    viewer
        The viewer, whose theme is used.
    work
        The clusters.
    classes
        The titles and colours of the classes.
    editable
        Whether the user may give classes another number of clusters.
    """

    k_changed = Signal(str, int)
    """Emitted with the name of a class and its new number of clusters (0 chooses it automatically)."""
    k_refused = Signal(str)
    """Emitted with the reason why an entered number of clusters is refused, or an empty text once one is accepted."""

    def __init__(self, viewer: ViewerModel, work: Clustered, classes: ShownClasses, *, editable: bool = True) -> None:
        super().__init__()
        self._viewer = viewer
        self._classes = classes
        self._editable = editable
        self._work = work
        self._following = False
        self._warned = -1
        self.clusters = ClusterModel(work, classes, self)
        self.setModel(self.clusters)
        self.setItemDelegate(_Picture(self))
        self.setAccessibleName("Clusters of the image bank")
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setShowGrid(False)
        self.setTabKeyNavigation(False)  # Tab moves the focus to the buttons
        self.setCornerButtonEnabled(False)
        self.setIconSize(QSize(SIDE, SIDE))
        columns = _there(self.horizontalHeader())
        columns.setDefaultSectionSize(_CELL)
        columns.hide()
        header = _there(self.verticalHeader())
        header.setFixedWidth(_HEADER_WIDTH)
        header.setSectionsClickable(True)
        header.setHighlightSections(False)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        header.sectionClicked.connect(self._pick_row)
        _there(self.selectionModel()).selectionChanged.connect(self._on_pick)
        listen(
            self,
            (work.changed, self.show_bank),
            (classes.changed, self.show_bank),
            (work.selection_changed, self._show_picked),
            (work.thumbnails.arrived, self._repaint),
        )
        self.show_bank()

    def show_bank(self) -> None:
        """Show the present bank."""
        scrolled = _there(self.verticalScrollBar()).value()
        self.clusters.reset()
        self.clearSpans()
        columns = max(1, self.clusters.columnCount())
        bank = self._work.bank
        for number, row in enumerate(self.clusters.rows):
            self.setRowHeight(number, _CLASS_HEIGHT if row.facts is None else _CELL)
            if row.facts is None and bank is not None:
                if columns > 1:
                    self.setSpan(number, 0, 1, columns)
                self.setIndexWidget(self.clusters.index(number, 0), self._class_widget(bank, row.class_index))
        set_tab_order(self, *self.findChildren(NumberBox))
        _there(self.verticalScrollBar()).setValue(scrolled)
        self._show_picked()

    @property
    def colours(self) -> tuple[QColor, QColor]:
        """Return the colours of text and background in the theme of the viewer."""
        theme = get_theme(self._viewer.theme)
        return QColor(theme.text.as_hex()), QColor(theme.background.as_hex())

    def _class_widget(self, bank: ImageBank, n: int) -> QWidget:
        box = QWidget()
        layout = QHBoxLayout(box)
        layout.setContentsMargins(6, 2, 6, 2)
        if not self._editable:
            layout.addWidget(QLabel(f"{bank.k[n]} prototypes" if bank.k[n] > 1 else "one prototype"))
            return box
        name = bank.taxonomy.names[n]
        wanted = bank.settings.k[name] if isinstance(bank.settings.k, dict) else bank.settings.k
        tiles = sum(t.class_index == n for t in bank.tiles)
        number = NumberBox(0, min(_MOST_CLUSTERS, tiles), empty=f"automatic ({bank.k[n]})")
        number.setObjectName(name)
        number.setValue(0 if wanted == "auto" else wanted)
        number.setToolTip(tip(f"Number of clusters of {self._classes.title(name)}; empty: found by the silhouette"))
        number.setAccessibleName(f"Clusters of {self._classes.title(name)}")
        number.valueChanged.connect(lambda k: self.k_changed.emit(name, int(k)))
        number.problem.connect(self.k_refused)
        layout.addWidget(number)
        layout.addWidget(QLabel("clusters"))
        layout.addStretch(1)
        return box

    def next_warned(self) -> str:
        """Bring the next cluster with a warning into view; return what there is to say about it."""
        rows = [number for number, row in enumerate(self.clusters.rows) if row.facts is not None and row.facts.warning]
        self._warned = next((number for number in rows if number > self._warned), rows[0])
        self.scrollTo(self.clusters.index(self._warned, 0), QAbstractItemView.ScrollHint.PositionAtCenter)
        said: str = self.clusters.headerData(self._warned, Qt.Orientation.Vertical, Qt.ItemDataRole.ToolTipRole)
        return said

    # selection -----------------------------------------------------------------------------------------------

    def _on_pick(self) -> None:
        if not self._following:
            tiles = (self.clusters.tile(index) for index in self.selectedIndexes())
            self._work.select({tile.hash for tile in tiles if tile is not None})

    def _show_picked(self) -> None:
        wanted: dict[int, list[int]] = {}
        for tile_hash in self._work.selected:
            for row, column in self.clusters.where(tile_hash):
                wanted.setdefault(row, []).append(column)
        shown = {(index.row(), index.column()) for index in self.selectedIndexes()}
        if shown == {(row, column) for row, columns in wanted.items() for column in columns}:
            return
        selection = QItemSelection()
        for row, columns in wanted.items():
            for first, end in _runs(sorted(columns)):
                selection.select(self.clusters.index(row, first), self.clusters.index(row, end))
        self._following = True
        try:
            _there(self.selectionModel()).select(selection, QItemSelectionModel.SelectionFlag.ClearAndSelect)
        finally:
            self._following = False
        if wanted and not self.hasFocus():
            row = min(wanted)
            self.scrollTo(self.clusters.index(row, min(wanted[row])))

    def _pick_row(self, section: int) -> None:
        """Select the tiles of a row whose header was clicked; for a class, all its tiles."""
        row = self.clusters.rows[section]
        rows = [r for r in self.clusters.rows if r.class_index == row.class_index] if row.facts is None else [row]
        self._work.select({tile.hash for r in rows for tile in r.tiles})

    def _repaint(self) -> None:
        self.pane.update()

    @property
    def pane(self) -> QWidget:
        """Return the viewport, in whose coordinates mouse events are."""
        return _there(self.viewport())


class _Picture(QStyledItemDelegate):
    """Paints a thumbnail, with a frame if it is selected."""

    def __init__(self, view: ClusterView) -> None:
        super().__init__(view)
        self._view = view

    def paint(self, painter: QPainter | None, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        model = index.model()
        if painter is None or not isinstance(model, ClusterModel) or model.tile(index) is None:
            return
        super().paint(painter, option, index)
        picture = model.data(index, PICTURE)
        place = option.rect.adjusted(_MARGIN, _MARGIN, -_MARGIN, -_MARGIN)
        if isinstance(picture, QPixmap) and not picture.isNull():
            where = QRect(QPoint(), picture.deviceIndependentSize().toSize())
            where.moveCenter(place.center())
            if option.state & QStyle.StateFlag.State_Selected:
                ink, paper = self._view.colours
                painter.fillRect(option.rect, ink)
                painter.fillRect(where.adjusted(-1, -1, 1, 1), paper)  # so that a frame shows around white tiles
            painter.drawPixmap(where, picture)
        else:
            painter.drawText(place, Qt.AlignmentFlag.AlignCenter, "…" if picture is None else "?")


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """Return the first and last number of each run of consecutive numbers."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _rows(bank: ImageBank, facts: Sequence[ClusterFacts]) -> list[_Row]:
    members: dict[int, list[BankTile]] = {}
    for tile in bank.tiles:
        members.setdefault(tile.subclass, []).append(tile)
    rows = []
    for n in range(len(bank.taxonomy)):
        rows.append(_Row(n, sum(tile.class_index == n for tile in bank.tiles)))
        own = [c for c in facts if c.class_name == bank.taxonomy.names[n]]
        for number, cluster in enumerate(own, 1):
            nearest = sorted(members[cluster.subclass], key=lambda t: -t.similarity)
            rows.append(_Row(n, cluster.tiles, cluster, number, tuple(nearest)))
    return rows


def _tiles(count: int) -> str:
    return f"{count:,} tile{'s' * (count != 1)}"


def _there(part: Part | None) -> Part:
    """Return a part that every Qt view has, although its type allows None."""
    assert part is not None
    return part
