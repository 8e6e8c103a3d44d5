from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2hed

from napari_pbip import samples
from napari_pbip.bank import LabelledTile
from napari_pbip.config import TrainSettings
from napari_pbip.engine.loading import TileReader, ahead, change_stain, flip_and_turn, to_tensor, training_batches
from napari_pbip.errors import DataError


@pytest.fixture(scope="module")
def tiles() -> list[LabelledTile]:
    folder = samples.tiles()
    return [
        LabelledTile(path, frozenset({label}), None)
        for label, name in enumerate(("LYM", "TUM"))
        for path in sorted((folder / name).iterdir())
    ]


def test_batches_depend_on_nothing_but_seed_and_step(tiles: list[LabelledTile]) -> None:
    settings = TrainSettings(batch_size=4, stain_augmentation=0.5, seed=3)
    whole = list(training_batches(tiles, 2, settings, TileReader(), 0, 6))
    tail = list(training_batches(tiles, 2, settings, TileReader(), 4, 6))
    for a, b in zip(whole[4:], tail, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
    other = next(training_batches(tiles, 2, TrainSettings(batch_size=4, seed=4), TileReader(), 0, 1))
    assert not torch.equal(whole[0].images, other.images)


def test_an_epoch_shows_every_tile_once(tiles: list[LabelledTile]) -> None:
    settings = TrainSettings(batch_size=5, flip_and_turn=False)
    batches = list(training_batches(tiles, 2, settings, TileReader(), 0, 2))
    seen = {image.numpy().tobytes() for batch in batches for image in batch.images}
    assert len(seen) == len(tiles) == 10
    assert sum(int(batch.labels[:, 0].sum()) for batch in batches) == 5


def test_tiles_of_different_sizes_are_named(tmp_path: Path, tiles: list[LabelledTile]) -> None:
    small = tmp_path / "small.png"
    Image.open(tiles[0].path).resize((100, 100)).save(small)
    mixed = [tiles[0], LabelledTile(small, frozenset({1}), None)]
    with pytest.raises(DataError, match=r"224x224 .* 100x100|100x100 .* 224x224"):
        list(training_batches(mixed, 2, TrainSettings(batch_size=2), TileReader(), 0, 1))


def test_flips_and_turns_are_the_eight_of_the_square() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    rng = np.random.default_rng(0)
    seen = {flip_and_turn(image, rng).tobytes() for _ in range(200)}
    assert len(seen) == 8
    wide = np.zeros((4, 6, 3), np.uint8)
    assert {flip_and_turn(wide, rng).shape for _ in range(50)} == {(4, 6, 3)}


def test_stain_changes_amounts_and_the_white_point(tiles: list[LabelledTile]) -> None:
    image = tiles[0].read()
    images = to_tensor(np.stack([image] * 20 + [np.full_like(image, 255)] * 40))
    same = change_stain(images, 0.0, np.random.default_rng(0))
    assert torch.allclose(same, images.clamp(min=1 / 255), atol=1e-4)
    changed = change_stain(images, 0.3, np.random.default_rng(0), white_point=True)
    before, *after = (rgb2hed(one.permute(1, 2, 0).numpy())[..., 0] for one in (images[0], *changed[:20]))
    # haematoxylin is scaled and shifted as a whole: the picture stays, its contrast changes
    assert min(np.corrcoef(before.ravel(), one.ravel())[0, 1] for one in after) > 0.9
    assert np.std([one.std() / before.std() for one in after]) > 0.08
    white = changed[20:].flatten(2)
    assert (white.amax(2) - white.amin(2)).max() < 1e-5  # all of a picture at once
    assert 0.82 < white.min() < 0.88  # exp(-0.15), and a little of the stains
    glass = white[:, :, 0]
    assert (glass.amax(1) - glass.amin(1)).median() > 0.05  # it is no longer grey
    assert change_stain(images, 0.3, np.random.default_rng(0))[20:].min() > 0.97  # stains alone leave it white


def test_reading_ahead_keeps_order_and_hands_errors_on() -> None:
    def slow(i: int) -> int:
        time.sleep(0.01 * (3 - i % 3))
        if i == 7:
            raise DataError("seven")
        return i

    results = ahead(slow, range(20))
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(DataError, match="seven"):
        next(results)


def test_closing_early_leaves_no_thread_behind() -> None:
    results = ahead(lambda i: i, iter(range(10**9)))
    assert next(results) == 0
    results.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("napari-pbip-reader")]
