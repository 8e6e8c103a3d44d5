"""The dock *Segment*: the choice of a model and of slides, and the progress of each slide."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import napari.viewer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_pbip.config import JobSettings, RefineSettings, SegmentSettings
from napari_pbip.engine.run_facts import RunFacts
from napari_pbip.errors import ModelError
from napari_pbip.gui.connections import listen
from napari_pbip.gui.jobs import loading
from napari_pbip.gui.layers.slides import SlideLayer
from napari_pbip.gui.panels.replacing import ask_to_replace
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.queued_slide import QueuedSlide, Status
from napari_pbip.gui.state.segmenting import SegmentQueue
from napari_pbip.gui.state.shown_classes import ShownClasses
from napari_pbip.gui.widgets.buttons import folding_button, push_button
from napari_pbip.gui.widgets.dropped import DropZone
from napari_pbip.gui.widgets.file_dialogs import Mode, ask_for
from napari_pbip.gui.widgets.job_bar import Notice, duration, show_details
from napari_pbip.gui.widgets.scroll_column import ScrollColumn, scrolling_layout
from napari_pbip.gui.widgets.settings_form import SettingsForm
from napari_pbip.gui.widgets.words import tip

_SETTINGS = ("overlap", "batch_size", "min_tissue", "device")
_ALL = "All open slides"
_STOP = "Stop; what is finished is kept and can be resumed"
_CHOOSE_MODEL = "Train a model first, or choose the folder of one with Browse."


class SegmentWidget(DropZone):
    """Widget that segments slides, which are chosen or dropped, with a model; the maps grow in the viewer."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._session = session_of(viewer)
        self._queue = self._session.segmenting
        self._browsed: dict[Path, RunFacts | ModelError] = {}
        self.model = _combo("The model that segments the slides")
        self.model.activated.connect(self._on_model)
        self.browse_button = push_button(
            "Browse…", "Choose the folder of a model that was trained elsewhere", self._browse
        )
        self.facts = QLabel()
        self.facts.setWordWrap(True)
        self.model_notice = Notice()
        self.slide = _combo("The slide that is segmented next")
        self.segment_button = push_button(
            "Segment", "Map the tissue of the slide, the part in view first", self._segment
        )
        self.files_button = push_button("Choose…", "Segment slides that are not open", self._choose_files)
        self.notice = Notice()
        self.form = SettingsForm(self._session.settings.segment, only=_SETTINGS)
        self.refine_form = SettingsForm(self._session.settings.refine)
        self.scheduler_form = SettingsForm(self._session.settings, only=("scheduler",))
        self.form.value_changed.connect(self._on_form)
        self.refine_form.value_changed.connect(self._on_refine)
        self.scheduler_form.value_changed.connect(self._on_scheduler)
        self.more_button = folding_button(
            "More", "Settings that seldom need a change", self.form, self.refine_form, self.scheduler_form
        )
        self.queue = QueueView(self._queue)
        self._lay_out()
        listen(
            self,
            (self._session.training.models_changed, self._show_models),
            (self._session.settings_changed, self._show_settings),
            (self._session.slides.changed, self._show_slides),
            (self._session.slide_selected, self._on_slide_selected),
            (self._session.folder_changed, self._on_folder),
            (self._queue.changed, self._show_chosen),
            (self._session.classes.changed, self._show_facts),
        )
        self._show_models()
        self._show_slides()
        self._session.training.refresh()

    def _lay_out(self) -> None:
        model = QHBoxLayout()
        model.addWidget(self.model, 1)
        model.addWidget(self.browse_button)
        slide = QHBoxLayout()
        slide.addWidget(self.slide, 1)
        slide.addWidget(self.segment_button)
        fields = QGridLayout()
        fields.setColumnStretch(1, 1)
        for row, (text, field, line) in enumerate((("Model", self.model, model), ("Slide", self.slide, slide))):
            label = QLabel(text)
            label.setBuddy(field)
            fields.addWidget(label, 3 * row, 0)
            fields.addLayout(line, 3 * row, 1)
        fields.addWidget(self.facts, 1, 1)
        fields.addWidget(self.model_notice, 2, 0, 1, 2)
        fields.addWidget(self.notice, 4, 0, 1, 2)
        drop = QHBoxLayout()
        drop.addWidget(QLabel("Or drop slides or folders here, or"))
        drop.addWidget(self.files_button)
        drop.addStretch()
        layout = scrolling_layout(self)
        layout.addLayout(fields)
        layout.addLayout(drop)
        layout.addWidget(self.more_button)
        layout.addWidget(self.form)
        layout.addWidget(self.refine_form)
        layout.addWidget(self.scheduler_form)
        layout.addWidget(self.queue, 1)
        self.setMinimumWidth(340)

    # the model -----------------------------------------------------------------------------------------------

    def _models(self) -> dict[Path, RunFacts | ModelError]:
        """Return the models of the project, newest first, and those that were chosen in other folders."""
        folder = self._session.models_folder
        own = {folder / name: facts for name, facts in self._session.training.models.items()}
        return own | {run: facts for run, facts in self._browsed.items() if run not in own}

    def _show_models(self) -> None:
        run, models = self._queue.run, self._models()
        if run is not None and run not in models and run.exists():  # it lies elsewhere, or is not listed yet
            self._browsed[run] = _facts(run)
            models = self._models()
        if self._queue.run not in models:
            usable = (run for run, facts in models.items() if isinstance(facts, RunFacts))
            self._queue.run = next(usable, next(iter(models), None))
        self.model.clear()
        for run in models:
            self.model.addItem(run.name, str(run))
            self.model.setItemData(self.model.count() - 1, str(run), Qt.ItemDataRole.ToolTipRole)
        self.model.setCurrentIndex(self.model.findData(str(self._queue.run)))
        if self._session.training.devices:
            self.form.offer("device", self._session.training.devices)
        self._show_facts()

    def _on_folder(self) -> None:
        self._browsed.clear()
        self._show_models()

    def _on_model(self) -> None:
        self._queue.choose(Path(self.model.currentData()))
        self._show_facts()

    def _show_chosen(self) -> None:
        if self.model.currentData() != str(self._queue.run):  # it was chosen in another dock
            self._show_models()

    def _show_facts(self) -> None:
        self.model_notice.clear()
        facts = None if self._queue.run is None else self._models()[self._queue.run]
        self.facts.setVisible(isinstance(facts, RunFacts))
        if isinstance(facts, RunFacts):
            self.facts.setText(describe(facts, self._session.classes))
        elif facts is None:
            self.model_notice.info(_CHOOSE_MODEL)
        else:
            self.model_notice.error(facts)
        self._enable()

    def _browse(self) -> None:
        title, start = "The folder of a model", self._session.models_folder
        ask_for(self, title, Mode.Directory, lambda folders: self.choose_model(folders[0]), start=start)

    def choose_model(self, run: Path) -> None:
        """Use the model in a folder; show the error if it cannot be read."""
        self._queue.choose(run)

    @property
    def _usable(self) -> bool:
        return self._queue.run is not None and isinstance(self._models().get(self._queue.run), RunFacts)

    # settings ------------------------------------------------------------------------------------------------

    def _on_refine(self, settings: RefineSettings) -> None:
        self._session.change(refine=settings)

    def _on_form(self, settings: SegmentSettings) -> None:
        self._session.change(segment=settings)

    def _on_scheduler(self, settings: JobSettings) -> None:
        self._session.change(scheduler=settings.scheduler)

    def _show_settings(self) -> None:
        self.scheduler_form.set_value(self._session.settings)
        self.form.set_value(self._session.settings.segment)
        self.refine_form.set_value(self._session.settings.refine)

    # slides --------------------------------------------------------------------------------------------------

    def _show_slides(self) -> None:
        slides = list(self._session.slides)
        self.slide.clear()
        for slide in slides:
            self.slide.addItem(slide.slide.path.name, [slide.slide.path])
        if len(slides) > 1:
            self.slide.addItem(_ALL, [slide.slide.path for slide in slides])
        self._on_slide_selected(self._session.current_slide)
        self._enable()

    def _on_slide_selected(self, slide: SlideLayer | None) -> None:
        if slide is not None:
            self.slide.setCurrentText(slide.slide.path.name)

    def _enable(self) -> None:
        self.segment_button.setEnabled(self._usable and self.slide.count() > 0)
        self.slide.setEnabled(self.slide.count() > 0)
        self.slide.setPlaceholderText("No slide is open")

    def _segment(self) -> None:
        self.take(self.slide.currentData() or [])

    def _choose_files(self) -> None:
        ask_for(self, "Slides", Mode.ExistingFiles, self.take)

    def take(self, paths: Sequence[Path]) -> None:
        """Add slides and folders of slides to the queue, to be segmented with the chosen model."""
        self.notice.clear()
        run = self._queue.run
        if run is None or not self._usable:
            self.notice.warn(_CHOOSE_MODEL)
        elif self.form.problems() or self.scheduler_form.problems():
            self.more_button.setChecked(True)
        elif paths:
            if not len(self._session.slides) and paths[0].is_file():  # no slide is open: the user wants to see this one
                self._session.opening.slide(paths[0], otherwise=lambda error: None)  # its row shows the error
            self._queue.drop(paths, run)


class QueueView(QWidget):
    """Widget with one row per slide of the queue."""

    def __init__(self, queue: SegmentQueue) -> None:
        super().__init__()
        self._queue = queue
        self.rows: list[SlideRow] = []
        self.stop_button = push_button("Stop all", _STOP, queue.stop)
        self.resume_button = push_button(
            "Resume all", "Continue all slides of this list that were stopped", queue.resume_all
        )
        self.keep_button = push_button(
            "Keep both for all",
            "Keep the present maps of all these slides, and make the new ones beside them",
            self._keep,
        )
        self.clear_button = push_button(
            "Clear finished", "Take finished slides off the list; results stay", self._clear
        )
        buttons = QHBoxLayout()
        buttons.addStretch()
        for button in (self.keep_button, self.resume_button, self.stop_button, self.clear_button):
            buttons.addWidget(button)
        content = QWidget()
        self._rows = QVBoxLayout(content)
        self._rows.setContentsMargins(0, 0, 0, 0)
        self._rows.addStretch()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(ScrollColumn(content), 1)
        layout.addLayout(buttons)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        listen(self, (queue.changed, self._fill), (queue.updated, self._show))
        self._fill()

    def _fill(self) -> None:
        shown = {row.slide: row for row in self.rows}
        for slide, row in shown.items():
            if slide not in self._queue.slides:
                self._rows.removeWidget(row)
                row.deleteLater()
        self.rows = [shown.get(slide) or SlideRow(slide, self._queue) for slide in self._queue.slides]
        for place, row in enumerate(self.rows):
            self._rows.insertWidget(place, row)
        self._enable()

    def _show(self, slide: QueuedSlide) -> None:
        for row in self.rows:
            if row.slide is slide:
                row.show_state()
        self._enable()

    def _clear(self) -> None:
        for slide in list(self._queue.slides):
            if slide.status is Status.DONE:
                self._queue.remove(slide)

    def _keep(self) -> None:
        self._queue.keep_both([slide for slide in self._queue.slides if slide.can_keep_both])

    def _enable(self) -> None:
        statuses = [slide.status for slide in self._queue.slides]
        self.stop_button.setVisible(bool(statuses))
        self.clear_button.setVisible(bool(statuses))
        self.keep_button.setVisible(sum(slide.can_keep_both for slide in self._queue.slides) > 1)
        self.resume_button.setVisible(sum(status.resumable for status in statuses) > 1)
        self.stop_button.setEnabled(any(status in (Status.WAITING, Status.RUNNING) for status in statuses))
        self.clear_button.setEnabled(Status.DONE in statuses)


class SlideRow(QFrame):
    """Widget with the progress of a slide of the queue, and buttons for it."""

    def __init__(self, slide: QueuedSlide, queue: SegmentQueue) -> None:
        super().__init__()
        self.slide = slide
        self._queue = queue
        self.setFrameShape(QFrame.Shape.StyledPanel)
        name = QLabel(slide.path.name)
        name.setTextFormat(Qt.TextFormat.PlainText)
        bold = name.font()
        bold.setBold(True)
        name.setFont(bold)
        name.setToolTip(tip(f"{slide.path}\nModel: {slide.run.name}"))
        name.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.progress = QProgressBar()
        self.progress.setAccessibleName(f"Progress of {slide.path.name}")
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.notice, self.advice = Notice(), Notice()
        self.stop_button = push_button("Stop", _STOP, self._call(queue.cancel))
        self.resume_button = push_button("Resume", "Continue where it was stopped", self._call(queue.resume))
        self.keep_button = push_button(
            "Keep both",
            "Keep that map, and make the new one beside it; Project shows which one is counted",
            lambda: queue.keep_both([slide]),
        )
        self.replace_button = push_button(
            "Replace", "Delete that result and segment the slide again", partial(ask_to_replace, self, queue, slide)
        )
        self.show_button = push_button("Show", "Bring the slide and its tissue map into view", self._show)
        self.details_button = push_button("Details…", "Technical details, for an error report", self._show_details)
        self.remove_button = push_button(
            "Remove", "Take it off the list; its result stays on disk", self._call(queue.remove)
        )
        buttons = QHBoxLayout()
        for button in self._buttons():
            buttons.addWidget(button)
        buttons.addStretch()
        layout = QVBoxLayout(self)
        layout.addWidget(name)
        layout.addWidget(self.progress)
        layout.addWidget(self.text)
        layout.addWidget(self.notice)
        layout.addWidget(self.advice)
        layout.addLayout(buttons)
        self.show_state()

    def _buttons(self) -> list[QPushButton]:
        return [
            self.stop_button,
            self.resume_button,
            self.keep_button,
            self.replace_button,
            self.show_button,
            self.details_button,
            self.remove_button,
        ]

    def _call(self, action: Callable[[QueuedSlide], None]) -> Callable[[], None]:
        return partial(action, self.slide)

    def show_state(self) -> None:
        """Show the present state of the slide."""
        slide, status = self.slide, self.slide.status
        if slide.job is not None and slide.job.state.ended:
            slide.job.end_shown |= self.isVisible()
        self.progress.setVisible(status in (Status.RUNNING, Status.STOPPING) or 0 < slide.done < slide.total)
        # a busy indicator until the job has said how many tiles there are
        self.progress.setRange(0, slide.total)
        self.progress.setValue(slide.done)
        self.text.setText(_state(slide))
        self.notice.clear()
        if status is Status.FAILED:
            self.notice.error(slide.sentence)
        elif slide.sentence:
            self.notice.warn(slide.sentence)
        self.advice.info(slide.advice)
        self.stop_button.setVisible(status in (Status.RUNNING, Status.STOPPING))
        self.stop_button.setEnabled(status is Status.RUNNING)
        self.resume_button.setText("Resume" if status.resumable else "Try again")
        again = status.resumable or status in (Status.FAILED, Status.OCCUPIED)
        self.resume_button.setVisible(again and not slide.can_keep_both)  # in vain, unless something is mended
        self.keep_button.setVisible(slide.can_keep_both)
        self.replace_button.setVisible(status is Status.OCCUPIED)
        self.show_button.setVisible(slide.total > 0)
        self.details_button.setVisible(slide.error is not None and slide.error.__cause__ is not None)
        self.remove_button.setVisible(status not in (Status.RUNNING, Status.STOPPING))

    def _show(self) -> None:
        self._queue.show(self.slide)

    def _show_details(self) -> None:
        if self.slide.error is not None:
            show_details(self, self.slide.error)


def _facts(run: Path) -> RunFacts | ModelError:
    try:
        return RunFacts.read(run)
    except ModelError as error:
        return error


def describe(facts: RunFacts, classes: ShownClasses) -> str:
    """Return the titles of a model's classes in their colours, and how long it was trained, as rich text."""
    titles = " &nbsp; ".join(
        f'<span style="color: {one.colour}">■</span>&nbsp;{html.escape(classes.title(one.name))}'
        for one in classes.coloured(facts.taxonomy)
    )
    state = "trained" if facts.finished else f"training stopped at step {facts.step:,} of {facts.steps:,}"
    method = facts.settings.method
    score = "" if facts.best_score is None else f", validation mIoU {facts.best_score:.1f} %"
    return f"{titles}<br>{method.title or method.name}, {state}{score}"


def _state(slide: QueuedSlide) -> str:
    """Return the progress of a slide in one line."""
    tiles = f"{slide.done:,} of {slide.total:,} tiles"
    match slide.status:
        case Status.WAITING:
            return "Waiting"
        case Status.RUNNING if not slide.total:
            return loading(f"the model {slide.run.name}")
        case Status.RUNNING:
            left = slide.seconds_left
            return tiles if left is None else f"{tiles}, {slide.rate:.3g}/s, {duration(left)} left"
        case Status.STOPPING:
            return "Stopping; saving what is finished…"
        case Status.STOPPED:
            return f"Stopped at {tiles}" if slide.total else "Stopped"
        case Status.LEFT:
            return "Waiting; it was stopped when the project was closed"
        case Status.DONE:
            return f"Done: {slide.total:,} tiles, {slide.tissue_mm2:.3g} mm² of tissue"
        case Status.FAILED:
            return "Failed"
        case Status.OCCUPIED:
            return "Not begun"


def _combo(tip: str) -> QComboBox:
    combo = QComboBox()
    combo.setToolTip(tip)
    combo.setAccessibleName(tip)
    combo.setMinimumContentsLength(10)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    return combo
