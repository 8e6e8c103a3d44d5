"""A page has few settings in sight, and the others behind a button."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtCore import QPoint
from qtpy.QtWidgets import QLabel, QToolButton

from napari_pbip.gui.state.steps import Step
from napari_pbip.gui.widgets.settings_form import SettingsForm
from tests.gui.docks.test_train import choose_method
from tests.gui.qt_helpers import Settle, click, open_workflow

PBIP = ["Method", "Encoder", "Preset", "Backbone", "Weights", "Epochs", "Batch size", "Device"]
"""What somebody sees who is to train a model; Encoder because there is no image bank yet."""


def in_sight(page: Any) -> list[str]:
    """Return the settings of a page that can be seen, by their labels, from top to bottom."""
    labels = {label for form in page.findChildren(SettingsForm) for label in form.findChildren(QLabel)}
    fields = [label for label in labels if label.buddy() is not None and label.isVisible()]
    return [label.text() for label in sorted(fields, key=lambda label: label.mapTo(page, QPoint()).y())]


@pytest.mark.parametrize(
    ("step", "method", "few", "button", "some_others"),
    [
        (Step.TRAIN, "pbip", PBIP, "All settings", {"Learning rate", "Mask threshold, delta", "Sparsity weight"}),
        (Step.TRAIN, "probe", ["Method", "Encoder", "Device"], "All settings", {"Regularisation (L2)", "Seed"}),
        (
            Step.BANK,
            None,
            ["Encoder", "Clusters per class", "Largest share of white", "Scheduler"],
            "All settings",
            {"Most clusters per class", "Tiles per prototype", "Seed", "Batch size"},
        ),
        (Step.SEGMENT, None, [], "More", {"Overlap", "Device", "Conditional random field", "Scheduler"}),
    ],
)
def test_a_page_shows_few_settings_and_the_others_on_request(
    viewer: Any, settle: Settle, step: Step, method: str | None, few: list[str], button: str, some_others: set[str]
) -> None:
    panel = open_workflow(viewer, settle)
    click(panel.buttons[step])
    page = panel.pages[step]
    if method is not None:
        choose_method(page, method)
    settle()
    assert in_sight(page) == few
    [more] = [one for one in page.findChildren(QToolButton) if one.text() == f"▸ {button}"]
    click(more)
    settle()
    assert set(few) | some_others <= set(in_sight(page))
    click(more)
    settle()
    assert in_sight(page) == few
