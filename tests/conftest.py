"""Real slides, and an artificial one that is too large for memory, for all tests."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores; to be said before torch is loaded
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import zarr
from filelock import FileLock
from hypothesis import settings
from PIL import Image

from napari_pbip import samples
from napari_pbip.bank.mosaics import write_masked, write_training
from napari_pbip.slides import open_slide

if TYPE_CHECKING:
    from tests.hub import Hub

# what the program remembers for its user, here and in processes that tests start, is not that of whoever runs them
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="napari-pbip-data-")
atexit.register(shutil.rmtree, os.environ["XDG_DATA_HOME"], ignore_errors=True)
# the same of napari's settings, which are kept in no file: writing them takes a fifth of the time of a new window
os.environ["NAPARI_CONFIG"] = ""


def pytest_xdist_auto_num_workers() -> int:
    """Return one worker more than cores, because tests of the window wait for timers much of the time."""
    return (os.cpu_count() or 1) + 1


# The same examples in every run, so that a failure is of the change; --hypothesis-profile=default draws new ones.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


MadeOnce = Callable[[str, Callable[[Path], object]], Path]
"""The fixture ``made_once``."""

WEAK_SIDE = 64
"""Side of the images of ``weak_data`` in pixels."""


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Give the name of a folder, and a function that fills it; the first worker that asks does, for all.

    The folder must not be changed afterwards.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def folder(name: str, fill: Callable[[Path], object]) -> Path:
        folder, made = root / name, root / f"{name}.made"
        with FileLock(root / f"{name}.lock"):
            if not made.exists():
                folder.mkdir()
                fill(folder)
                made.touch()
        return folder

    return folder


@pytest.fixture(scope="session")
def sample_slide() -> Path:
    """Aperio SVS, 2220 x 2967 pixels at 0.499 microns, one level, with label, macro and thumbnail (CC0)."""
    return samples.slide()


@pytest.fixture(scope="session")
def sample_pixels(sample_slide: Path) -> np.ndarray:
    """Level 0 of the sample slide, shape (2967, 2220, 3)."""
    with open_slide(sample_slide) as slide:
        return slide.read_level(0, 0, 0, slide.width, slide.height)


@pytest.fixture(scope="session")
def dicom_folder() -> Path:
    """The sample slide as a DICOM whole-slide instance of four files (CC0, OpenSlide test data)."""
    return Path(__file__).parent / "data" / "dicom_CMU-1-Small-Region"


@pytest.fixture(scope="session")
def huge_slide(made_once: MadeOnce, sample_pixels: np.ndarray) -> Path:
    """OME-Zarr 0.4 of 100,000 x 100,000 pixels at 0.499 microns: glass, and four pieces of real tissue.

    Chunks of glass are never written (fill value 255), so it takes a few MB on disk.
    """
    return made_once("huge", lambda folder: _write_huge(folder / "huge.ome.zarr", sample_pixels)) / "huge.ome.zarr"


def _write_huge(path: Path, pixels: np.ndarray) -> None:
    group = zarr.open_group(path, mode="w", zarr_format=2)
    corners = [(1024, 1024), (50176, 20480), (96256, 96256), (20480, 70656)]
    levels = {0: 1, 1: 4, 2: 16}
    for number, downsample in levels.items():
        side = 100_000 // downsample
        array = group.create_array(
            str(number), shape=(side, side, 3), chunks=(1024, 1024, 3), dtype="uint8", fill_value=255
        )
        piece = pixels[: 2048 // downsample * downsample, : 2048 // downsample * downsample]
        small = piece.reshape(2048 // downsample, downsample, 2048 // downsample, downsample, 3).mean((1, 3))
        for x, y in corners:
            x0, y0 = x // downsample, y // downsample
            array[y0 : y0 + len(small), x0 : x0 + len(small)] = small.round().astype(np.uint8)
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "axes": [
                {"name": "y", "type": "space", "unit": "micrometer"},
                {"name": "x", "type": "space", "unit": "micrometer"},
                {"name": "c", "type": "channel"},
            ],
            "datasets": [
                {
                    "path": str(number),
                    "coordinateTransformations": [{"type": "scale", "scale": [0.499 * d, 0.499 * d, 1.0]}],
                }
                for number, d in levels.items()
            ],
        }
    ]


@pytest.fixture(scope="session")
def weak_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small weakly labelled data set of real tissue: two classes, 64-pixel images, val and test with masks."""
    folder = tmp_path_factory.mktemp("weak")
    tiles = {
        name: [np.asarray(Image.open(path).convert("RGB")) for path in sorted((samples.tiles() / name).iterdir())]
        for name in ("LYM", "MUS")
    }
    rng = np.random.default_rng(0)
    write_training(folder, {name: some[:3] for name, some in tiles.items()}, 24, WEAK_SIDE, rng)
    write_masked(folder, "val", {name: some[3:4] for name, some in tiles.items()}, 4, WEAK_SIDE, rng)
    write_masked(folder, "test", {name: some[4:] for name, some in tiles.items()}, 6, WEAK_SIDE, rng)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Return a local hub with which the library speaks."""
    from tests.hub import serving  # not for tests that need no torch

    with serving(tmp_path, monkeypatch) as found:
        yield found
