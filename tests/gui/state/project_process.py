"""A sitting of its own at a project, by mouse and keys.

``python -m tests.gui.state.project_process work|look|queue|resume STUDY LOCALE`` prints what is in the window as JSON:
``work`` does something and ends, and ``look`` opens it again; ``queue`` ends while slides are being segmented, and
``resume`` goes on with them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.gui.sitting import sit

SHAPE = (186, 139)
"""The sample slide in cells of the small stores."""


def make_store(slide: Any, path: Path, model: str = "run", seed: int = 0) -> None:
    """Write a store of scores of the sample slide."""
    from tests.results import stores

    about = stores.facts(SHAPE)["slide"] | {
        "name": slide.name,
        "path": str(slide.path),
        "identity": slide.identity,
        "width": slide.width,
        "height": slide.height,
        "mpp": slide.mpp,
    }
    store = stores.create(path, SHAPE, slide=about, model={"run": model, "hash": f"weights {seed}"})
    stores.segment(store, stores.network(stores.smooth_field(SHAPE, seed=seed)))


def work(viewer: Any, study: Path, settle: Callable[..., None]) -> None:
    """Begin a project with two slides; give microns per pixel, tune a result, and choose settings of the training."""
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    from napari_pbip.gui.compat import camera_of
    from napari_pbip.gui.sessions import session_of
    from napari_pbip.gui.state.steps import Step
    from tests.gui.qt_helpers import choose_colour, click, open_slides, open_workflow, type_text

    session = session_of(viewer)
    _, slides = viewer.window.add_plugin_dock_widget("napari-pbip", "1 Slides")
    slides.project.choose_folder(study / "project")
    open_slides(viewer, slides, settle, study / "slides" / "tumour.tif", study / "slides" / "skin.svs")
    skin, tumour = session.slides.of_path(study / "slides" / "skin.svs"), session.slides[0]
    session.slides.show(tumour)
    settle()
    type_text(slides.mpp.value.lineEdit(), "0,25" if slides.locale().decimalPoint() == "," else "0.25")
    click(slides.mpp.button)
    assert tumour.slide.mpp == 0.25
    session.slides.show(skin)
    session.results.open(study / "project" / "results" / "skin" / "skin.ome.zarr")
    _, tune = viewer.window.add_plugin_dock_widget("napari-pbip", "6 Tune")
    settle()
    QTest.keyClick(tune.controls.delta.slider, Qt.Key.Key_PageUp)
    QTest.keyClick(tune.controls.rows[1].slider.slider, Qt.Key.Key_PageUp)
    eye = tune.legend.rows[2].eye
    QTest.mouseClick(eye, Qt.MouseButton.LeftButton, pos=QPoint(5, eye.height() // 2))
    QTest.keyClick(tune.controls.opacity.slider, Qt.Key.Key_PageUp)
    click(tune.save_button)
    settle(lambda: Step.TUNE in session.steps.done)
    session.change(train=session.settings.train.model_copy(update={"epochs": 3}))
    choose_colour(tune.legend.rows[1].swatch, "#123456")
    settle()
    panel = open_workflow(viewer, settle)
    panel.show_step(Step.PROJECT)
    project = panel.pages[Step.PROJECT]
    settle(lambda: "TUM percent" in project.table.cohort_model.columns)
    header = project.table.horizontalHeader()
    column = project.table.cohort_model.columns.index("TUM percent")
    header.setSortIndicator(column, Qt.SortOrder.DescendingOrder)  # it may be out of sight, so that it is not clicked
    type_text(project.search, "skin")
    camera = camera_of(viewer)
    camera.zoom, camera.center = 3 * camera.zoom, (300.0, 400.0)


def look(viewer: Any, study: Path, settle: Callable[..., None]) -> None:
    """Accept the project that is offered."""
    from napari_pbip.gui.sessions import session_of
    from napari_pbip.gui.state.steps import Step
    from tests.gui.qt_helpers import click, open_workflow

    session = session_of(viewer)
    assert not len(session.slides)
    _, slides = viewer.window.add_plugin_dock_widget("napari-pbip", "1 Slides")
    settle()
    assert slides.project.offer.text().endswith("Last time you worked in the project project.")
    click(slides.project.offer_button)
    settle(lambda: len(session.results) == 1 and not session.project.opening)
    assert not slides.project.offer_button.isVisible()
    viewer.window.add_plugin_dock_widget("napari-pbip", "6 Tune")
    settle()
    panel = open_workflow(viewer, settle)
    project = panel.pages[Step.PROJECT]
    settle(lambda: "TUM percent" in project.table.cohort_model.columns)
    settle()


def queue(viewer: Any, study: Path, settle: Callable[..., None]) -> dict[str, Any]:
    """Have three slides segmented, and end when the first one is under way."""
    from napari_pbip.config import SegmentSettings
    from napari_pbip.gui.sessions import session_of

    session = session_of(viewer)
    session.folder = study / "project"
    session.change(segment=SegmentSettings(precision="float32", device="cpu", overlap=16, batch_size=2))
    job = session.project.add([study / "slides"])
    settle(lambda: job.state.ended)
    for name in ("tumour.tif", "second.tif"):
        session.project.give_mpp(study / "slides" / name, 0.5)
    _, segment = viewer.window.add_plugin_dock_widget("napari-pbip", "5 Segment")
    settle(lambda: segment.model.count() == 3)
    segment.choose_model(session.models_folder / "fine")
    session.slides.open(study / "slides" / "skin.svs")
    segment.take([study / "slides" / name for name in ("skin.svs", "tumour.tif", "second.tif")])
    segment.choose_model(session.models_folder / "first")  # for the next ones
    session.change(segment=SegmentSettings())
    settle(lambda: session.segmenting.slides[0].done > 20)
    return {"states": [slide.status.value for slide in session.segmenting.slides]}


def resume(viewer: Any, study: Path, settle: Callable[..., None]) -> dict[str, Any]:
    """Open the project, take one slide off the queue, and resume the others."""
    from napari_pbip.gui.panels.cohort_table import STATE
    from napari_pbip.gui.sessions import session_of
    from tests.gui.qt_helpers import click

    session = session_of(viewer)
    _, project = viewer.window.add_plugin_dock_widget("napari-pbip", "Project")
    settle()
    click(project.project.offer_button)
    settle(lambda: not session.project.opening and all(entry.known for entry in session.cohort.entries()))
    settle()
    model = project.table.cohort_model
    found: dict[str, Any] = {
        "table": {model.path(row).name: model.data(model.index(row, STATE)) for row in range(model.rowCount())},
        "said": project.project.waiting.text(),
        "begun": session.segmenting.running is not None,
    }
    _, segment = viewer.window.add_plugin_dock_widget("napari-pbip", "5 Segment")
    settle()
    found["rows"] = [row.text.text() for row in segment.queue.rows]
    click(next(row for row in segment.queue.rows if row.slide.path.name == "second.tif").remove_button)
    project.parent().raise_()
    settle()
    first = session.segmenting.slides[0]
    began: list[int] = []
    session.segmenting.updated.connect(lambda one: began.append(one.done) if one is first and one.total else None)
    click(project.project.resume_button)
    settle(lambda: not any(slide.status.active for slide in session.segmenting.slides), 180)
    settle(lambda: not session.jobs)
    return found | {
        "began": began[0],
        "states": [slide.status.value for slide in session.segmenting.slides],
        "models": [slide.run.name for slide in session.segmenting.slides],
        "still said": project.project.waiting.isVisible(),
        "stores": [str(slide.store) for slide in session.segmenting.slides],
    }


def state(viewer: Any, study: Path) -> dict[str, Any]:
    """Return what the window shows of a project."""
    import numpy as np
    from qtpy.QtCore import Qt

    from napari_pbip.gui.compat import camera_of
    from napari_pbip.gui.sessions import session_of
    from napari_pbip.gui.state.steps import Step
    from napari_pbip.gui.workflow_panel import WorkflowPanel

    session = session_of(viewer)
    result = session.results.current
    camera = camera_of(viewer)
    panel = next(dock for dock in viewer.window._qt_window.findChildren(WorkflowPanel) if dock.isVisible())
    table = panel.pages[Step.PROJECT].table
    header, shown = table.horizontalHeader(), table.model()
    return {
        "folder": str(session.folder),
        "slides": [[slide.slide.path.name, slide.slide.mpp, slide.slide.mpp_is_given] for slide in session.slides],
        "listed": [slide.path.name for slide in session.project.slides],
        "current": session.current_slide.slide.path.name,
        "visible": sorted(layer.name for layer in viewer.layers if layer.visible),
        "result": str(result.store.path),
        "thresholds": {str(one.store.path): one.thresholds.model_dump() for one in session.results},
        "hidden": sorted(result.display.hidden),
        "opacity": result.layer.opacity,
        "settings": session.settings.model_dump(mode="json"),
        "problem": str(session.project.problem),
        "faults": session.project.faults,
        "camera": [*np.round(camera.center[-2:], 6), round(camera.zoom, 6)],
        "step": session.steps.shown.value,
        "tuned": Step.TUNE in session.steps.done,
        "sorted": [
            shown.headerData(header.sortIndicatorSection(), Qt.Orientation.Horizontal),
            header.sortIndicatorOrder().name,
        ],
        "rows": [table.path(shown.index(row, 0)).name for row in range(shown.rowCount())],
        "colours": [result.taxonomy.classes[0].colour, *np.round(result.layer.colormap.color_dict[1] * 255).tolist()],
    }


def main(what: str, study: Path, locale: str) -> None:
    def do(viewer: Any, settle: Callable[..., None]) -> dict[str, Any]:
        done = {"work": work, "look": look, "queue": queue, "resume": resume}[what](viewer, study, settle)
        return done or state(viewer, study)

    sit(do, study, locale)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
