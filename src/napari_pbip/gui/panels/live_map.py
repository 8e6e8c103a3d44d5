"""The panel of the live map: its switch, its notes, the check of the labels, and the button for the whole slide."""

from __future__ import annotations

from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from napari_pbip.gui.connections import listen
from napari_pbip.gui.panels.replacing import ask_to_replace
from napari_pbip.gui.state.queued_slide import Status
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.widgets.buttons import push_button, toggle_button
from napari_pbip.gui.widgets.fit_report import FitReport
from napari_pbip.gui.widgets.job_bar import JobBar, Notice


class LiveMapPanel(QWidget):
    """Shows the session's :class:`~napari_pbip.gui.state.live_map.LiveMap` and its map of the whole slide."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._live, self._whole, self._queue = session.live_map, session.whole_map, session.segmenting
        self._classes = session.classes
        self.live_button = toggle_button(
            "Live map", "Colour the tissue in view by its class, and update the colours with every label", self._toggle
        )
        self.whole_button = push_button(
            "Map the whole slide",
            "Train a linear probe on the labelled tiles and segment the slide with it, as 4 Train and 5 Segment do",
            self._whole.start,
        )
        self.note, self.warning, self.problem = Notice(), Notice(), Notice()
        self.report = FitReport()
        self.report.picked.connect(self._live.go_to)
        self.bar = JobBar(keeps=True)
        self.whole_note, self.whole_problem = Notice(), Notice()
        self.keep_button = push_button("Keep both", "Keep that map, and make this one beside it", self._keep)
        self.replace_button = push_button("Replace it", "Delete that map and make this one", self._replace)
        buttons = QHBoxLayout()
        for button in (self.live_button, self.whole_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        for part in (
            self.note,
            self.warning,
            self.problem,
            self.bar,
            self.whole_note,
            self.whole_problem,
            self.keep_button,
            self.replace_button,
            self.report,
        ):
            layout.addWidget(part)
        listen(
            self,
            (self._live.changed, self._show),
            (self._live.checked_changed, self._show_report),
            (self._classes.changed, self._show_report),
            (self._whole.changed, self._show_whole),
            (self._whole.training, self.bar.follow),
        )
        self._show()
        self._show_report()
        self._show_whole()

    def _toggle(self, on: bool) -> None:
        self._live.on = on
        self._show_report()

    def _show(self) -> None:
        live = self._live
        if self.live_button.isChecked() != live.on:
            self.live_button.setChecked(live.on)
        self.note.info(live.note)
        self.warning.warn(" ".join(live.warnings))
        self.problem.error(live.problem or "")

    def _show_report(self) -> None:
        checked = self._live.checked
        self.report.setVisible(self._live.on and bool(checked))
        if checked:
            self.report.show_fit(checked, checked["names"], self._classes.title)

    def _show_whole(self) -> None:
        whole = self._whole
        self.whole_note.info(whole.note)
        self.whole_problem.error(whole.problem)
        self.keep_button.setVisible(whole.queued is not None and whole.queued.can_keep_both)
        self.replace_button.setVisible(whole.queued is not None and whole.queued.status is Status.OCCUPIED)

    def _keep(self) -> None:
        if self._whole.queued is not None:
            self._queue.keep_both([self._whole.queued])

    def _replace(self) -> None:
        if self._whole.queued is not None:
            ask_to_replace(self, self._queue, self._whole.queued)

    def showEvent(self, event: QShowEvent | None) -> None:
        super().showEvent(event)
        self._live.show_in(self, True)

    def hideEvent(self, event: QHideEvent | None) -> None:
        super().hideEvent(event)
        self._live.show_in(self, False)
