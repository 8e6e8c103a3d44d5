"""The panel that explains the map at a place by the most similar prototype and the tiles that it was computed from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QProgressBar, QVBoxLayout, QWidget

from napari_pbip.gui.pixmaps import fitted
from napari_pbip.gui.widgets.job_bar import Notice
from napari_pbip.gui.widgets.words import PlainLabel, rich, tip

if TYPE_CHECKING:  # it brings torch, which takes seconds to load
    from napari_pbip.engine.inference.explain import Explanation, Match

_TILES = 8
_COLUMNS = 4
_SIDE = 72
_ASK = "Click a place on the tissue map."


class WhyPanel(QWidget):
    """Panel that shows an :class:`~napari_pbip.engine.inference.explain.Explanation`."""

    def __init__(self) -> None:
        super().__init__()
        self.text = QLabel(_ASK)
        self.text.setWordWrap(True)
        self.notice = Notice()
        self.bars = QWidget()
        self.pictures: list[QLabel] = []
        self._bars = QGridLayout(self.bars)
        self._bars.setContentsMargins(0, 0, 0, 0)
        self._bars.setColumnStretch(1, 1)
        tiles = QWidget()
        self._tiles = QGridLayout(tiles)
        self._tiles.setContentsMargins(0, 0, 0, 0)
        self._tiles.setColumnStretch(_COLUMNS, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for part in (self.text, self.notice, tiles, self.bars):
            layout.addWidget(part)

    def ask(self) -> None:
        """Ask for a place, and clear the last explanation."""
        self.text.setText(_ASK)
        self.notice.clear()
        _empty(self._bars)
        _empty(self._tiles)
        self.pictures = []

    def wait(self, sentence: str = "Looking…") -> None:
        """Show that an explanation is being computed, or a sentence on what happens before."""
        self.notice.clear()
        self.text.setText(rich(sentence))

    def tell(self, sentence: str) -> None:
        """Show a sentence that needs no explanation by tiles."""
        self.ask()
        self.text.setText(rich(sentence))

    def fail(self, sentence: object) -> None:
        """Show why there is no explanation."""
        self.ask()
        self.text.setText("")
        self.notice.error(sentence)

    def show_explanation(self, explanation: Explanation, drawn: str, title: Callable[[str], str]) -> None:
        """Show an explanation.

        Parameters
        ----------
        explanation
            Explanation of the place.
        drawn
            Name of the class, or of the other value, that the map shows there.
        title
            Returns what a class is called in the window.
        """
        self.ask()
        if explanation.note:
            self.notice.info(explanation.note)
        best = _best_of_classes(explanation.matches)
        if not best:
            self.text.setText(f"The map shows {rich(title(drawn))}.")
            return
        winner = next((match for match in best if match.class_name == drawn), best[0])
        sentence = f"The map shows <b>{rich(title(drawn))}</b>. "
        if not winner.cluster:
            like = f"labelled tiles of {rich(title(winner.class_name))}"
        else:
            like = f"cluster {winner.cluster} of {rich(title(winner.class_name))}"
        of = "This place" if winner is best[0] else "Of that class, this place"
        sentence += f"{of} looks most like {like} (similarity <b>{_figure(winner.similarity)}</b>; 1 is the same)."
        if winner.tiles:
            sentence += " Tiles of this cluster:" if winner.cluster else " The nearest ones:"
        self.text.setText(sentence)
        self._show_tiles(winner.tiles)
        for line, match in enumerate(best):
            name, what = title(match.class_name), "prototype" if match.cluster else "tiles"
            bar = QProgressBar()
            bar.setRange(0, 100)
            bar.setValue(round(100 * max(0.0, match.similarity)))
            bar.setMinimumWidth(1)
            bar.setFormat(_figure(match.similarity))
            bar.setToolTip(tip(f"Similarity to the nearest {what} of {name} (1 is the same, 0 is unrelated)"))
            self._bars.addWidget(PlainLabel(name), line, 0)
            self._bars.addWidget(bar, line, 1)

    def _show_tiles(self, paths: Sequence[Path]) -> None:
        for path in paths:
            picture = QPixmap(str(path))
            if picture.isNull():
                continue
            label = QLabel()
            label.setPixmap(fitted(picture, _SIDE))
            label.setToolTip("A labelled tile; the nearest comes first")
            self._tiles.addWidget(label, len(self.pictures) // _COLUMNS, len(self.pictures) % _COLUMNS)
            self.pictures.append(label)
            if len(self.pictures) == _TILES:
                return


def _best_of_classes(matches: Sequence[Match]) -> list[Match]:
    """Return the most similar prototype of each class, the most similar class first."""
    best: dict[str, Match] = {}
    for match in matches:
        best.setdefault(match.class_name, match)
    return list(best.values())


def _figure(similarity: float) -> str:
    return f"{round(similarity, 2) + 0.0:.2f}"  # never -0.00


def _empty(grid: QGridLayout) -> None:
    while (item := grid.takeAt(0)) is not None:
        widget = item.widget()
        if widget is not None:
            widget.hide()
            widget.deleteLater()
