"""Sample data in napari's *File* menu.

napari demands layers of a sample, so that slides are opened at once here, on the main thread, and not by the session in
a thread. They lie beside the modules of this package, and their headers are small.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import napari
from napari.utils.notifications import show_error

from napari_pbip import samples
from napari_pbip.engine.run_facts import MARKER, RunFacts
from napari_pbip.engine.sample_project import sample_project
from napari_pbip.errors import ModelError
from napari_pbip.gui.announcing import announce
from napari_pbip.gui.jobs import RunningJob, State
from napari_pbip.gui.layers.slides import layer_data
from napari_pbip.gui.sessions import begin_session, session_of
from napari_pbip.gui.state.session import Session
from napari_pbip.project import BANK, MODELS, TILES
from napari_pbip.slides import open_slide

LayerData = tuple[Any, dict[str, Any], str]
PROJECT, MODEL = "napari-pbip sample", "skin"


def slide() -> list[LayerData]:
    """Return the bundled slide as a layer: skin, H&E, 1.1 x 1.5 mm (OpenSlide test data, CC0)."""
    return _layers(samples.slide())


def frozen_section() -> list[LayerData]:
    """Return a frozen section of squamous cell carcinoma, without microns per pixel, as a layer (TCGA, open access)."""
    return _layers(samples.frozen_section())


def tumour() -> list[LayerData]:
    """Return a section of a tumour, without microns per pixel, as a layer (CPTAC, CC BY 4.0)."""
    return _layers(samples.tumour())


def project() -> list[LayerData]:
    """Return the bundled slide as a layer, and open a project with labelled tiles, an image bank and a model of it.

    The project is unpacked beside the present one, which is not changed. If it exists already, it opens as it was left.
    """
    viewer = napari.current_viewer()
    if viewer is not None:
        _open_project(session_of(viewer))
    return slide()


def _layers(path: Path) -> list[LayerData]:
    begin_session()
    return [layer_data(open_slide(path))]


def _open_project(session: Session) -> None:
    folder = session.folder.with_name(PROJECT)
    run = folder / MODELS / MODEL
    if (run / MARKER).exists():
        _use(session, folder)
        return
    foreign = all(one.path != samples.slide() for one in session.project.slides)
    job = session.start(lambda: sample_project(folder / TILES, folder / BANK, run))
    job.ended.connect(lambda state: _unpacked(session, folder, job, state, foreign))


def _unpacked(session: Session, folder: Path, job: RunningJob, state: State, foreign: bool) -> None:
    if state is State.FINISHED:
        if foreign:  # the layer that napari has added meanwhile is none of the present project
            session.project.remove([samples.slide()])
        _use(session, folder)
        session.opening.slide(samples.slide())
    elif job.error is not None:
        show_error(str(job.error))


def _use(session: Session, folder: Path) -> None:
    try:
        data = RunFacts.read(folder / MODELS / MODEL).settings.data
    except ModelError as error:
        announce(error)
        return
    session.folder = folder
    session.change(data=data, bank_folder=None)
