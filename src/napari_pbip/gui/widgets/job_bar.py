"""Widgets for a sentence to the user, and for the progress and outcome of a job."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QHBoxLayout, QMessageBox, QProgressBar, QVBoxLayout, QWidget

from napari_pbip.events import Event, Loading, Noted, RunStep, Started, Step, Warned
from napari_pbip.gui.jobs import RunningJob, State, loading
from napari_pbip.gui.widgets.buttons import push_button
from napari_pbip.gui.widgets.words import PlainLabel
from napari_pbip.wording import Interface

_SYMBOLS = {"error": "✖  ", "warning": "⚠  ", "info": ""}


class Notice(PlainLabel):
    """A label for a sentence to the user, beside what it is about; hidden if the sentence is empty.

    Errors and warnings have a symbol, so that they differ by more than colour. Arguments in the sentence are put into
    the words of the window (:mod:`napari_pbip.wording`).
    """

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.hide()

    def error(self, sentence: object) -> None:
        self._set("error", sentence)

    def warn(self, sentence: object) -> None:
        self._set("warning", sentence)

    def info(self, sentence: object) -> None:
        self._set("info", sentence)

    def clear(self) -> None:
        super().clear()
        self.hide()

    def _set(self, kind: str, sentence: object) -> None:
        text = Interface.WINDOW.sentence(sentence)
        if not text:
            self.clear()
            return
        self.setText(f"{_SYMBOLS[kind]}{text}")
        self.setAccessibleName(kind)
        self.show()


class JobBar(QWidget):
    """A bar with the progress, remaining time and outcome of a job, and buttons to pause and cancel it.

    Parameters
    ----------
    pausable
        Whether there is a button *Pause*.
    keeps
        Whether jobs that are stopped keep what is finished.
    """

    def __init__(self, *, pausable: bool = False, keeps: bool = False) -> None:
        super().__init__()
        self._job: RunningJob | None = None
        self._warned: list[str] = []
        self._noted: list[str] = []
        self._pausable = pausable
        self._keeps = keeps
        self.progress = QProgressBar()
        self.progress.setTextVisible(True)
        self.text = PlainLabel()
        self.text.setWordWrap(True)
        self.pause_button = push_button("Pause", "Pause; nothing is lost", self._toggle_pause)
        self.cancel_button = push_button("Cancel", "Stop; what is finished is kept" if keeps else "Stop", self._cancel)
        self.noted = Notice()
        self.notice = Notice()
        self.details_button = push_button("Details…", "Technical details, for an error report", self._show_details)
        row = QHBoxLayout()
        row.addWidget(self.progress, 1)
        row.addWidget(self.pause_button)  # even if it is not used: a button without a parent is a window of its own
        row.addWidget(self.cancel_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.text)
        layout.addWidget(self.noted)
        layout.addWidget(self.notice)
        layout.addWidget(self.details_button, 0, Qt.AlignmentFlag.AlignLeft)
        self._clock = QTimer(self)
        self._clock.setInterval(1000)
        self._clock.timeout.connect(self._show_time)
        self._show_running(False)
        self.details_button.hide()

    @property
    def job(self) -> RunningJob | None:
        """The job that is shown: the running or the last one, or None."""
        return self._job

    def follow(self, job: RunningJob) -> None:
        """Show this job instead of the previous one."""
        if self._job is not None:
            self._job.events.disconnect(self._on_events)
            self._job.state_changed.disconnect(self._on_state)
            self._job.ended.disconnect(self._on_end)
        self._job = job
        self._started: Started | None = None
        self._done = self._first = 0
        self._run = ""  # the one of several runs that has made a step
        self._since = time.monotonic()
        self._warned = []
        self._noted = []
        self.notice.clear()
        self.noted.clear()
        self.details_button.hide()
        self.text.setText("Starting…")
        self.progress.setRange(0, 0)  # a busy indicator until the job has said how much there is to do
        self._show_running(True)
        self._on_state(job.state)
        job.events.connect(self._on_events)
        job.state_changed.connect(self._on_state)
        job.ended.connect(self._on_end)
        self._clock.start()
        job.followed = True
        self._on_events(job.recent_events)  # the events so far, if the job has been running
        self._first = self._done  # the rate is measured from now on
        self._show_time()

    def _show_running(self, running: bool) -> None:
        for part in (self.progress, self.cancel_button, self.text):
            part.setVisible(running)
        self.pause_button.setVisible(running and self._pausable)

    def _on_events(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Started):
                self._started, self._done, self._first, self._run = event, event.done, event.done, ""
                self._since = time.monotonic()
            elif isinstance(event, Loading):
                self._started = None
                self.text.setText(loading(event.what))
                self.progress.setRange(0, 0)
            elif isinstance(event, Step):
                self._done = event.done
                if isinstance(event, RunStep):
                    self._run = "" if event.finished else event.run
            elif isinstance(event, Warned):
                self._warned.append(event.message)
                self.notice.warn(" ".join(self._warned))
            elif isinstance(event, Noted):
                self._noted.append(event.message)
                self.noted.info(" ".join(self._noted))
        if self._started is not None:
            self.progress.setRange(0, max(1, self._started.total))
            self.progress.setValue(min(self._done, self._started.total))
        self._show_time()

    def _show_time(self) -> None:
        started = self._started
        if started is None or (self._job is not None and self._job.state is not State.RUNNING):
            return
        text = f"{started.job}: {self._done:,} of {started.total:,} {started.unit}"
        took, fresh = time.monotonic() - self._since, self._done - self._first
        if fresh and took > 1:
            text += f", {fresh / took:.3g}/s, {duration((started.total - self._done) * took / fresh)} left"
        self.text.setText(f"{text}\n{self._run}" if self._run else text)

    def _on_state(self, state: State) -> None:
        self.pause_button.setText("Continue" if state is State.PAUSED else "Pause")
        self.pause_button.setEnabled(state in (State.RUNNING, State.PAUSED))
        self.cancel_button.setEnabled(state in (State.RUNNING, State.PAUSED))
        if state is State.PAUSED:
            self.text.setText("Paused.")
        elif state is State.CANCELLING:
            self.text.setText("Stopping; saving what is finished…" if self._keeps else "Stopping…")

    def _on_end(self, state: State) -> None:
        self._clock.stop()
        self._show_running(False)
        job = self._job
        if job is not None:
            job.end_shown = self.isVisible()  # neither closed nor behind another dock
        if job is not None and state is State.FAILED:
            self.notice.error(job.error)
            self.details_button.setVisible(job.error is not None and job.error.__cause__ is not None)
        elif state is State.CANCELLED:
            self.notice.info("Stopped; what was finished is kept." if self._keeps else "Stopped.")

    def _toggle_pause(self) -> None:
        if self._job is not None:
            (self._job.resume if self._job.state is State.PAUSED else self._job.pause)()

    def _cancel(self) -> None:
        if self._job is not None:
            self._job.cancel()

    def _show_details(self) -> None:
        if self._job is not None and self._job.error is not None:
            show_details(self, self._job.error)


def show_details(parent: QWidget, error: BaseException) -> None:
    """Show the traceback of an error in a dialog."""
    box = QMessageBox(parent)
    box.setWindowTitle("Details")
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setText(str(error))
    box.setDetailedText("".join(traceback.format_exception(error)))
    box.open()


def duration(seconds: float) -> str:
    """Return a duration as text: ``40 s``, ``12 min``, ``1 h 5 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
