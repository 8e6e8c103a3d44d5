"""Make the pictures of docs/tutorials from the running plugin, with tests/gui.

    python tools/tutorial_pictures.py [docs/images]

The bundled skin is shown step by step, and only the maps of the other two bundled slides. Models are trained with the
default settings. It takes about 20 minutes on two cores.

It needs a screen of 1366 x 768; without one, use Xvfb:

    xvfb-run -s "-screen 0 1366x768x24" python tools/tutorial_pictures.py
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import napari
from pictures import save_picture, settle
from qtpy.QtCore import Qt

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from napari_pbip.gui.panels.cohort_table import AREAS, STATE  # noqa: E402
from napari_pbip.gui.sessions import session_of  # noqa: E402
from napari_pbip.gui.state.steps import Step  # noqa: E402
from tests.gui.docks.test_project import shown  # noqa: E402
from tests.gui.qt_helpers import click, open_workflow  # noqa: E402
from tests.gui.reader import Reader  # noqa: E402
from tests.gui.sample_labels import CARCINOMA, SKIN, SPINDLE_CELLS, Lesson  # noqa: E402
from tests.gui.workflow import PAGE, Workflow  # noqa: E402

SIZE = 1366, 768
"""Of the window, that of a laptop."""
MOST = 150_000
"""Bytes of a picture."""


def play(name: str, lesson: Lesson, pictures: dict[str, str], folder: Path) -> None:
    """Run the workflow on a slide; write pictures of the steps in ``pictures``, under their names."""
    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    session = session_of(viewer)

    def shot(step: str) -> None:
        viewer.reset_view()  # docks differ in width
        settle()
        print(name, step, flush=True)
        if step in pictures:
            save_picture(viewer, folder / f"{pictures[step]}.jpg", MOST)

    with tempfile.TemporaryDirectory() as project:
        if lesson.mpp is not None:  # which is saved beside the slide, and must not be in the package
            lesson = replace(lesson, slide=Path(shutil.copy(lesson.slide, project)))
        session.folder = Path(project) / "Documents" / "napari-pbip"  # the pictures show it
        workflow = Workflow(viewer, settle, Reader(PAGE), shot, lesson)
        workflow.start()
        workflow.look()
        workflow.label_tiles()
        workflow.build_bank()
        workflow.train()
        workflow.segment()
        workflow.tune()
        if lesson is SKIN:
            workflow.export(Path(project))
            workflow.project()
        session.close()
        viewer.close()


def play_cohort(folder: Path) -> None:
    """Map the three bundled slides with the model of the sample project; write a picture of their enlarged table."""
    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    session = session_of(viewer)
    with tempfile.TemporaryDirectory() as scratch:
        session.folder = Path(scratch) / "napari-pbip"  # the sample project lies beside it
        panel = open_workflow(viewer, settle)
        viewer.open_sample("napari-pbip", "project")
        settle(lambda: len(session.slides) == 1 and not session.jobs)
        # the microns per pixel that are entered are saved beside the slides, which must not be in the package
        for lesson in (CARCINOMA, SPINDLE_CELLS):
            slide = Path(shutil.copy(lesson.slide, scratch))
            session.slides.open(slide, lesson.mpp)
        panel.show_step(Step.PROJECT)
        project = panel.pages[Step.PROJECT]
        settle(lambda: project.model.currentText() and not session.jobs)
        project.table.selectAll()
        click(project.segment_button)
        settle(lambda: shown(project, STATE) == ["done"] * 3 and not session.jobs, 3600)
        project.table.clearSelection()
        click(project.sheet.button)
        table = project.sheet.window_of_part
        table.resize(table.width(), 260)  # for three rows
        rows = project.table.cohort_model
        italic = Qt.ItemDataRole.FontRole  # of areas that are being counted
        settle(lambda: not session.jobs and not any(rows.index(n, AREAS).data(italic) for n in range(3)))
        settle()
        print("cohort", flush=True)
        save_picture(viewer, folder / "cohort.jpg", MOST, table)
        table.close()
        session.close()
        viewer.close()


def main() -> None:
    """Make all pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    steps = ("slides", "label-tiles", "live-map", "bank", "train", "segment", "tune", "evaluate", "project")
    play("skin", SKIN, {step: step for step in steps}, folder)
    play("carcinoma", CARCINOMA, {"segment": "carcinoma"}, folder)
    play("spindle cells", SPINDLE_CELLS, {"segment": "spindle-cells"}, folder)
    play_cohort(folder)


if __name__ == "__main__":
    main()
