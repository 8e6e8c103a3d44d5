"""The dialog that classifies tiles without training, by a sentence per class, and shows the metrics."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_pbip.gui.connections import listen
from napari_pbip.gui.jobs import RunningJob
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.widgets.buttons import push_button
from napari_pbip.gui.widgets.job_bar import JobBar, Notice

_OF_THE_BANK = "those of the image bank"
_TABLE = 20
"""Stretch factor of a table's height; that of the empty space below is 1."""
_PROMPTS = {"text": "by sentence", "image": "by prototype"}


class ZeroShotDialog(QDialog):
    """Dialog that classifies the tiles of a session by sentences and prototypes.

    Parameters
    ----------
    session
        The session whose tiles are classified.
    parent
        Qt parent.
    """

    def __init__(self, session: Session, parent: QWidget) -> None:
        super().__init__(parent)
        self._work, self._classes = session.zero_shot, session.classes
        self.setWindowTitle("Test without training")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.about = QLabel()
        self.about.setWordWrap(True)
        self.sentences = QTableWidget(0, 2)
        self.sentences.setHorizontalHeaderLabels(["Class", "Sentence (double-click to change)"])
        self.sentences.setAccessibleName("A sentence for each class")
        self.sentences.setToolTip(
            "The text that tiles are compared with; if it is deleted, the default sentence returns"
        )
        self.sentences.itemChanged.connect(self._on_sentence)
        self.split = QComboBox()
        self.split.setAccessibleName("Tiles to classify")
        self.split.setToolTip("Tiles that are in the image bank look better than others would")
        self.start_button = push_button(
            "Classify", "Classify each tile in the background, and compute the accuracy", self._start
        )
        self.bar = JobBar()
        self.notice = Notice()
        self.figures = QTableWidget(0, 0)
        self.figures.setAccessibleName("Accuracy and F1 of each class")
        self.figures.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        for table in (self.sentences, self.figures):
            header = table.verticalHeader()
            if header is not None:
                header.hide()
        self._lay_out()
        listen(
            self,
            (session.settings_changed, self._show),
            (session.bank.changed, self._show),
            (session.classes.changed, self._show),
            (session.bank.tiles_changed, self._show),
            (self._work.changed, self._show),
            (self._work.started, self._follow),
        )
        self._show()
        if self._work.job is not None:
            self._follow(self._work.job)
        self._work.find_splits()

    def _lay_out(self) -> None:
        row = QHBoxLayout()
        label = QLabel("Tiles")
        label.setBuddy(self.split)
        row.addWidget(label)
        row.addWidget(self.split, 1)
        row.addWidget(self.start_button)
        layout = QVBoxLayout(self)
        layout.addWidget(self.about)
        layout.addWidget(self.sentences, _TABLE)
        layout.addLayout(row)
        layout.addWidget(self.bar)
        layout.addWidget(self.notice)
        layout.addWidget(self.figures, _TABLE)
        layout.addStretch(1)  # keeps the texts at the top while there are no tables
        self.resize(760, 640)

    def _show(self) -> None:
        work = self._work
        spec = work.encoder
        reads = spec is not None and spec.may_have_text
        ways = ["whose sentence"] * reads + ["whose nearest prototype in the image bank"] * work.with_bank
        name = "" if spec is None else spec.name
        self.about.setText(
            f"Each tile gets the class {' or '.join(ways)} is most similar to it by the features of the encoder "
            f"{name}. Nothing is trained."
            if ways
            else f"The encoder {name} has no text tower, and there is no image bank made with it; build one first, or "
            "choose an encoder that has a text tower, such as clip, plip or conch."
        )
        self.start_button.setEnabled(bool(ways) and work.job is None and bool(work.classes))
        self._show_sentences(reads)
        self._show_splits()
        self._show_figures()

    def _show_sentences(self, reads: bool) -> None:
        self.sentences.setVisible(reads)
        with signals_blocked(self.sentences):
            self.sentences.setRowCount(len(self._work.classes))
            for row, name in enumerate(self._work.classes):
                for column, text in enumerate((self._classes.title(name), self._work.sentence(name))):
                    item = self.sentences.item(row, column)
                    if item is None:
                        item = QTableWidgetItem()
                        self.sentences.setItem(row, column, item)
                    item.setText(text)  # an item that is being edited must not be replaced
                    if column == 0:
                        item.setFlags(Qt.ItemFlag.ItemIsEnabled)
        _stretch(self.sentences, 1)
        self.sentences.resizeRowsToContents()

    def _on_sentence(self, item: QTableWidgetItem) -> None:
        self._work.say(self._work.classes[item.row()], item.text())

    def _show_splits(self) -> None:
        others = [name for name in self._work.splits if name not in ("train", "train_single")]
        if [self.split.itemText(i) for i in range(self.split.count())] != [_OF_THE_BANK, *others]:
            self.split.clear()
            self.split.addItems([_OF_THE_BANK, *others])

    def _show_figures(self) -> None:
        result = self._work.result
        self.figures.setVisible(result is not None)
        self.notice.clear()
        if result is None:
            return
        if not result["tiles"]:
            self.notice.warn("These tiles all show several classes, so none can be right or wrong; choose others.")
        prompts = result["prompts"]
        names = [n for n in result["classes"] if any(n in scores["recall"] for scores in prompts.values())]
        columns = [f"{what}, {_PROMPTS[prompt]}" for prompt in prompts for what in ("Accuracy", "F1")]
        self.figures.setColumnCount(1 + len(columns))
        self.figures.setHorizontalHeaderLabels(["Class", *columns])
        self.figures.setRowCount(len(names) + 1)
        for row, name in enumerate(names):
            of_class = [scores[what].get(name) for scores in prompts.values() for what in ("recall", "f1")]
            self._fill(row, self._classes.title(name), of_class)
        overall = [scores[what] for scores in prompts.values() for what in ("accuracy", "f1_mean")]
        self._fill(len(names), f"All {result['tiles']:,} tiles", overall)
        _stretch(self.figures, 0)

    def _fill(self, row: int, name: str, figures: list[float | None]) -> None:
        self.figures.setItem(row, 0, QTableWidgetItem(name))
        for column, figure in enumerate(figures, 1):
            item = QTableWidgetItem("–" if figure is None else f"{figure:.1f} %")
            item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            self.figures.setItem(row, column, item)

    def _start(self) -> None:
        self._work.start(self.split.currentText() if self.split.currentIndex() > 0 else None)

    def _follow(self, job: RunningJob) -> None:
        self.bar.follow(job)
        self.start_button.setEnabled(False)


def _stretch(table: QTableWidget, column: int) -> None:
    """Give a column the width that the others leave."""
    header = table.horizontalHeader()
    if header is not None:
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(column, QHeaderView.ResizeMode.Stretch)
