from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from napari_pbip import samples
from napari_pbip.gui.sessions import session_of
from napari_pbip.slides import open_slide
from tests.gui.qt_helpers import Settle
from tests.gui.state.project_process import make_store


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder with two slides, and a project beside them that has a result of one."""
    study = tmp_path / "study"
    (study / "slides").mkdir(parents=True)
    shutil.copy(samples.slide(), study / "slides" / "skin.svs")
    shutil.copy(samples.tumour(), study / "slides" / "tumour.tif")
    result = study / "project" / "results" / "skin"
    result.mkdir(parents=True)
    with open_slide(study / "slides" / "skin.svs") as slide:
        make_store(slide, result / "skin.ome.zarr")
    return study


@pytest.fixture
def session(viewer: Any, settle: Settle, study: Path) -> Any:
    """A project with a slide and its result."""
    session = session_of(viewer)
    session.folder = study / "project"
    session.slides.open(study / "slides" / "skin.svs")
    session.results.open(study / "project" / "results" / "skin" / "skin.ome.zarr")
    settle()
    return session
