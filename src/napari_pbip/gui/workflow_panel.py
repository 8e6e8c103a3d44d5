"""All steps of the work in one panel, in which a step's page is the dock of that step."""

from __future__ import annotations

from functools import partial
from importlib import import_module

import napari.viewer
from qtpy.QtWidgets import QButtonGroup, QHBoxLayout, QStackedWidget, QVBoxLayout, QWidget

from napari_pbip.gui.connections import listen
from napari_pbip.gui.keys import Key, bind
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.steps import Step
from napari_pbip.gui.widgets.buttons import push_button, toggle_button
from napari_pbip.gui.widgets.key_list import show_keys
from napari_pbip.gui.widgets.words import PlainLabel

_WIDGETS = {
    Step.PROJECT: "project:ProjectWidget",
    Step.SLIDES: "slides:SlidesWidget",
    Step.LABEL_TILES: "label_tiles:LabelTilesWidget",
    Step.BANK: "bank:BankWidget",
    Step.TRAIN: "train:TrainWidget",
    Step.SEGMENT: "segment:SegmentWidget",
    Step.TUNE: "tune:TuneWidget",
    Step.EVALUATE: "evaluate:EvaluateWidget",
}
"""The dock of each step, which is its page; its module is imported when the page is shown first."""
_MISSING = {
    Step.SLIDES: "No slide is open yet.",
    Step.LABEL_TILES: "There are no labelled tiles yet.",
    Step.BANK: "There is no image bank yet.",
    Step.TRAIN: "No model is trained yet.",
    Step.SEGMENT: "There is no tissue map yet.",
    Step.TUNE: "The labels are not saved yet.",
}
"""What is said beside the button of the next step until a step is done."""
_SHORT = {Step.EVALUATE: "Evaluate"}
"""Names of buttons that would be too wide with the name of the dock."""
_IN_A_ROW = 4
_WIDTH = 400
"""Width in points in which all pages fit, with scroll bars, so that the canvas keeps its width from page to page."""


class WorkflowPanel(QWidget):
    """Panel with a button for each step, the page of the step that was chosen last, and a button for the next one.

    Attributes
    ----------
    buttons
        The button of each step, which is down while its page is shown.
    keys_button
        The button that lists the keys of the window.
    next_button
        The button that shows the page of the next step.
    pages
        The pages of the steps that were shown.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        session = session_of(viewer)
        self._steps = session.steps
        self.buttons = {step: toggle_button(step.value, "", partial(self._toggled, step)) for step in Step}
        self._stack = QStackedWidget()
        self.pages: dict[Step, QWidget] = {}
        self.missing = PlainLabel()
        self.missing.setWordWrap(True)
        self.keys_button = push_button("Keys…", "Keyboard shortcuts", lambda: show_keys(self))
        self.next_button = push_button("", clicked=self._go_on)
        self._lay_out()
        self.setMinimumWidth(_WIDTH)
        bind(Key.PREVIOUS_STEP, self, partial(self._move, -1))
        bind(Key.NEXT_STEP, self, partial(self._move, 1))
        listen(self, (self._steps.changed, self._show), (self._steps.moved, self.show_step))
        session.training.refresh()
        self.show_step(self._steps.shown)

    def show_step(self, step: Step) -> None:
        """Show the page of a step."""
        self.buttons[step].setChecked(True)

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)  # the pages have margins of their own
        group = QButtonGroup(self)  # of which one button is down; arrow keys go from one to another
        row = QHBoxLayout()
        for place, button in enumerate(self.buttons.values()):
            if place % _IN_A_ROW == 0:
                row = QHBoxLayout()
                layout.addLayout(row)
            group.addButton(button)
            row.addWidget(button, 1)
        below = QHBoxLayout()
        below.addWidget(self.missing, 1)
        below.addWidget(self.keys_button)
        below.addWidget(self.next_button)
        layout.addWidget(self._stack, 1)
        layout.addLayout(below)

    def _toggled(self, step: Step, on: bool) -> None:
        if on:
            self._steps.shown = step
            if step not in self.pages:
                self._make_page(step)
            self._stack.setCurrentWidget(self.pages[step])
            self._show()

    def _make_page(self, step: Step) -> None:
        module, name = _WIDGETS[step].split(":")
        self.pages[step] = getattr(import_module(f"napari_pbip.gui.docks.{module}"), name)(self._viewer)
        self._stack.addWidget(self.pages[step])

    def _show(self) -> None:
        """Show which steps are done, and which one is next."""
        shown, done = self._steps.shown, self._steps.done
        for step, button in self.buttons.items():
            name = _SHORT.get(step, step.value)
            button.setText(f"{name} ✓" if step in done else name)
            button.setAccessibleName(f"{step.value}, done" if step in done else step.value)
        missing = Step.SEGMENT if shown is Step.TUNE and Step.SEGMENT not in done else shown
        self.missing.setText("" if missing in done else _MISSING.get(missing, ""))
        following = self._steps.following(shown)
        self.next_button.setVisible(following is not None)
        if following is not None:
            self.next_button.setText(f"Next: {following.value}")

    def _go_on(self) -> None:
        if (following := self._steps.following(self._steps.shown)) is not None:
            self.show_step(following)

    def _move(self, places: int) -> None:
        """Show the page so many places further in the order of the steps, if there is one."""
        steps = list(Step)
        place = steps.index(self._steps.shown) + places
        if 0 <= place < len(steps):
            self.show_step(steps[place])
