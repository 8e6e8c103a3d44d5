from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_pbip import samples
from napari_pbip.bank.mosaics import write_masked, write_training
from napari_pbip.config import JobSettings

SIDE = 64


@pytest.fixture(scope="session")
def weak_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small weakly labelled data set of real tissue: two classes, 64-pixel images, val and test with masks."""
    folder = tmp_path_factory.mktemp("weak")
    tiles = {
        name: [np.asarray(Image.open(path).convert("RGB")) for path in sorted((samples.tiles() / name).iterdir())]
        for name in ("LYM", "MUS")
    }
    rng = np.random.default_rng(0)
    write_training(folder, {name: some[:3] for name, some in tiles.items()}, 24, SIDE, rng)
    write_masked(folder, "val", {name: some[3:4] for name, some in tiles.items()}, 4, SIDE, rng)
    write_masked(folder, "test", {name: some[4:] for name, some in tiles.items()}, 6, SIDE, rng)
    return folder


def settings_for(folder: Path, **changes: Any) -> JobSettings:
    """Return settings for a small and quick job; ``changes`` replace whole sections."""
    values: dict[str, Any] = {
        "data": {"folder": folder, "mpp": 0.5},
        "bank": {"encoder": "tiny", "k": 2},
        "method": {"name": "cam"},
        "train": {"epochs": 2, "batch_size": 8, "learning_rate": 5e-4, "precision": "float32", "device": "cpu"},
    }
    for section, value in changes.items():
        values[section] = {**values[section], **value} if section in values else value
    return JobSettings.parse(values)
