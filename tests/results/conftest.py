"""A finished store for all tests of this folder."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that tests and their processes alike import stores

from stores import create, facts, network, segment, smooth_field

from napari_pbip.config import ThresholdSettings
from napari_pbip.results import ScoreStore, write_labels


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished store of 700 x 900 cells, partly tissue, a third left out; it must not be changed."""
    path = tmp_path_factory.mktemp("store") / "slide.ome.zarr"
    shape = (700, 900)
    grid = facts(shape)["grid"]
    planned = np.random.default_rng(3).random((grid["rows"], grid["columns"])) > 0.3
    tissue = np.random.default_rng(4).random((70, 90)) > 0.2
    store = create(path, shape, planned, tissue)
    segment(store, network(smooth_field(shape)))
    return path


@pytest.fixture
def labelled(tmp_path: Path, finished: Path) -> ScoreStore:
    """Return a copy of the finished store with labels, which may be changed."""
    path = tmp_path / "slide.ome.zarr"
    shutil.copytree(finished, path)
    store = ScoreStore.open(path)
    write_labels(store, ThresholdSettings())
    return store
