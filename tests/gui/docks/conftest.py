from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_pbip import samples
from napari_pbip.bank.mosaics import write_training
from napari_pbip.config import JobSettings
from napari_pbip.engine.training.train import train


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return models of one step; for two a slide has 30 tiles, for a fine one 100, so that it can be stopped."""
    folder = tmp_path_factory.mktemp("runs")
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
    return folder / "models"
