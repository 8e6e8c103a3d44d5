"""The part of *Tune* in which a map is corrected by hand."""

from __future__ import annotations

from qtpy.QtGui import QColor
from qtpy.QtWidgets import QComboBox, QFormLayout, QGroupBox, QHBoxLayout, QLineEdit, QVBoxLayout
from superqt.utils import signals_blocked

from napari_pbip.gui.connections import listen
from napari_pbip.gui.layers.corrections import AS_MODEL_NAME
from napari_pbip.gui.layers.results import ResultLayer
from napari_pbip.gui.panels.teach import TeachPanel
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.widgets.buttons import push_button, toggle_button
from napari_pbip.gui.widgets.job_bar import Notice
from napari_pbip.gui.widgets.question import ask
from napari_pbip.gui.widgets.swatch import square_icon
from napari_pbip.gui.widgets.words import PlainLabel
from napari_pbip.provenance import operator
from napari_pbip.results.corrections import UNTOUCHED, Sitting
from napari_pbip.taxonomy import UNASSIGNED, UNASSIGNED_NAME, UNASSIGNED_RGB

_WHY = "napari cannot paint on the map itself, because it is computed from scores. Correct paints over it."
_OPENING = "Opening the corrections…"
_HOW = "Paint with napari's brush, polygon or bucket at the upper left; the bucket fills a patch of the map."


class CorrectPanel(QGroupBox):
    """Widget that begins and ends corrections of a result, chooses what is painted, and takes corrections back."""

    def __init__(self, session: Session) -> None:
        super().__init__("Correct by hand")
        self._session, self._correcting = session, session.correcting
        self._result: ResultLayer | None = None
        self.about = PlainLabel()
        self.about.setWordWrap(True)
        self.correct_button = toggle_button(
            "Correct",
            "Paint classes over the map; what you paint is saved at once, beside the model's map",
            self._toggle,
        )
        self.who = QLineEdit(operator() or "")
        self.who.setPlaceholderText("optional")
        self.who.setToolTip("It is saved with the corrections")
        self.who.setAccessibleName("Your name")
        self.paints = QComboBox()
        self.paints.setToolTip("What the brush paints")
        self.paints.activated.connect(self._choose)
        self.back_button = push_button(
            "Take back…", "Take all corrections of the last sitting back, today's or an earlier one", self._ask
        )
        self.teach = TeachPanel(session)
        self.notice = Notice()
        buttons = QHBoxLayout()
        buttons.addWidget(self.correct_button)
        buttons.addWidget(self.back_button)
        form = QFormLayout()
        form.addRow("Your name", self.who)
        form.addRow("Paint", self.paints)
        layout = QVBoxLayout(self)
        layout.addWidget(self.about)
        layout.addLayout(form)
        layout.addLayout(buttons)
        layout.addWidget(self.notice)
        layout.addWidget(self.teach)
        listen(self, (self._correcting.changed, self._show), (session.classes.changed, self._show_classes))

    def show_result(self, result: ResultLayer) -> None:
        """Correct this result from now on."""
        self._result = result
        self.teach.show_result(result)
        self._show_classes()

    def _show_classes(self) -> None:
        """Offer the classes by their titles, in their colours."""
        if self._result is None:
            return
        with signals_blocked(self.paints):
            self.paints.clear()
            for value, one in enumerate(self._result.taxonomy, 1):
                self.paints.addItem(square_icon(one.colour), self._session.classes.title(one.name), value)
            self.paints.addItem(square_icon(QColor(*UNASSIGNED_RGB)), UNASSIGNED_NAME, UNASSIGNED)
            self.paints.addItem(AS_MODEL_NAME, UNTOUCHED)
        self._show()

    @property
    def _on(self) -> bool:
        return self._result is not None and self._correcting.result is self._result

    @property
    def _opening(self) -> bool:
        return self._result is not None and self._correcting.opening is self._result

    def _toggle(self, on: bool) -> None:
        if not on:
            self._correcting.end()
        elif self._result is not None:
            self._correcting.begin(self._result, self.who.text().strip())

    def _choose(self) -> None:
        if self._on:
            self._correcting.layer.selected_label = self.paints.currentData()

    def _ask(self) -> None:
        result = self._result
        if result is None or not (sittings := result.store.corrections.sittings):
            return
        strokes = "\n".join(
            f"{when.astimezone():%Y-%m-%d %H:%M}: {cells:,} cells" for when, cells in sittings[-1].changes
        )
        ask(
            self,
            "Take corrections back",
            f"Take back the corrections made {_described(sittings[-1])}? Undo brings them back while the project is "
            "open.",
            {"Take back": lambda: self._correcting.take_back(result)},
            strokes,
        )

    # what there is -------------------------------------------------------------------------------------------

    def _show(self) -> None:
        result = self._result
        if result is None:
            return
        sittings = result.store.corrections.sittings
        said = f"Corrected {_described(sittings[-1])}. " if sittings else ""
        self.about.setText(said + (_HOW if self._on else _OPENING if self._opening else _WHY))
        with signals_blocked(self.correct_button):
            self.correct_button.setChecked(self._on or self._opening)
        self.who.setEnabled(not self._on and not self._opening)
        self.paints.setEnabled(self._on)
        self.back_button.setEnabled(bool(sittings) and not self._opening)
        self.teach.setVisible(bool(sittings))
        if self._on:
            self.paints.setCurrentIndex(self.paints.findData(int(self._correcting.layer.selected_label)))
        if self._correcting.problem is None:
            self.notice.clear()
        else:
            self.notice.error(self._correcting.problem)


def _described(sitting: Sitting) -> str:
    """Return who corrected in a sitting, and when."""
    when = f"on {sitting.changes[-1][0].astimezone():%Y-%m-%d at %H:%M}" if sitting.changes else "earlier"
    return f"{when} by {sitting.who}" if sitting.who else when
