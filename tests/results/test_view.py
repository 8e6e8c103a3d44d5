"""A store for display: fast approximate answers, exact ones a moment later, and new ones when the store grows."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from stores import create, network, segment, smooth_field

from napari_pbip.results import LargestScores, ScoreStore
from napari_pbip.results.view import ViewedStore
from tests.waiting import PATIENCE, wait_until

SHAPE = (600, 700)
ALL = slice(None)


@pytest.fixture
def viewed(tmp_path):
    store = create(tmp_path / "slide.ome.zarr", SHAPE)
    segment(store, network(smooth_field(SHAPE)), blocks=4)
    viewed = ViewedStore.open(store.path)
    yield viewed
    viewed.close()


def read_until_there(store, *place):
    """Read as a viewer does: take what is available, and ask again when more has arrived."""
    while True:
        scores = store.read_scores(*place)
        if not store.lacking:
            return scores
        wait_until(store.arrived)


def test_scores_are_those_of_the_store(viewed):
    plain = ScoreStore.open(viewed.path)
    for level in range(len(plain.scores)):
        np.testing.assert_array_equal(read_until_there(viewed, level, ALL, ALL), plain.read_scores(level, ALL, ALL))
    part = 0, slice(250, 270), slice(500, 530)
    np.testing.assert_array_equal(viewed.read_scores(*part), plain.read_scores(*part))
    np.testing.assert_array_equal(viewed.presence(), plain.presence())
    np.testing.assert_array_equal(viewed.peak(), plain.peak())
    assert viewed.tissue_cells == plain.tissue_cells


def test_what_is_not_there_in_time_is_blurred(viewed, monkeypatch):
    monkeypatch.setattr("napari_pbip.blocks.PATIENCE", 0)
    disk, read_scores = threading.Event(), ScoreStore.read_scores
    monkeypatch.setattr(ScoreStore, "read_scores", lambda *place: disk.wait(PATIENCE) and read_scores(*place))
    blurred = viewed.read_scores(0, ALL, ALL)  # while the disk keeps all waiting
    assert viewed.lacking
    np.testing.assert_array_equal(blurred[:, ::2, ::2], viewed.read_scores(1, ALL, ALL))
    disk.set()
    sharp = read_until_there(viewed, 0, ALL, ALL)
    np.testing.assert_array_equal(sharp, ScoreStore.open(viewed.path).read_scores(0, ALL, ALL))


def test_it_follows_a_store_that_grows(viewed):
    before = read_until_there(viewed, 0, ALL, ALL).copy()
    version = viewed.version
    assert np.isnan(viewed.peak()).any()
    segment(ScoreStore.open(viewed.path, "r+"), network(smooth_field(SHAPE)))
    np.testing.assert_array_equal(read_until_there(viewed, 0, ALL, ALL), before)
    viewed.grown((row, column) for row in range(3) for column in range(3))
    assert viewed.growing
    assert viewed.catch_up().result()
    assert not viewed.growing
    assert viewed.version > version
    after = read_until_there(viewed, 0, ALL, ALL)
    assert np.isnan(before).sum() > np.isnan(after).sum() == 0
    assert not np.isnan(viewed.presence()).any()
    assert not np.isnan(viewed.peak()).any()
    assert not viewed.catch_up().result()


def test_the_guess_is_near_the_largest_score(viewed):
    guess = viewed.guess_largest(99.5)
    np.testing.assert_allclose(guess, LargestScores(ScoreStore.open(viewed.path)).percentile(99.5), rtol=0.15)


def test_a_damaged_block_is_not_analysed_and_told(viewed):
    for chunk in (viewed.path / "0" / "c").rglob("[0-9]*"):
        if chunk.is_file():
            chunk.write_bytes(b"damaged")
    assert np.isnan(read_until_there(viewed, 0, ALL, ALL)).all()
    assert "damaged" in str(viewed.error)


def test_it_is_for_reading_alone(viewed):
    with pytest.raises(ValueError, match="reading"):
        ViewedStore.open(viewed.path, "r+")
