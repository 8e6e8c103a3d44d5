"""The dock *Train*: the settings of a training, its curves, and the models of the project."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import napari.viewer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_pbip.config import JobSettings, TrainedSettings, TrainSettings
from napari_pbip.engine.run_facts import RunFacts
from napari_pbip.engine.training.requirements import missing_requirements, starts_from_bank
from napari_pbip.errors import ModelError, PbipError
from napari_pbip.gui.connections import listen
from napari_pbip.gui.panels.encoder_choice import EncoderChoice
from napari_pbip.gui.panels.prototypes import PrototypesDialog
from napari_pbip.gui.scrolling import scrolling_to
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.prototypes import ModelPrototypes
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.state.training import job_settings, training_encoder
from napari_pbip.gui.widgets.buttons import push_button
from napari_pbip.gui.widgets.curves import CurvesPlot
from napari_pbip.gui.widgets.fit_report import FitReport
from napari_pbip.gui.widgets.job_bar import JobBar, Notice, duration
from napari_pbip.gui.widgets.question import ask
from napari_pbip.gui.widgets.scroll_column import scrolling_layout
from napari_pbip.gui.widgets.settings_form import SettingsForm
from napari_pbip.gui.widgets.words import PlainLabel, rich, tip
from napari_pbip.models.encoders import catalogue
from napari_pbip.wording import Interface

_SECTIONS = ("method", "backbone", "train")
_MAIN = (
    "method.name",
    "method.preset",
    "backbone.name",
    "backbone.weights",
    "train.epochs",
    "train.batch_size",
    "train.device",
)
_OF_STEPS = (
    "backbone",
    *(
        f"train.{name}"
        for name in (
            "epochs",
            "steps",
            "batch_size",
            "learning_rate",
            "weight_decay",
            "warmup",
            "flip_and_turn",
            "stain_augmentation",
            "validate_every",
        )
    ),
)
"""Settings that do not apply to a method that is fitted at once."""
_NAME = re.compile(r"\w[\w .-]*")


class TrainWidget(QWidget):
    """Widget that trains a method on the labelled tiles of the project, in the background."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._session: Session = session_of(viewer)
        self._training = self._session.training
        self.source = QLabel()
        self.source.setWordWrap(True)
        self.missing = Notice()
        self.form = SettingsForm(self._session.settings, only=_SECTIONS, main=_MAIN)
        self.about = QLabel()
        self.about.setWordWrap(True)
        self.recommended = PlainLabel()
        self.recommended.setWordWrap(True)
        self.needs = Notice()
        self.encoder = EncoderChoice(self._session)
        self._needed: Mapping[str, PbipError] = {}
        self.name = QLineEdit()
        self.name.setToolTip("The model is kept under this name in the project folder")
        self.name.setAccessibleName("Name of the model")
        self._proposed = ""
        self.name_notice = Notice()
        self.start_button = push_button(
            "Train", "Train a new model in the background; the window can be used meanwhile", self._start
        )
        self.resume_button = push_button(
            "Resume", "Continue this training: where it was stopped, or with more epochs or steps", self._resume
        )
        self.replace_button = push_button("Replace…", "Delete this model and train it again", self._replace)
        self.prototypes_button = push_button(
            "Prototypes…", "What this model looks for: the real tiles nearest to each prototype", self._show_prototypes
        )
        self.bar = JobBar(pausable=True, keeps=True)
        self.plot = CurvesPlot()
        self.report = FitReport()
        self.models = QTreeWidget()
        self.models.setHeaderLabels(["Model", "State", "Best mIoU"])
        if (titles := self.models.headerItem()) is not None:
            titles.setToolTip(2, tip("Mean overlap of predicted and true classes (IoU) in the best validation"))
        self.models.setRootIsDecorated(False)
        self.models.setMinimumHeight(110)
        self.models.setToolTip("Models of this project; choose one to see its curves, resume or replace it")
        self.models.setAccessibleName("Models of this project")
        header = self.models.header()
        if header is not None:
            header.setStretchLastSection(False)
            header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
            header.setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
            header.setSectionResizeMode(2, QHeaderView.ResizeMode.ResizeToContents)
        self._to_curves = scrolling_to(self.plot)
        self._lay_out()
        self.form.value_changed.connect(self._on_form)
        self.name.textChanged.connect(self._show_actions)
        self.models.itemSelectionChanged.connect(self._on_chosen)
        session, training = self._session, self._training
        listen(
            self,
            (session.settings_changed, self._show_settings),
            (session.bank.changed, self._show_start),
            (session.folder_changed, self._show_start),
            (session.folder_changed, self._on_folder),
            (session.classes.changed, self._show_actions),
            (session.classes.changed, self._find_advice),
            (session.labelling.tiles_cut, self._find_advice),
            (session.method_advice.changed, self._show_advice),
            (training.models_changed, self._show_models),
            (training.models_changed, self._find_advice),
            (training.choices_found, self._show_choices),
            (training.changed, self._follow),
            (training.curves_changed, self._show_curves),
        )
        self._show_start()
        self._show_models()
        self._follow()
        self._show_curves()
        self._show_choices()
        self._show_advice()
        training.refresh()
        training.find_choices()
        if session.bank.bank is None:
            session.bank.load()

    def _lay_out(self) -> None:
        names = QHBoxLayout()
        label = QLabel("Name of the model")
        label.setBuddy(self.name)
        names.addWidget(label)
        names.addWidget(self.name, 1)
        buttons = QHBoxLayout()
        for button in (self.start_button, self.resume_button, self.replace_button):
            buttons.addWidget(button)
        chosen = QWidget()
        below = QVBoxLayout(chosen)
        below.setContentsMargins(0, 0, 0, 0)
        for part in (self.recommended, self.about, self.needs, self.encoder):
            below.addWidget(part)
        self.form.put_below("method.name", chosen, self.encoder.fields)
        inner = scrolling_layout(self)
        inner.addWidget(self.source)
        inner.addWidget(self.missing)
        inner.addWidget(self.form)
        inner.addLayout(names)
        inner.addWidget(self.name_notice)
        inner.addLayout(buttons)
        inner.addWidget(self.bar)
        inner.addWidget(self.plot, 3)
        inner.addWidget(self.report)
        inner.addWidget(self.models, 1)
        inner.addWidget(self.prototypes_button)
        self.setMinimumWidth(340)

    # settings ------------------------------------------------------------------------------------------------

    def _on_form(self, settings: JobSettings) -> None:
        self._session.change(**{name: getattr(settings, name) for name in _SECTIONS})

    def _show_settings(self, settings: JobSettings) -> None:
        self.form.set_value(settings)
        self._show_start()

    def _show_choices(self) -> None:
        self.form.offer("backbone.name", self._training.backbones)
        self.form.offer("train.device", self._training.devices)

    def _show_start(self) -> None:
        self._show_source()
        self._show_method()
        self._find_advice()

    def _find_advice(self) -> None:
        if self.isVisible():
            self._session.method_advice.find()

    def _show_advice(self) -> None:
        advice = self._session.method_advice.advice
        self.recommended.setText("" if advice is None else advice.sentences)
        self.recommended.setVisible(advice is not None)

    def _show_source(self) -> None:
        """Show what the training learns from, or what has to be done before it."""
        settings = job_settings(self._session)
        self.missing.clear()
        if settings.data.folder is None:
            self.source.setText("Learns from labelled tiles.")
            self.missing.warn("There are none yet: choose their folder, or label some on a slide, in Label tiles.")
            return
        ours = settings.data.folder == self._session.tiles_folder
        tiles = "<b>labelled on slides</b>" if ours else f"those of the folder <b>{rich(settings.data.folder.name)}</b>"
        lines = [f"Tiles: {tiles}"]
        if starts_from_bank(settings):
            lines.append(f"Image bank: {self._bank_text(settings.bank_folder)}")
        self.source.setText("<br>".join(lines))
        self.source.setToolTip(tip(f"{settings.data.folder}\n{settings.bank_folder or ''}".strip()))

    def _bank_text(self, folder: Path | None) -> str:
        if folder is None:
            return "built first, from the same tiles"
        if folder == self._session.bank_folder:
            return "<b>that of this project</b>"
        return f"that of the folder <b>{rich(folder.name)}</b>"

    def _show_method(self) -> None:
        """Show a description of the method, and what it still needs."""
        settings = job_settings(self._session)
        method = settings.method
        self.about.setText(method.about)
        self.about.setVisible(bool(method.about))
        self.form.leave_out(() if isinstance(method, TrainedSettings) else _OF_STEPS)
        bank_there = starts_from_bank(settings) and settings.bank_folder is not None
        self.encoder.setVisible(method.learns_from in ("encoder", "bank") and not bank_there)
        self._needed = missing_requirements(settings, catalogue().get(training_encoder(self._session, settings)))
        self.form.remark(self._needed)
        self.needs.clear()
        if error := self._needed.get("bank.encoder"):  # whose field may be in another dock
            self.needs.warn(error)

    def showEvent(self, event: QShowEvent | None) -> None:
        super().showEvent(event)
        self._find_advice()

    # models --------------------------------------------------------------------------------------------------

    def _on_folder(self) -> None:
        """Forget the model of the other project."""
        self._proposed = ""
        self.name.setText("")  # clear() would count as typed
        self._show_models()

    def _propose(self) -> None:
        """Propose a free name, unless the field has one that was typed or is that of a model that was chosen."""
        if self.name.text() == self._proposed and not self.name.isModified():
            self._proposed = self._training.free_name
            self.name.setText(self._proposed)

    def _show_models(self) -> None:
        training, running = self._training, self._running
        self._propose()
        chosen = self.name.text().strip()
        self.models.blockSignals(True)
        self.models.clear()
        for name, facts in training.models.items():
            item = QTreeWidgetItem([name, _state(facts, running == name), _score(facts)])
            item.setToolTip(1, Interface.WINDOW.sentence(facts) if isinstance(facts, ModelError) else "")
            self.models.addTopLevelItem(item)
            if name == chosen:
                self.models.setCurrentItem(item)
        self.models.blockSignals(False)
        self._show_actions()

    @property
    def _running(self) -> str | None:
        """Return the name of the model of this project that is being trained, or None."""
        run = self._training.run if self._training.job is not None else None
        return run.name if run is not None and run.parent == self._session.models_folder else None

    @property
    def _run(self) -> Path:
        return self._session.models_folder / self.name.text().strip()

    def _on_chosen(self) -> None:
        for item in self.models.selectedItems():  # at most one; a row that only has the keyboard focus is not selected
            self.name.setText(item.text(0))
            self._training.select(self._run)

    def _show_actions(self) -> None:
        """Show the buttons for what can be done with a model of the entered name."""
        name = self.name.text().strip()
        facts = self._training.models.get(name)
        there, idle = name in self._training.models, self._training.job is None
        usable = _NAME.fullmatch(name) is not None
        finished = there and not isinstance(facts, ModelError) and facts is not None and facts.finished
        by_steps = not isinstance(facts, RunFacts) or isinstance(facts.settings.method, TrainedSettings)
        self.start_button.setVisible(not there)
        self.start_button.setEnabled(idle and usable)
        self.resume_button.setVisible(
            idle and there and not isinstance(facts, ModelError) and (by_steps or not finished)
        )
        self.replace_button.setVisible(idle and there)
        self.prototypes_button.setVisible(
            there and not isinstance(facts, ModelError) and facts is not None and facts.prototypes is not None
        )
        self.plot.setVisible(by_steps)
        fitted = isinstance(facts, RunFacts) and not by_steps and finished
        self.report.setVisible(fitted)
        if isinstance(facts, RunFacts) and fitted:
            self.report.show_fit(facts.fit, facts.taxonomy.names, self._session.classes.title)
        self.name_notice.clear()
        if not usable:
            self.name_notice.error("A name may contain letters, digits, spaces, dots, hyphens and underscores.")
        elif isinstance(facts, ModelError):
            self.name_notice.error(facts)
        elif there and idle:
            took = self._training.took(self._run)
            further = "resume it, " if by_steps else ""
            self.name_notice.info(
                f"“{name}” exists ({_state(facts, False)}): {further}replace it, or type another name."
                if took is None
                else f"“{name}” is trained, in {duration(took)}. Next: 5 Segment."
            )

    # training ------------------------------------------------------------------------------------------------

    def _ready(self) -> bool:
        """Return whether all fields are valid and there are tiles to learn from; show what is wrong if not."""
        self._show_actions()
        problems = self.form.problems()
        if problems:
            self.form.reveal(problems[0])
            self.name_notice.error("Correct the marked setting first.")
        elif self._session.settings.data.folder is None:
            self.name_notice.error("There are no labelled tiles to learn from yet; see above.")
        elif self._needed or (self.encoder.isVisible() and not self.encoder.usable()):
            self.name_notice.error("Something is still missing; see above.")
        else:
            return True
        return False

    def _start(self) -> None:
        if self._ready():
            self._training.start(self.name.text().strip())

    def _resume(self) -> None:
        facts = self._training.models.get(self.name.text().strip())
        if facts is None or isinstance(facts, ModelError) or self.form.problems():
            self._ready()
            return
        asked = self._session.settings.train
        if not facts.finished:
            self._training.resume(self.name.text().strip())
        elif _asks_for_more(asked, facts):
            self._training.resume(self.name.text().strip(), asked)
        else:
            done = f"{facts.epoch} epochs, {facts.steps:,} steps"
            self.name_notice.error(
                f"This model has completed its training ({done}); set more epochs or steps above, and press Resume."
            )

    def _replace(self) -> None:
        if not self._ready():
            return
        name = self.name.text().strip()
        question = f"Delete the model “{name}” with its curves, and train it again?"
        ask(self, "Replace a model", question, {"Replace it": lambda: self._training.start(name, replace=True)})

    def _show_prototypes(self) -> None:
        session = self._session
        PrototypesDialog(session.viewer, ModelPrototypes(session, self._run), session.classes, self).show()

    def _follow(self) -> None:
        job = self._training.job
        if job is not None and self.bar.job is not job:
            self.bar.follow(job)
            self._to_curves.start()
            if (name := self._running) is not None:
                self._proposed = ""
                self.name.setText(name)
        self._show_models()

    def _show_curves(self) -> None:
        self.plot.show_curves(self._training.curves)


def _asks_for_more(asked: TrainSettings, facts: RunFacts) -> bool:
    """Return whether settings ask for a longer training than the finished one."""
    if asked.steps is not None:
        return asked.steps > facts.steps
    return asked.epochs != "auto" and asked.epochs > facts.epoch


def _state(facts: RunFacts | ModelError | None, running: bool) -> str:
    if running:
        return "training"
    if facts is None or isinstance(facts, ModelError):
        return "cannot be read"
    if facts.finished:
        return "finished"
    by_steps = isinstance(facts.settings.method, TrainedSettings)
    return f"stopped at step {facts.step:,} of {facts.steps:,}" if by_steps else "stopped"


def _score(facts: RunFacts | ModelError) -> str:
    if isinstance(facts, ModelError) or facts.best_score is None:
        return "–"
    return f"{facts.best_score:.1f} %"
