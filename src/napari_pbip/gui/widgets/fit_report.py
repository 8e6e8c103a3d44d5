"""The report on a fitted model: how well it distinguishes the classes, and which labels may be wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QLabel,
    QListView,
    QListWidget,
    QListWidgetItem,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_pbip.gui.pixmaps import fitted
from napari_pbip.gui.widgets.words import PlainLabel, tip

_ICON, _LARGE = 56, 224
_MOST_CLASSES = 12
"""Largest number of classes for which the table of confusions is shown, because a larger one does not fit a dock."""
_MOST_SHARES = 8
"""Largest number of classes, and of slides, whose share of correct tiles is shown: those with the lowest."""


class FitReport(QWidget):
    """Shows the result of cross-validation (:attr:`napari_pbip.engine.run_facts.RunFacts.fit`)."""

    picked = Signal(str)
    """Emitted with the path of a tile when the user has selected it."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracy = QLabel()
        self.accuracy.setWordWrap(True)
        self.shares = PlainLabel()
        self.shares.setWordWrap(True)
        self.shares.setToolTip("Share of the tiles of each class, and of each slide, that are predicted correctly")
        self.confusion = QTableWidget()
        self.confusion.setToolTip(
            "Number of tiles by their label (rows) and by the class that a fit without them predicts (columns)"
        )
        self.confusion.setAccessibleName("Confusion of the classes")
        self.confusion.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.confusion.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.confusion.setTabKeyNavigation(False)
        self.again = QLabel("Check the labels of these tiles; the most likely mistakes come first:")
        self.again.setWordWrap(True)
        self.tiles = QListWidget()
        self.tiles.setViewMode(QListView.ViewMode.IconMode)
        self.tiles.setMovement(QListView.Movement.Static)
        self.tiles.setResizeMode(QListView.ResizeMode.Adjust)
        self.tiles.setIconSize(QSize(_ICON, _ICON))
        self.tiles.setUniformItemSizes(True)
        self.tiles.setFixedHeight(round(2.5 * _ICON))
        self.tiles.setAccessibleName("Tiles to look at again")
        self.again.setBuddy(self.tiles)
        self.picture = QLabel()
        self.sentence = PlainLabel()
        self.sentence.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for part in (self.accuracy, self.shares, self.confusion, self.again, self.tiles, self.sentence, self.picture):
            layout.addWidget(part)
        self.tiles.currentItemChanged.connect(self._show_tile)

    def show_fit(self, fit: Mapping[str, Any], names: Sequence[str], title: Callable[[str], str]) -> None:
        """Show a result.

        Parameters
        ----------
        fit
            The result, as in :attr:`napari_pbip.engine.run_facts.RunFacts.fit`.
        names
            Names of its classes.
        title
            Returns what a class is called in the window.
        """
        found = fit.get("balanced_accuracy")
        if found is None:
            self.accuracy.setText(
                "How well the classes are distinguished is not known: every class needs two labelled tiles for that."
            )
        else:
            self.accuracy.setText(
                f"On average over the classes, <b>{found:.0f} %</b> of the tiles are predicted correctly by a fit that "
                "did not contain them (balanced accuracy)."
            )
        titles = [title(name) for name in names]
        self.shares.setText(shares(fit, titles))
        self.shares.setVisible(bool(self.shares.text()))
        self._show_confusion(fit.get("confusion"), titles)
        wrong = [tile for tile in fit.get("worst", ()) if tile["predicted"] != tile["label"]]
        self.tiles.clear()
        for tile in wrong:
            item, sentence = QListWidgetItem(), _sentence(tile, title)
            item.setIcon(QIcon(QPixmap(tile["path"])))
            item.setToolTip(tip(sentence))
            item.setData(Qt.ItemDataRole.AccessibleTextRole, sentence)
            item.setData(Qt.ItemDataRole.UserRole, tile["path"])
            self.tiles.addItem(item)
        for part in (self.again, self.tiles):
            part.setVisible(bool(wrong))
        self._show_tile(None)

    def _show_confusion(self, confusion: Sequence[Sequence[int]] | None, names: Sequence[str]) -> None:
        table = self.confusion
        table.setVisible(confusion is not None and len(names) <= _MOST_CLASSES)
        if confusion is None:
            return
        table.setRowCount(len(names))
        table.setColumnCount(len(names))
        table.setHorizontalHeaderLabels(list(names))
        table.setVerticalHeaderLabels(list(names))
        for row, counts in enumerate(confusion):
            for column, count in enumerate(counts):
                item = QTableWidgetItem(f"{count:,}" if count else "")
                item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                table.setItem(row, column, item)
        header, vertical = table.horizontalHeader(), table.verticalHeader()
        if header is not None and vertical is not None:
            header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
            table.resizeRowsToContents()
            table.setFixedHeight(header.sizeHint().height() + vertical.length() + 2 * table.frameWidth())

    def _show_tile(self, item: QListWidgetItem | None, before: QListWidgetItem | None = None) -> None:
        """Show the selected tile, enlarged, and its label."""
        for part in (self.sentence, self.picture):
            part.setVisible(item is not None)
        if item is not None:
            path, sentence = (
                item.data(role) for role in (Qt.ItemDataRole.UserRole, Qt.ItemDataRole.AccessibleTextRole)
            )
            self.picked.emit(path)
            picture = QPixmap(path)
            self.sentence.setText(sentence + (" The picture no longer exists." if picture.isNull() else ""))
            self.picture.setPixmap(fitted(picture, _LARGE))


def shares(fit: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the share of correct tiles of each class and, if there are several, of each slide, lowest first."""
    confusion, slides = fit.get("confusion") or (), fit.get("slides") or {}
    of_classes = {names[n]: (row[n], sum(row)) for n, row in enumerate(confusion)}
    parts = [("By class", of_classes)] + ([("By slide", slides)] if len(slides) > 1 else [])
    lines = []
    for title, counts in parts:
        asked = sorted((right / tiles, name, tiles) for name, (right, tiles) in counts.items() if tiles)
        some = [f"{name} {share:.0%} of {tiles:,}" for share, name, tiles in asked[:_MOST_SHARES]]
        if asked:
            lines.append(f"{title}: {', '.join(some)}{' …' if len(asked) > len(some) else ''}")
    return "\n".join(lines)


def _sentence(tile: Mapping[str, Any], title: Callable[[str], str]) -> str:
    name = tile["path"].replace("\\", "/").rpartition("/")[2]
    return f"{name} is labelled {title(tile['label'])} and looks like {title(tile['predicted'])}."
