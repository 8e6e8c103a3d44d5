"""Blocks decoded in threads: blurred at first, sharp when asked again, each decoded once, errors reported."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from napari_pbip.blocks import BlockLoader
from tests.waiting import PATIENCE, wait_until

SIDE = 8
FINE = np.arange(60 * 70, dtype=np.uint16).reshape(60, 70)
COARSE = FINE[::4, ::4]


class Decoder:
    """Decodes two levels of a picture; it counts, waits at a gate, and fails at given blocks."""

    def __init__(self):
        self.calls = []
        self.gate = threading.Event()
        self.gate.set()
        self.faulty = {}

    def __call__(self, level, rows, columns):
        self.calls.append((level, rows.start // SIDE, columns.start // SIDE))
        assert threading.current_thread() is not threading.main_thread()
        self.gate.wait(PATIENCE)
        if error := self.faulty.get((rows.start // SIDE, columns.start // SIDE)):
            raise error
        return (FINE, COARSE)[level][rows, columns]


@pytest.fixture
def decoder():
    return Decoder()


@pytest.fixture
def loader(decoder):
    shapes = [FINE.shape, COARSE.shape]
    loader = BlockLoader(
        decoder, (1, 4), shapes, COARSE.copy(), side=SIDE, size=1 << 20, threads=1, name="napari-pbip-test"
    )
    yield loader
    decoder.gate.set()
    loader.close()


def read(loader, *place):
    """Read as a viewer does: take what is available, and ask again when more has arrived."""
    while True:
        pixels = loader.read(*place)
        if not loader.lacking:
            return pixels
        wait_until(loader.arrived)


def test_a_rectangle_is_that_of_the_picture(loader, decoder):
    for y0, y1, x0, x1 in ((0, 60, 0, 70), (3, 20, 5, 9), (59, 60, 69, 70), (10, 10, 0, 5)):
        np.testing.assert_array_equal(read(loader, 0, y0, y1, x0, x1), FINE[y0:y1, x0:x1])
    np.testing.assert_array_equal(loader.read(1, 2, 9, 1, 17), COARSE[2:9, 1:17])
    assert len(decoder.calls) == len(set(decoder.calls)) == 8 * 9


def test_rows_may_be_any_axis():
    loader = BlockLoader(
        lambda level, rows, columns: np.stack([FINE[rows, columns]] * 3),
        (1, 4),
        [FINE.shape, COARSE.shape],
        np.stack([COARSE] * 3),
        axis=1,
        side=SIDE,
        size=1 << 20,
        threads=1,
        name="napari-pbip-test",
    )
    np.testing.assert_array_equal(read(loader, 0, 3, 30, 4, 44), np.stack([FINE[3:30, 4:44]] * 3))
    loader.close()


def test_what_is_late_is_blurred_and_then_sharp(loader, decoder):
    decoder.gate.clear()
    began = time.monotonic()
    blurred = loader.read(0, 0, 16, 0, 16)
    assert time.monotonic() - began < PATIENCE / 2  # the gate would hold it for longer
    np.testing.assert_array_equal(blurred, COARSE[:4, :4].repeat(4, 0).repeat(4, 1))
    assert loader.lacking
    assert not loader.arrived()
    decoder.gate.set()
    np.testing.assert_array_equal(read(loader, 0, 0, 16, 0, 16), FINE[:16, :16])


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("not foreseen"), MemoryError()])
def test_a_block_that_cannot_be_decoded_is_decoded_once_and_blurred(loader, decoder, error):
    decoder.faulty[0, 0] = error
    pixels = read(loader, 0, 0, 16, 0, 16)
    for _ in range(5):
        pixels = read(loader, 0, 0, 16, 0, 16)
    np.testing.assert_array_equal(pixels[:8, :8], COARSE[:2, :2].repeat(4, 0).repeat(4, 1))
    np.testing.assert_array_equal(pixels[8:], FINE[8:16, :16])
    assert decoder.calls.count((0, 0, 0)) == 1
    assert (loader.pending, loader.lacking, loader.arrived()) == (0, False, False)
    assert loader.error is error
    decoder.faulty.clear()
    loader.retry()
    np.testing.assert_array_equal(read(loader, 0, 0, 16, 0, 16), FINE[:16, :16])
    assert loader.error is None


def test_another_view_ends_what_the_last_one_waited_for_but_a_place_in_it_does_not(loader, decoder):
    decoder.gate.clear()
    loader.read(0, 0, 32, 0, 32)
    assert loader.pending == 16
    loader.read(0, 20, 21, 20, 21)  # the mouse
    assert loader.pending == 16
    loader.read(0, 40, 48, 40, 48)  # another view
    assert loader.pending <= 2  # that, and the block that is being decoded
    decoder.gate.set()
    np.testing.assert_array_equal(read(loader, 0, 40, 48, 40, 48), FINE[40:48, 40:48])
    assert len(decoder.calls) <= 2


def test_blocks_that_expired_are_shown_until_they_are_decoded_anew(loader, decoder):
    read(loader, 0, 0, 16, 0, 16)
    decoder.calls.clear()
    loader.expire({(0, 0, 1), (0, 7, 7)})
    decoder.gate.clear()
    np.testing.assert_array_equal(loader.read(0, 0, 16, 0, 16), FINE[:16, :16])
    assert loader.lacking
    decoder.gate.set()
    np.testing.assert_array_equal(read(loader, 0, 0, 16, 0, 16), FINE[:16, :16])
    assert decoder.calls == [(0, 0, 1)]


def test_the_coarsest_level_is_filled_piece_by_piece(decoder):
    grey = np.full(COARSE.shape, 9, np.uint16)
    shapes = [FINE.shape, COARSE.shape]
    loader = BlockLoader(decoder, (1, 4), shapes, grey, side=SIDE, size=1 << 20, threads=1, name="napari-pbip-test")
    decoder.gate.clear()
    decoder.faulty[1, 1] = OSError("gone")
    loader.fill_coarsest(SIDE)
    kept = loader.read(1, 0, *COARSE.shape[:1], 0, COARSE.shape[1])
    assert (kept == 9).all()
    np.testing.assert_array_equal(loader.read(0, 0, 4, 0, 4), np.full((4, 4), 9))
    decoder.gate.set()
    wait_until(lambda: not loader.pending)
    assert loader.arrived()
    assert not loader.arrived()
    expected = COARSE.copy()
    expected[8:, 8:16] = 9
    np.testing.assert_array_equal(kept, expected)  # a viewer that keeps it has it
    decoder.faulty.clear()
    loader.retry()
    wait_until(lambda: not loader.pending)
    np.testing.assert_array_equal(kept, COARSE)
    loader.close()


def test_closing_waits_for_nothing_and_what_is_decoded_is_closed_when_no_thread_uses_it(loader, decoder):
    closed = []
    decoder.gate.clear()
    loader.fill_coarsest(SIDE)
    loader.read(0, 0, 60, 0, 70)
    wait_until(lambda: decoder.calls)
    loader.close(lambda: closed.append(threading.current_thread().name))
    time.sleep(0.1)
    assert not closed  # the gate still holds one
    decoder.gate.set()
    wait_until(lambda: closed)
    assert len(decoder.calls) == 1
    assert closed[0].startswith("napari-pbip-test")
    wait_until(lambda: not [one for one in threading.enumerate() if one.name.startswith("napari-pbip-test")])
    loader.close(lambda: closed.append("again"))
    assert len(closed) == 1


def test_what_nobody_decodes_is_closed_at_once(loader):
    read(loader, 0, 0, 16, 0, 16)
    closed = []
    loader.close(lambda: closed.append(threading.current_thread()))
    assert closed == [threading.main_thread()]
