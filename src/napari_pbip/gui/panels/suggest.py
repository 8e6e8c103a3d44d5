"""The panel that asks for the labels of suggested tiles."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from napari_pbip.gui.connections import listen
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.gui.keys import Key
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.widgets.buttons import push_button
from napari_pbip.gui.widgets.job_bar import JobBar, Notice


class SuggestPanel(QWidget):
    """Shows the session's :class:`~napari_pbip.gui.state.suggestions.Suggestions`."""

    asked = Signal()
    """Emitted when the user has asked for suggestions, which need the tool for labels."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._suggestions, self._labelling = session.suggestions, session.labelling
        self.suggest_button = push_button(
            "Suggest tiles",
            "Show tiles that are typical of tissue of which little is labelled, on all slides of the project",
            self._ask,
        )
        self.skip_button = push_button("Skip", f"Show the next tile ({Key.SKIP.keys})", self._suggestions.skip)
        self.stop_button = push_button("Stop", f"Show no more suggested tiles ({Key.STOP.keys})", self._suggestions.end)
        self.note, self.problem, self.bar = Notice(), Notice(), JobBar()
        buttons = QHBoxLayout()
        for button in (self.suggest_button, self.skip_button, self.stop_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        for part in (self.note, self.problem, self.bar):
            layout.addWidget(part)
        listen(
            self,
            (self._suggestions.changed, self._show),
            (self._suggestions.searching, self._follow),
            (self._labelling.changed, self._show_whether),
        )
        self._show()
        self._show_whether()

    def _ask(self) -> None:
        self.asked.emit()
        self._suggestions.ask()

    def _follow(self, job: RunningJob) -> None:
        self.bar.show()
        self.bar.follow(job)
        self.suggest_button.setEnabled(False)
        job.ended.connect(self._on_end)

    def _on_end(self, state: State) -> None:
        self._show_whether()
        self.bar.setVisible(state is State.FAILED or bool(self.bar.notice.text()))

    def _show_whether(self) -> None:
        running = self.bar.job is not None and not self.bar.job.state.ended
        self.suggest_button.setEnabled(not running and self._labelling.grid is not None)

    def _show(self) -> None:
        suggestions, tile = self._suggestions, self._suggestions.tile
        number, count = suggestions.progress
        for button in (self.skip_button, self.stop_button):
            button.setVisible(tile is not None)
        if tile is not None:
            self.note.info(
                f"Tile {number} of {count}, on {tile[0].name}: press the number of its class, with Shift if it "
                f"shows several; {Key.SKIP.keys} goes on, {Key.STOP.keys} stops."
            )
        elif count:
            self.note.info(f"All {count} suggested tiles are answered; Suggest tiles shows more.")
        else:
            self.note.clear()
        self.problem.error(suggestions.problem or "")
