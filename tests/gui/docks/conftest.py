from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_pbip import samples
from napari_pbip.bank.mosaics import write_training
from napari_pbip.config import JobSettings
from napari_pbip.engine.training.train import train
from napari_pbip.gui.docks.project import ProjectWidget
from napari_pbip.gui.sessions import session_of
from tests.conftest import MadeOnce
from tests.gui.qt_helpers import Settle


@pytest.fixture(scope="session")
def runs(made_once: MadeOnce) -> Path:
    """Return models of one step; for two a slide has 30 tiles, for a fine one 100, so that it can be stopped."""
    return made_once("runs", _train_models) / "models"


def _train_models(folder: Path) -> None:
    tiles = {
        name: [np.asarray(Image.open(path).convert("RGB")) for path in sorted((samples.tiles() / name).iterdir())[:3]]
        for name in ("LYM", "MUS")
    }
    write_training(folder / "tiles", tiles, 12, 64, np.random.default_rng(0))
    for seed, (name, mpp) in enumerate({"first": 4.0, "second": 4.0, "fine": 2.0}.items()):
        settings = JobSettings.parse(
            {
                "data": {"folder": folder / "tiles", "mpp": mpp},
                "method": {"name": "cam"},
                "train": {"steps": 1, "batch_size": 4, "precision": "float32", "device": "cpu", "seed": seed},
            }
        )
        list(train(settings, folder / "models" / name))


@pytest.fixture
def widget(viewer: Any, settle: Settle) -> ProjectWidget:
    """The dock *Project* of a project that is empty; files about other docks have a fixture with this name."""
    session_of(viewer).folder.mkdir()
    widget = ProjectWidget(viewer)
    viewer.window.add_dock_widget(widget, area="bottom")
    settle()
    return widget
