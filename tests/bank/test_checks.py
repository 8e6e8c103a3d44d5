from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_pbip.bank import BankTile, EncoderFacts, ImageBank, bank_warnings, near_duplicates, project
from napari_pbip.bank.checks import NEAR_DUPLICATE
from napari_pbip.bank.features import FeatureFile, TileMeasures, colour_moments
from napari_pbip.config import BankSettings
from napari_pbip.taxonomy import Taxonomy

NAMES = ("MUS", "TUM")


def bank_of(features: np.ndarray, classes: list[int], colours: np.ndarray | None = None) -> ImageBank:
    measures = FeatureFile("texture ab")
    if colours is None:
        colours = np.random.default_rng(0).uniform(0.2, 0.8, (len(classes), 6))
    tiles = [BankTile(f"/tiles/{i}.png", n, f"{i:064x}", 0.0) for i, n in enumerate(classes)]
    for tile, feature, colour in zip(tiles, features.astype(np.float32), colours.astype(np.float32), strict=True):
        measures[tile.hash] = TileMeasures(feature, colour, 0.0)
    facts = EncoderFacts(name="texture", weights_hash="ab", dimension=features.shape[1], weights=None)
    return ImageBank.build(Taxonomy.from_names(NAMES), facts, BankSettings(k=1), tiles, measures)


@pytest.fixture
def strangers() -> np.ndarray:
    """Return features with a large common part, like those of networks."""
    return 20 + np.random.default_rng(0).normal(size=(12, 16))


def test_different_tiles_are_no_duplicates(strangers: np.ndarray) -> None:
    bank = bank_of(strangers, [0] * 6 + [1] * 6)
    assert near_duplicates(bank) == ()
    assert bank_warnings(bank, ()) == ()


def test_near_duplicates_are_found_within_and_across_classes(strangers: np.ndarray) -> None:
    strangers[3] = strangers[1] + 0.01
    strangers[8] = strangers[0] + 0.01
    bank = bank_of(strangers, [0] * 6 + [1] * 6)
    found = near_duplicates(bank)
    assert [(Path(p.first.path).stem, Path(p.second.path).stem) for p in found] == [("1", "3"), ("0", "8")]
    assert all(p.similarity > 0.99 for p in found)
    sentence = bank_warnings(bank, found)[0]
    assert "2 tiles are nearly the same" in sentence
    assert "1 of them with different labels" in sentence
    assert "3.png and 1.png" in sentence


def test_a_large_bank_is_compared_in_pieces() -> None:
    features = np.random.default_rng(0).normal(size=(1300, 24))
    features[1200] = features[700]
    features[600] = features[599]
    pairs = near_duplicates(bank_of(features, [0] * 650 + [1] * 650))
    assert [(int(p.first.hash, 16), int(p.second.hash, 16)) for p in pairs] == [(599, 600), (700, 1200)]


def test_a_copy_that_the_encoder_does_not_know_again_is_found_by_its_colours() -> None:
    rng = np.random.default_rng(0)
    features, pictures = (
        rng.normal(size=(12, 16)),
        [rng.integers(0, 256, (32, 32, 3), np.uint8) // (i + 1) for i in range(12)],
    )
    pictures[7], features[7] = np.rot90(pictures[2]), features[2] + rng.normal(size=16)  # cosine about 0.7
    pictures[9] = np.rot90(pictures[4])  # the same colours, and to the encoder nothing alike
    bank = bank_of(features, [0] * 6 + [1] * 6, np.stack([colour_moments(p) for p in pictures]))
    (pair,) = near_duplicates(bank)
    assert (pair.first, pair.second) == (bank.tiles[2], bank.tiles[7])
    assert 0.5 < pair.similarity < NEAR_DUPLICATE


def test_an_equal_file_in_two_classes_is_told_elsewhere(strangers: np.ndarray) -> None:
    strangers[8] = strangers[0]
    bank = bank_of(strangers, [0] * 6 + [1] * 6)
    tiles = list(bank.tiles)
    tiles[8] = replace(tiles[8], hash=tiles[0].hash)
    assert near_duplicates(replace(bank, tiles=tuple(tiles))) == ()


def test_imbalance() -> None:
    features = np.random.default_rng(0).normal(size=(22, 16))
    assert bank_warnings(bank_of(features[:20], [0] * 18 + [1] * 2), ()) == ()
    sentences = bank_warnings(bank_of(features, [0] * 20 + [1] * 2), ())
    assert sentences == ("MUS has 20 tiles and TUM only 2; add tiles of TUM.",)


@pytest.mark.parametrize("tiles", [1, 2, 3, 9, 40])
def test_places_keep_neighbours_together(tiles: int) -> None:
    rng = np.random.default_rng(0)
    features = np.zeros((tiles, 8), np.float32)
    group = np.arange(tiles) % 2
    features[np.arange(tiles), group] = 1
    features += 0.01 * rng.random(features.shape, np.float32)
    places = project(features)
    assert places.shape == (tiles, 2)
    assert np.isfinite(places).all()
    np.testing.assert_array_equal(places, project(features))
    if tiles >= 9:
        distance = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * np.eye(tiles)
        assert (group[distance.argmin(1)] == group).mean() > 0.8


def test_equal_features_have_one_place() -> None:
    assert not project(np.ones((12, 4), np.float32)).any()
