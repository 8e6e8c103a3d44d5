"""Results and tissue masks belong to a slide by its identity rather than by the name of its file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_pbip.config import JobSettings, SegmentSettings
from napari_pbip.engine.training.train import train
from napari_pbip.gui.docks.segment import SegmentWidget
from napari_pbip.gui.docks.slides import SlidesWidget
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.queued_slide import Status
from napari_pbip.results import ScoreStore
from napari_pbip.results.places import stores_in
from napari_pbip.slides import TissueMask, open_slide
from tests.data.formats.make import weak_data
from tests.gui.qt_helpers import click

FORMATS = Path(__file__).parents[1] / "data" / "formats"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    weak_data(folder / "tiles")
    values = {
        "data": {"folder": folder / "tiles", "mpp": 4.0},
        "method": {"name": "cam"},
        "train": {"steps": 1, "batch_size": 4, "precision": "float32", "device": "cpu"},
    }
    list(train(JobSettings.parse(values), folder / "run"))
    return folder / "run"


def slide_file(path: Path, top: int, left: int, seed: int = 0) -> Path:
    """Write a slide of 1600 x 1200 pixels with a square of tissue."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((1200, 1600, 3), 245, np.uint8)
    tissue = np.random.default_rng(seed).normal((230, 150, 190), 10, (500, 500, 3))
    pixels[top : top + 500, left : left + 500] = np.clip(tissue, 0, 255)
    tifffile.imwrite(
        path,
        pixels,
        tile=(256, 256),
        photometric="rgb",
        metadata=None,
        resolution=(20000, 20000),
        resolutionunit="CENTIMETER",
    )
    return path


@pytest.mark.parametrize(
    ("first", "second"),
    [("caseA/slide.tif", "caseB/slide.tif"), ("case/slide.tif", "case/slide.tiff")],
)
def test_slides_of_one_name_are_told_apart(viewer, settle, run, tmp_path, first, second):
    """Each has its own tissue mask and its own result."""
    places = {slide_file(tmp_path / first, 100, 100): (100, 100), slide_file(tmp_path / second, 600, 900): (600, 900)}
    session = session_of(viewer)
    session.change(segment=SegmentSettings(precision="float32", device="cpu", overlap=16, batch_size=2))
    slides, queue = SlidesWidget(viewer), SegmentWidget(viewer)
    viewer.window.add_dock_widget(slides, area="right", name="Slides")
    viewer.window.add_dock_widget(queue, area="right", name="Segment", tabify=True)
    opened = [session.slides.open(path) for path in places]
    viewer.layers.selection.active = opened[0].layer
    settle(lambda: session.current_slide is opened[0])
    slides.show()
    slides.raise_()
    settle()
    click(slides.tissue.button)
    settle(lambda: session.tissue.mask(opened[0]) is not None and not session.jobs)
    assert session.tissue_file(opened[0].slide).exists()
    assert not session.tissue_file(opened[1].slide).exists()
    session.segmenting.add(list(places), run)
    settle(lambda: not any(one.status.active for one in session.segmenting.slides))
    assert [one.sentence for one in session.segmenting.slides] == ["", ""]
    for queued, slide in zip(session.segmenting.slides, opened, strict=True):
        store = ScoreStore.open(queued.store)
        assert store.facts.slide.identity == slide.slide.identity
        height, width = store.tissue.shape
        rows, columns = np.nonzero(store.tissue)
        top, left = places[slide.slide.path]
        assert abs(rows.min() / height * 1200 - top) < 40
        assert abs(columns.min() / width * 1600 - left) < 40
        assert queued.store.parent == session.result_folder(slide.slide)
    assert len(list(session.results_folder.iterdir())) == 2


def test_a_slide_that_was_moved_and_renamed_keeps_its_results(viewer, settle, run, tmp_path):
    path = slide_file(tmp_path / "old disk" / "slide.tif", 100, 100)
    session = session_of(viewer)
    session.change(segment=SegmentSettings(precision="float32", device="cpu", overlap=16, batch_size=2))
    session.segmenting.add([path], run)
    settle(lambda: session.segmenting.slides[0].status is Status.DONE)
    store = session.segmenting.slides[0].store
    before = (store / "0" / "zarr.json").stat().st_mtime_ns
    moved = tmp_path / "new disk" / "Case 7: left.tif"
    moved.parent.mkdir()
    shutil.move(path, moved)
    session.segmenting.add([moved], run)
    settle(lambda: session.segmenting.slides[1].status is Status.DONE)
    assert session.segmenting.slides[1].store == store
    assert (store / "0" / "zarr.json").stat().st_mtime_ns == before  # gone on with, not made again


def test_results_of_a_project_of_before_are_found_if_they_are_of_that_slide(viewer, sample_slide, tmp_path):
    """Version 0.1.0 named the folder of a result by the slide alone."""
    session = session_of(viewer)
    shutil.copytree(FORMATS / "project", session.folder)
    earlier = session.results_folder / "CMU-1-Small-Region"
    with open_slide(sample_slide) as slide:
        assert session.result_folder(slide) == earlier
        assert TissueMask.read(session.tissue_file(slide), slide).array.any()
        assert list(stores_in(earlier).values()) == [slide.identity]
    with open_slide(slide_file(tmp_path / "CMU-1-Small-Region.tif", 0, 0)) as other:
        assert session.result_folder(other) != earlier
        assert not session.tissue_file(other).exists()


def test_names_that_other_systems_cannot_hold(viewer, tmp_path):
    session = session_of(viewer)
    for name in ("CON.tif", "a:b?.tif", "dot..tif", "n" * 240 + ".tif"):
        with open_slide(slide_file(tmp_path / name, 0, 0)) as slide:
            folder = session.result_folder(slide)
        assert folder.parent == session.results_folder
        assert not set(folder.name) & set('<>:"/\\|?*')
        assert len(folder.name) < 100
