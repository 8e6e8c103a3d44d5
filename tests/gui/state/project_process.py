"""A sitting of its own at a project, by mouse and keys: ``work`` does something and ends, ``look`` opens it again.

``python -m tests.gui.state.project_process work|look STUDY LOCALE`` prints what is in the window as JSON.
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

    from napari_pbip.gui.sessions import session_of
    from tests.gui.qt_helpers import click, open_slides, type_text

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
    session.change(train=session.settings.train.model_copy(update={"epochs": 3}))


def look(viewer: Any, study: Path, settle: Callable[..., None]) -> None:
    """Accept the project that is offered."""
    from napari_pbip.gui.sessions import session_of
    from tests.gui.qt_helpers import click

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


def state(viewer: Any, study: Path) -> dict[str, Any]:
    """Return what the window shows of a project."""
    from napari_pbip.gui.sessions import session_of

    session = session_of(viewer)
    [result] = session.results
    return {
        "folder": str(session.folder),
        "slides": [[slide.slide.path.name, slide.slide.mpp, slide.slide.mpp_is_given] for slide in session.slides],
        "listed": [slide.path.name for slide in session.project.slides],
        "current": session.current_slide.slide.path.name,
        "visible": sorted(layer.name for layer in viewer.layers if layer.visible),
        "result": session.results.current is result,
        "thresholds": result.thresholds.model_dump(),
        "hidden": sorted(result.display.hidden),
        "opacity": result.layer.opacity,
        "settings": session.settings.model_dump(mode="json"),
        "problem": str(session.project.problem),
        "faults": session.project.faults,
    }


def main(what: str, study: Path, locale: str) -> None:
    def do(viewer: Any, settle: Callable[..., None]) -> dict[str, Any]:
        {"work": work, "look": look}[what](viewer, study, settle)
        return state(viewer, study)

    sit(do, study, locale)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
