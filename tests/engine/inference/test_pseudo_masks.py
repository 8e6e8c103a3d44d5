"""Pseudo masks are read as tiles with masks, and are the same after a stop and without one."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from PIL import Image

from napari_pbip.bank import find_splits, load_tiles
from napari_pbip.config import DataSettings
from napari_pbip.engine.inference.predict import ImageMaps, label_with_margin
from napari_pbip.engine.inference.pseudo_masks import pseudo_masks
from napari_pbip.engine.training.train import train
from napari_pbip.errors import ConfigError, ModelError, OutputError
from napari_pbip.events import Finished, Noted, Step
from tests.conftest import WEAK_SIDE as SIDE
from tests.engine.conftest import settings_for


@pytest.fixture(scope="module")
def run(weak_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that was trained on image-level labels for a few steps."""
    folder = tmp_path_factory.mktemp("first")
    list(train(settings_for(weak_data, train={"steps": 6}), folder / "run"))
    return folder / "run"


@pytest.fixture(scope="module")
def pseudo(run: Path, weak_data: Path) -> Path:
    out = run.parent / "pseudo"
    *_, last = pseudo_masks(run, DataSettings(folder=weak_data), out)
    assert isinstance(last, Finished)
    assert last.summary["tiles"] == 24
    assert sum(last.summary["percent"].values()) + last.summary["not_assigned"] == pytest.approx(100)
    assert last.summary["not_assigned"] == 0
    return out


def test_they_are_a_data_set_of_tiles_with_masks(pseudo: Path, weak_data: Path) -> None:
    before, after = load_tiles(weak_data), load_tiles(pseudo)
    assert find_splits(pseudo, DataSettings()) == ("train", "val", "test")
    assert after.taxonomy == before.taxonomy
    assert not after.warnings
    for old, new in zip(before, after, strict=True):
        assert new.path.samefile(old.path)
        assert new.labels == old.labels
        assert set(np.unique(new.read_mask(2)).tolist()) <= old.labels
    several = [tile for tile in after if len(tile.labels) > 1]
    assert any(len(np.unique(tile.read_mask(2))) > 1 for tile in several)
    for split in ("val", "test"):
        for old, new in zip(load_tiles(weak_data, split), load_tiles(pseudo, split), strict=True):
            assert np.array_equal(new.read_mask(2), old.read_mask(2))


def test_another_library_sees_the_colours_of_the_classes(pseudo: Path) -> None:
    tiles = load_tiles(pseudo)
    mask = tiles.tiles[1].mask
    assert mask is not None
    np.testing.assert_array_equal(imageio.imread(mask)[..., :3], tiles.taxonomy.colours[tiles.tiles[1].read_mask(2)])
    confidence = imageio.imread(pseudo / "confidence" / mask.name)
    assert confidence.shape == (SIDE, SIDE)
    assert confidence.dtype == np.uint8
    assert (imageio.imread(pseudo / "confidence" / tiles.single_class[0].mask.name) == 255).all()


def test_the_margin_is_that_of_the_present_classes() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    probabilities = torch.tensor([0.6, 0.95, 0.2])[None, :, None, None].expand(1, 3, 2, 2)
    maps = ImageMaps(((3 * probabilities).log(),), torch.ones(1, 3, 1, 1), None)
    labels, margin = label_with_margin(image, maps, torch.tensor([True, False, True])[None, :, None, None])
    assert (labels == 0).all()
    np.testing.assert_allclose(margin, 0.6 - 0.2, rtol=1e-5)


def test_what_is_not_sure_or_disputed_is_not_assigned(run: Path, pseudo: Path, weak_data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    list(train(settings_for(weak_data, train={"steps": 2, "seed": 5}), other))
    *_, sure = pseudo_masks(run, DataSettings(folder=weak_data), tmp_path / "sure", min_confidence=0.2)
    *_, agreed = pseudo_masks(run, DataSettings(folder=weak_data), tmp_path / "agreed", agree=other)
    list(pseudo_masks(other, DataSettings(folder=weak_data), tmp_path / "others"))
    assert isinstance(sure, Finished)
    assert isinstance(agreed, Finished)
    assert min(sure.summary["not_assigned"], agreed.summary["not_assigned"]) > 0
    for plain in sorted((pseudo / "masks").iterdir()):
        labels, confidence, certain, both, second = (
            np.asarray(Image.open(folder / plain.name))
            for folder in (
                pseudo / "masks",
                pseudo / "confidence",
                tmp_path / "sure" / "masks",
                tmp_path / "agreed" / "masks",
                tmp_path / "others" / "masks",
            )
        )
        clear = abs(confidence / 255 - 0.2) > 1 / 255  # the picture is rounded
        assert np.array_equal(certain[clear], np.where(confidence / 255 < 0.2, 255, labels)[clear])
        assert np.array_equal(both, np.where(labels == second, labels, 255))


def test_a_stopped_job_goes_on(run: Path, pseudo: Path, weak_data: Path, tmp_path: Path) -> None:
    data, out = DataSettings(folder=weak_data), tmp_path / "out"
    stopped = pseudo_masks(run, data, out)
    list(islice((event for event in stopped if isinstance(event, Step)), 3))
    stopped.close()
    assert len(list((out / "masks").iterdir())) == 3
    with pytest.raises(OutputError, match="`resume=True` to continue it"):
        list(pseudo_masks(run, data, out))
    with pytest.raises(ConfigError, match="other min_confidence"):
        list(pseudo_masks(run, data, out, min_confidence=0.5, resume=True))
    kept = (out / "masks" / sorted(path.name for path in (out / "masks").iterdir())[0]).stat().st_mtime_ns
    events = list(pseudo_masks(run, data, out, resume=True))
    assert next(e.done for e in events if hasattr(e, "total")) == 3
    assert min(p.stat().st_mtime_ns for p in (out / "masks").iterdir()) == kept
    for path in pseudo.rglob("*"):
        if path.is_file():
            assert (out / path.relative_to(pseudo)).read_bytes() == path.read_bytes() or path.suffix == ".csv"


def test_tiles_of_one_name_and_without_a_label(run: Path, weak_data: Path, tmp_path: Path) -> None:
    tile = load_tiles(weak_data).tiles[1].path
    rows = ["path,LYM,MUS"]
    for name, labels in (("a/x.png", "1,1"), ("b/X.png", "1,0"), ("b/x (2).png", "0,1"), ("none.png", "0,0")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(tile.read_bytes())
        rows.append(f"{name},{labels}")
    (tmp_path / "tiles.csv").write_text("\n".join(rows))
    events = list(pseudo_masks(run, DataSettings(folder=tmp_path / "tiles.csv"), tmp_path / "out"))
    assert any(isinstance(e, Noted) and "1 tiles without a label" in e.message for e in events)
    assert sorted(p.name.casefold() for p in (tmp_path / "out" / "masks").iterdir()) == [
        "x (2) (2).png",
        "x (2).png",
        "x.png",
    ]
    assert [sorted(t.labels) for t in load_tiles(tmp_path / "out")] == [[0, 1], [0], [1]]


def test_data_of_other_classes_are_refused(run: Path, weak_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="was trained on the classes LYM, MUS, and the data have MUS, LYM"):
        list(pseudo_masks(run, DataSettings(folder=weak_data, classes=("MUS", "LYM")), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_facts_name_the_model(pseudo: Path, run: Path) -> None:
    facts = json.loads((pseudo / "pseudo.json").read_text())
    assert facts["models"][0]["run"] == str(run)
    assert facts["classes"] == ["LYM", "MUS"]
