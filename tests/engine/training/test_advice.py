"""Which of PBIP and the linear probe is recommended, and what a training says about it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_pbip import samples
from napari_pbip.bank import TileSet, load_tiles
from napari_pbip.config import JobSettings
from napari_pbip.engine.run_facts import RunFacts
from napari_pbip.engine.training.advice import ENOUGH, FEW, advise
from napari_pbip.engine.training.schedule import planned_steps
from napari_pbip.engine.training.train import train
from napari_pbip.events import Noted
from tests.engine.conftest import settings_for

STEPS = 200
SIDE = 64


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write twelve crops of real tissue for each of two classes, a folder for each."""
    folder = tmp_path_factory.mktemp("crops")
    for name in ("LYM", "MUS"):
        (folder / name).mkdir()
        for i in range(12):
            tile = np.asarray(Image.open(sorted((samples.tiles() / name).iterdir())[i % 4]).convert("RGB"))
            y, x = SIDE * (i // 4), SIDE * (i % 3)
            Image.fromarray(tile[y : y + SIDE, x : x + SIDE]).save(folder / name / f"{i:02}.png")
    return folder


def few(tiles: TileSet, class_index: int, count: int) -> TileSet:
    """Return the tiles with only some of one class."""
    own = [tile for tile in tiles if tile.class_index == class_index][:count]
    return replace(tiles, tiles=tuple(tile for tile in tiles if tile.class_index != class_index or tile in own))


def test_it_depends_on_the_class_with_the_fewest_tiles(crops: Path) -> None:
    settings, tiles = settings_for(crops), load_tiles(crops, "train")
    enough = advise(settings, few(tiles, 1, ENOUGH), STEPS, SIDE)
    assert enough is not None
    assert enough.method == "pbip"
    too_few = advise(settings, few(tiles, 1, ENOUGH - 1), STEPS, SIDE)
    assert too_few is not None
    assert too_few.method == "probe"
    assert f"Only {ENOUGH - 1} tiles show MUS alone" in too_few.sentences
    assert advise(settings, few(tiles, 1, 0), STEPS, SIDE) is None


def test_it_tells_whether_a_probe_has_a_share(crops: Path) -> None:
    tiles = load_tiles(crops, "train")
    many = replace(tiles, tiles=tiles.tiles * 3)

    def told(shown: TileSet, **method: object) -> bool:
        settings = settings_for(crops, method={"name": "pbip", **method}, bank={"encoder": "efficientnet-lite0"})
        found = advise(settings, shown, STEPS, SIDE)
        assert found is not None
        return "Its map is averaged with that of a linear probe" in found.sentences

    assert min(tiles.alone) < FEW <= min(many.alone)
    assert told(tiles)
    assert not told(tiles, probe_share=0)
    assert not told(tiles, synthesis=0)
    assert not told(many)
    assert told(many, probe_share=0.5)


def minutes(settings: JobSettings, tiles: TileSet, steps: int, *earlier: RunFacts) -> int:
    """Return the minutes that PBIP is said to take."""
    found = advise(settings, tiles, steps, SIDE, earlier)
    assert found is not None
    told = re.search(r"about (\d+) minutes", found.sentences)
    assert told is not None, found.sentences
    return int(told[1])


def test_its_time_follows_the_work_and_earlier_trainings(crops: Path) -> None:
    tiles = load_tiles(crops, "train")
    usual = JobSettings.parse({"data": {"folder": crops}})
    assert minutes(usual, tiles, 40 * STEPS) == pytest.approx(2 * minutes(usual, tiles, 20 * STEPS), rel=0.1)
    without = JobSettings.parse({"data": {"folder": crops}, "method": {"name": "pbip", "synthesis": 0}})
    assert minutes(usual, tiles, 40 * STEPS) > minutes(without, tiles, 40 * STEPS)
    took = RunFacts(usual, tiles.taxonomy, tile_size=SIDE, steps=STEPS, step=STEPS, seconds=600.0)
    assert minutes(usual, tiles, 2 * STEPS, took) == 20
    bundled = replace(took, seconds=0.0)  # its time is not known
    assert minutes(usual, tiles, 2 * STEPS, took, bundled) == 20
    other = JobSettings.parse({"data": {"folder": crops}, "method": {"name": "cam"}})
    of_cam = RunFacts(other, tiles.taxonomy, tile_size=SIDE, steps=STEPS, step=STEPS, seconds=6.0)
    assert minutes(usual, tiles, 2 * STEPS, took, of_cam) == 20
    large = JobSettings.parse({"data": {"folder": crops}, "backbone": {"name": "mit-b5"}})
    of_large = advise(large, tiles, STEPS, SIDE)
    assert of_large is not None
    assert "large network" in of_large.sentences


@pytest.mark.parametrize(("method", "says"), [("probe", True), ("cam", False)])
def test_a_training_of_either_method_says_it_first(crops: Path, tmp_path: Path, method: str, says: bool) -> None:
    settings = settings_for(crops, method={"name": method}, bank={"encoder": "efficientnet-lite0"}, train={"steps": 1})
    notes = [event.message for event in train(settings, tmp_path / "run") if isinstance(event, Noted)]
    tiles = load_tiles(crops, "train")
    found = advise(settings, tiles, planned_steps(settings.train, len(tiles)), SIDE)
    assert found is not None
    assert (found.sentences in notes) is says
