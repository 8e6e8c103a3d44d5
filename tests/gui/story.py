"""Sittings at docs/tutorials/one-slide.md, each in a process of its own, in another language and on another screen.

``python -m tests.gui.story begin|go_on|look STUDY LOCALE WIDTH HEIGHT STEPS`` goes on after so many numbered steps of
the page, and prints what was found when the project was opened, what is left in it, and what was read.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.gui.reader import Reader
from tests.gui.sitting import sit


def state(workflow: Any) -> dict[str, Any]:
    """Return what the window has of the project, after a look at the pages that read it from disk."""
    from napari_pbip.gui.state.steps import Step

    for step in (Step.LABEL_TILES, Step.BANK, Step.TRAIN, Step.SLIDES):
        workflow.page(step)
    session = workflow.session
    workflow.settle(lambda: session.bank.bank is not None and session.training.models and not session.jobs)
    labels = session.labelling.labels.snapshot()
    return {
        "folder": str(session.folder),
        "slides": [[layer.slide.path.name, layer.slide.mpp] for layer in session.slides],
        "tissue": [session.tissue.mask(layer).area_mm2 for layer in session.slides],
        "classes": [[tissue.name, tissue.colour] for tissue in labels.taxonomy],
        "labels": [sorted([*place, *sorted(given)] for place, given in placed.items()) for placed in labels.tiles],
        "tiles": sorted(file.name for file in session.tiles_folder.rglob("*.png")),
        "bank": sorted([tile.hash, tile.subclass] for tile in session.bank.bank.tiles),
        "models": {name: [facts.steps, facts.finished] for name, facts in session.training.models.items()},
        "results": [[result.store.path.name, result.thresholds.model_dump()] for result in session.results],
        "settings": session.settings.model_dump(mode="json"),
        "done": sorted(step.value for step in session.steps.done),
        "problem": str(session.project.problem),
        "faults": session.project.faults,
    }


def begin(workflow: Any, study: Path) -> dict[str, Any]:
    """Begin a project and train a model."""
    workflow.session.folder = study / "project"
    workflow.start()
    workflow.look()
    workflow.label_tiles()
    workflow.build_bank()
    workflow.train(epochs=1)
    return {}


def go_on(workflow: Any, study: Path) -> dict[str, Any]:
    """Open it again, and map the slide."""
    from napari_pbip.gui.compat import camera_of
    from napari_pbip.gui.state.steps import Step

    workflow.open_again()
    found = state(workflow)
    camera_of(workflow.viewer).zoom *= 3  # the tiles in view come first
    workflow.segment()
    workflow.tune()
    workflow.export(study)
    workflow.project()
    workflow.page(Step.SLIDES)
    return found


def look(workflow: Any, study: Path) -> dict[str, Any]:
    """Open it once more, and look at every page."""
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QAbstractButton, QGroupBox, QLabel, QTabBar

    from napari_pbip.gui.panels.cluster_view import PICTURE
    from napari_pbip.gui.state.steps import Step
    from napari_pbip.gui.widgets.scroll_column import ScrollColumn
    from tests.gui.napari_privates import layer_controls
    from tests.gui.qt_helpers import click

    panel, reader = workflow.panel, workflow.reader
    workflow.step("Close the window")
    workflow.step("Start napari")
    workflow.open_again()
    found = state(workflow)
    layer_controls(workflow.viewer).hide()  # which alone are almost as tall as this
    workflow.settle()
    workflow.resize(910, 512)  # a screen of 1366 x 768 pixels
    for step in Step:
        workflow.page(step)
        columns = [one for one in panel.findChildren(ScrollColumn) if one.isVisible()]
        workflow.settle(lambda columns=columns: not any(one.horizontalScrollBar().maximum() for one in columns))
        workflow.settle(lambda: not workflow.session.jobs)
    # pictures have as many pixels as the screen
    clusters, table = panel.pages[Step.BANK].clusters.clusters, panel.pages[Step.PROJECT].table.cohort_model
    workflow.settle(lambda: all(entry.row.result is not None for entry in table.entries) and not workflow.session.jobs)
    pictures = [label.pixmap() for label in panel.findChildren(QLabel)]
    pictures.append(clusters.data(clusters.index(1, 0), PICTURE))
    pictures += [table.data(table.index(0, column), Qt.ItemDataRole.DecorationRole) for column in (0, 1)]
    assert all(isinstance(picture, type(pictures[0])) for picture in pictures)
    ratios = [picture.devicePixelRatio() for picture in pictures if not picture.isNull()]
    assert len(ratios) > 5
    assert set(ratios) == {panel.devicePixelRatioF()}
    # what the page says of the other controls, also of those that are folded
    click(workflow.page(Step.TRAIN).form.others_button)
    workflow.settle()
    texts = {one.text().strip(" ✓▾▸") for kind in (QAbstractButton, QLabel) for one in panel.findChildren(kind)}
    texts |= {box.title() for box in panel.findChildren(QGroupBox)}
    texts |= {bar.tabText(n) for bar in panel.findChildren(QTabBar) for n in range(bar.count())}
    reader.read |= reader.names & texts
    return found


def main(what: str, study: Path, locale: str, size: tuple[int, int], steps: int) -> None:
    def work(viewer: Any, settle: Callable[..., None]) -> dict[str, Any]:
        from tests.gui.workflow import PAGE, Workflow

        workflow = Workflow(viewer, settle, Reader(PAGE, steps))
        workflow.resize(*size)
        found = {"begin": begin, "go_on": go_on, "look": look}[what](workflow, study)
        reader = workflow.reader
        return {"found": found, "left": state(workflow), "read": sorted(reader.read), "steps": reader.steps_done}

    sit(work, study, locale, size)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], (int(sys.argv[4]), int(sys.argv[5])), int(sys.argv[6]))
