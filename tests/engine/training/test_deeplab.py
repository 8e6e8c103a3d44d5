"""The second stage: a segmentation network that is trained on tiles with masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from napari_pbip import samples
from napari_pbip.bank import LabelledTile
from napari_pbip.bank.mosaics import write_masked
from napari_pbip.config import JobSettings, SegmentSettings, TrainSettings
from napari_pbip.engine import runs
from napari_pbip.engine.inference.evaluate import evaluate
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.loading import TileReader, training_batches
from napari_pbip.engine.training.train import train
from napari_pbip.errors import DataError
from napari_pbip.events import Finished
from napari_pbip.results import ScoreStore
from napari_pbip.slides import Slide
from tests.engine.conftest import settings_for
from tests.engine.training.test_train import run, same, sentence, stop_after


@pytest.fixture(scope="module")
def masked_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write images of two classes, all of them with masks."""
    folder = tmp_path_factory.mktemp("masked")
    tiles = {
        name: [np.asarray(Image.open(path).convert("RGB")) for path in sorted((samples.tiles() / name).iterdir())]
        for name in ("LYM", "MUS")
    }
    rng = np.random.default_rng(0)
    for split, part, count in (("train", slice(3), 24), ("val", slice(3, 4), 4), ("test", slice(4, 5), 4)):
        write_masked(folder, split, {name: some[part] for name, some in tiles.items()}, count, 64, rng)
    (folder / "classes.txt").write_text("LYM\nMUS\n")
    return folder


def deeplab(folder: Path, **train: object) -> JobSettings:
    return settings_for(folder, method={"name": "deeplab"}, train=train)


def test_masks_are_turned_with_their_tiles(tmp_path: Path) -> None:
    tiles = []
    for i in range(4):
        values = np.random.default_rng(i).integers(0, 3, (32, 32)).astype(np.uint8)
        values[0, :9] = 255
        Image.fromarray(np.dstack([values] * 3)).save(tmp_path / f"{i}.png")
        Image.fromarray(values).save(tmp_path / f"mask{i}.png")
        tiles.append(LabelledTile(tmp_path / f"{i}.png", frozenset({0, 1, 2}), tmp_path / f"mask{i}.png"))
    settings = TrainSettings(batch_size=4, stain_augmentation=0)
    batches = list(training_batches(tiles, 3, settings, TileReader(), 0, 4, masks=True))
    for batch in batches:
        assert batch.masks is not None
        assert batch.images.shape == (4, 3, 32, 32)
        assert torch.equal((batch.images[:, 0] * 255).round().long(), batch.masks)
    corners = {tuple(m[0, :2].tolist()) == (255, 255) for b in batches for m in b.masks}
    assert corners == {True, False}  # some of them turned


def test_a_stopped_training_ends_as_one_that_was_not_stopped(masked_data: Path, tmp_path: Path) -> None:
    settings = deeplab(masked_data, steps=3)
    run(train(settings, tmp_path / "whole"))
    stop_after(train(settings, tmp_path / "parts"), 2)
    run(train(settings, tmp_path / "parts", resume=True))
    for file in ("last.safetensors", "best.safetensors", "state.safetensors"):
        assert same(tmp_path / "whole" / file, tmp_path / "parts" / file), file


def test_it_learns_from_masks_and_reads_tiles_and_slides(
    masked_data: Path, sample_pixels: np.ndarray, tmp_path: Path
) -> None:
    settings = deeplab(masked_data, steps=24, validate_every=8)
    run(train(settings, tmp_path / "run"))
    scored = run(evaluate(tmp_path / "run", settings.data, "train"))[-1]
    assert isinstance(scored, Finished)
    protocols = scored.summary["protocols"]
    assert protocols["predicted"]["miou"] > 60
    assert protocols["predicted"] == protocols["oracle"]  # of two classes, one is likelier wherever it is seen
    assert runs.load_model(tmp_path / "run").facts.settings.method.name == "deeplab"
    quick = SegmentSettings(precision="float32", device="cpu", tile=256)
    slide = Slide.from_array(sample_pixels[1000:1600, 800:1400], mpp=0.5)
    done = run(segment(slide, tmp_path / "run", tmp_path / "result", quick))[-1]
    assert isinstance(done, Finished)
    store = ScoreStore.open(Path(done.summary["store"]))
    scores = np.asarray(store.scores[0])
    analysed = ~np.isnan(scores[0])
    assert analysed.any()
    probabilities = np.exp(scores[:, analysed].astype(np.float32)) / 2
    assert probabilities.sum(0).max() < 1.01  # cells between others have geometric means, which add up to less
    assert np.median(probabilities.sum(0)) == pytest.approx(1, abs=0.01)


def test_tiles_without_masks_are_refused(weak_data: Path, tmp_path: Path) -> None:
    said = sentence(train(deeplab(weak_data, steps=1), tmp_path / "run"), DataError)
    assert "24 tiles of the split 'train' have no mask" in said
    assert "napari-pbip pseudo" in said
