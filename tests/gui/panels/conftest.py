"""The map of the sample slide, in a viewer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from napari_pbip import samples
from napari_pbip.bank.labelled_slides import LabelledSlides
from napari_pbip.config import SegmentSettings, ThresholdSettings
from napari_pbip.engine.banks.cut_tiles import cut_tiles
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.training.train import train
from tests.conftest import MadeOnce
from tests.engine.conftest import settings_for
from tests.gui.panels.map_bench import Bench
from tests.gui.sample_labels import SKIN


@pytest.fixture(scope="session")
def mapped(made_once: MadeOnce) -> Path:
    """Return the map of the bundled slide by a linear probe, and its tiles beside it; it must not be changed."""
    return next((made_once("mapped", _map_slide) / "result").glob("*.ome.zarr"))


def _map_slide(folder: Path) -> None:
    labelled = LabelledSlides.read(samples.project())
    assert labelled is not None
    (slide,) = labelled.slides
    here = LabelledSlides(
        labelled.taxonomy,
        labelled.size,
        (slide.model_copy(update={"path": samples.slide()}),),
        labelled.tiles,
    )
    list(cut_tiles(here, folder / "tiles"))
    settings = settings_for(
        folder / "tiles", data={"mpp": SKIN.size.mpp}, method={"name": "probe"}, bank={"encoder": "efficientnet-lite0"}
    )
    list(train(settings, folder / "run"))
    quick = SegmentSettings(precision="float32", device="cpu", overlap=16, batch_size=8)
    list(segment(samples.slide(), folder / "run", folder / "result", quick, ThresholdSettings()))


@pytest.fixture
def path(mapped: Path, tmp_path: Path) -> Path:
    return shutil.copytree(mapped, tmp_path / "result" / mapped.name)


@pytest.fixture
def bench(viewer: Any, settle: Any, path: Path) -> Bench:
    return Bench(viewer, settle, path)
