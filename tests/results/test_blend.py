"""Blending: complete, exact for constants, and equal to one canvas for the whole slide, in any order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_pbip.results.blend import Blender
from napari_pbip.results.lattice import Lattice, z_order


@st.composite
def lattices(draw):
    tile = draw(st.integers(1, 12))
    stride = draw(st.integers(1, tile))
    rows, columns = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    # any size that the last tile still reaches, so that tiles hang over the edge by any amount
    height, width = (draw(st.integers(max(1, (n - 1) * stride), (n - 1) * stride + tile)) for n in (rows, columns))
    return Lattice(height, width, tile, stride, rows, columns)


def ramp(tile, overlap):
    return np.array([min(i + 1, tile - i, max(1, overlap)) for i in range(tile)], float)


def naive(lattice, tiles, classes):
    """Blend all tiles on one canvas for the whole slide."""
    side = (lattice.rows - 1) * lattice.stride + lattice.tile, (lattice.columns - 1) * lattice.stride + lattice.tile
    total, weight = np.zeros((classes, *side)), np.zeros(side)
    one = ramp(lattice.tile, lattice.tile - lattice.stride)
    for (row, column), scores in tiles.items():
        place = np.s_[..., row * lattice.stride :, column * lattice.stride :]
        cut = np.s_[..., : lattice.tile, : lattice.tile]
        total[place][cut] += scores * one[:, None] * one
        weight[place][cut] += one[:, None] * one
    with np.errstate(invalid="ignore"):
        return (total / weight)[:, : lattice.height, : lattice.width]


def assemble(lattice, regions, classes):
    """Return the regions on one canvas; fail if a cell is written twice."""
    canvas = np.full((classes, lattice.height, lattice.width), np.nan, np.float16)
    written = np.zeros(canvas.shape[1:], int)
    for region in regions:
        place = np.s_[..., region.y : region.y + region.scores.shape[1], region.x : region.x + region.scores.shape[2]]
        canvas[place] = region.scores
        written[place] += 1
    assert written.max() <= 1
    return canvas, written


@settings(deadline=None, max_examples=150)
@given(lattices(), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_equal_to_one_canvas_for_the_whole_slide(lattice, block, seed):
    rng = np.random.default_rng(seed)
    planned = rng.random((lattice.rows, lattice.columns)) < 0.8
    written = np.zeros((-(-lattice.height // block), -(-lattice.width // block)), bool)
    blender = Blender(lattice, planned, written, block)
    assert sorted(blender.order) == sorted(map(tuple, np.argwhere(planned & inside(lattice)).tolist()))
    tiles = {place: rng.normal(size=(2, lattice.tile, lattice.tile)).astype(np.float32) for place in blender.order}
    presence = {place: rng.random(2) for place in tiles}
    regions = []
    for place in rng.permutation(blender.order).tolist():
        regions += blender.add(*place, tiles[tuple(place)], presence[tuple(place)])
    canvas, covered = assemble(lattice, regions, 2)
    expected = naive(lattice, tiles, 2)
    np.testing.assert_array_equal(np.isnan(canvas), np.isnan(expected))
    np.testing.assert_allclose(canvas, expected, atol=4e-3)  # a float16 of this size
    assert covered[~np.isnan(expected[0])].all()
    assert blender.kept == 0
    for region in regions:
        for (row, column), present, peak in zip(region.tiles.tolist(), region.presence, region.peak, strict=True):
            np.testing.assert_array_equal(present, presence[row, column].astype(np.float32))
            np.testing.assert_array_equal(peak, tiles[row, column].max((1, 2)))


def inside(lattice):
    """Return the tiles that begin on the grid (the last one may be beyond its edge)."""
    rows, columns = np.arange(lattice.rows), np.arange(lattice.columns)
    return np.outer(rows * lattice.stride < lattice.height, columns * lattice.stride < lattice.width)


@settings(deadline=None, max_examples=100)
@given(lattices(), st.integers(1, 9), st.floats(-1000, 1000, width=16))
def test_a_constant_in_is_exactly_that_constant_out(lattice, block, constant):
    written = np.zeros((-(-lattice.height // block), -(-lattice.width // block)), bool)
    blender = Blender(lattice, np.ones((lattice.rows, lattice.columns), bool), written, block)
    scores = np.full((1, lattice.tile, lattice.tile), constant, np.float32)
    regions = [region for place in blender.order for region in blender.add(*place, scores, np.ones(1))]
    canvas, covered = assemble(lattice, regions, 1)
    assert covered.all()
    assert (canvas == np.float16(constant)).all()


@settings(deadline=None, max_examples=60)
@given(lattices(), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_going_on_after_some_blocks_gives_the_same_bits(lattice, block, seed):
    rng = np.random.default_rng(seed)
    planned = rng.random((lattice.rows, lattice.columns)) < 0.8
    shape = (-(-lattice.height // block), -(-lattice.width // block))

    def answer(place):
        return np.random.default_rng(place).normal(size=(1, lattice.tile, lattice.tile)), np.ones(1)

    blender = Blender(lattice, planned, np.zeros(shape, bool), block)
    whole = [region for place in blender.order for region in blender.add(*place, *answer(place))]
    kept = whole[: rng.integers(0, len(whole) + 1)]
    written = np.zeros(shape, bool)
    for region in kept:
        written[region.y // block, region.x // block] = True
    rest = Blender(lattice, planned, written, block)
    resumed = [region for place in rest.order for region in rest.add(*place, *answer(place))]
    np.testing.assert_array_equal(assemble(lattice, kept + resumed, 1)[0], assemble(lattice, whole, 1)[0])


@settings(deadline=None, max_examples=60)
@given(lattices(), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_wherever_the_user_looks_every_tile_comes_once_with_the_same_bits(lattice, block, seed):
    rng = np.random.default_rng(seed)
    planned = rng.random((lattice.rows, lattice.columns)) < 0.8
    shape = (-(-lattice.height // block), -(-lattice.width // block))

    def view():
        x, y = rng.uniform(-5, lattice.width), rng.uniform(-5, lattice.height)
        return None if rng.random() < 0.2 else (x, y, *rng.uniform(0, 2 * lattice.tile, 2))

    def blended(blender, places):
        return [region for place in places for region in blender.add(*place, *answer(place))]

    def answer(place):
        return np.random.default_rng(place).normal(size=(1, lattice.tile, lattice.tile)), np.ones(1)

    straight, wandering = (Blender(lattice, planned, np.zeros(shape, bool), block) for _ in range(2))
    assert list(straight.tiles()) == straight.order
    wanted = straight.order
    places = list(wandering.tiles(view))
    assert sorted(places) == sorted(wanted)
    expected = assemble(lattice, blended(straight, wanted), 1)[0]
    np.testing.assert_array_equal(assemble(lattice, blended(wandering, places), 1)[0], expected)
    assert wandering.kept == 0


def test_what_is_in_view_comes_first_and_again_when_the_view_moves():
    lattice = Lattice(2048, 2048, tile=28, stride=24, rows=86, columns=86)
    blender = Blender(lattice, np.ones((86, 86), bool), np.zeros((8, 8), bool))
    looking = [(1200.0, 600.0, 100.0, 100.0)]
    tiles = blender.tiles(lambda: looking[0])

    def shows(tile):
        x, y, width, height = looking[0]
        row, column = (24 * place for place in tile)
        return y - 28 < row < y + height and x - 28 < column < x + width

    first = [next(tiles) for _ in range(12)]
    assert all(map(shows, first))
    assert np.abs(np.array(first[0]) * 24 + 14 - (650, 1250)).max() <= 24  # the middle of the view
    looking[0] = (100.0, 1800.0, 60.0, 90.0)
    seen = len([place for place in blender.order if shows(place)])
    second = [next(tiles) for _ in range(seen + 1)]
    assert all(map(shows, second[:-1]))
    # all that is in view is given out: now the block that it lies in
    assert not shows(second[-1])
    rest = [next(tiles) for _ in range(40)]
    assert all(row * 24 // 256 in (6, 7) and column * 24 // 256 <= 1 for row, column in rest)
    looking[0] = (0.0, 0.0, 2048.0, 2048.0)
    centre = next(tiles)
    assert np.abs(np.array(centre) * 24 + 14 - 1024).max() < 256 + 28


def test_a_restless_user_keeps_few_tiles_waiting():
    lattice = Lattice(3000, 3000, tile=28, stride=24, rows=125, columns=125)
    blender = Blender(lattice, np.ones((125, 125), bool), np.zeros((12, 12), bool))
    rng = np.random.default_rng(0)
    scores, presence, most, looking = np.zeros((1, 28, 28)), np.ones(1), 0, [(0.0, 0.0, 1.0, 1.0)]
    for i, place in enumerate(blender.tiles(lambda: looking[0])):
        if i % 500 == 0:
            looking[0] = (*rng.uniform(0, 2700, 2), 300.0, 200.0)
        blender.add(*place, scores, presence)
        most = max(most, blender.kept)
    assert most < 10 * 125


def test_unfinished_blocks_show_what_is_known():
    lattice = Lattice(20, 20, tile=8, stride=4, rows=4, columns=4)
    planned = np.ones((4, 4), bool)
    blender = Blender(lattice, planned, np.zeros((2, 2), bool), block=10)
    tiles = {tuple(p): np.full((2, 8, 8), i + 1, np.float32) for i, p in enumerate(np.argwhere(planned).tolist())}
    assert blender.partials() == []
    order = list(blender.tiles(lambda: (0.0, 0.0, 3.0, 3.0)))
    assert blender.add(*order[0], tiles[order[0]], np.array([0.5, 0.25])) == []
    [part] = blender.partials()
    assert not part.complete
    assert (part.y, part.x) == (0, 0)
    assert part.tiles.tolist() == [[0, 0]]
    assert part.presence.tolist() == [[0.5, 0.25]]
    assert (part.scores[:, :8, :8] == 1).all()
    assert np.isnan(part.scores[:, 8:]).all()
    assert np.isnan(part.scores[:, :, 8:]).all()
    assert blender.partials() == []  # nothing new
    regions = [region for place in order[1:] for region in blender.add(*place, tiles[place], np.ones(2))]
    assert all(region.complete for region in regions)
    assert blender.partials() == []
    expected = naive(lattice, tiles, 2)
    np.testing.assert_allclose(assemble(lattice, regions, 2)[0], expected, atol=1e-2)


def test_a_tile_left_out_is_as_if_it_was_not_planned():
    lattice = Lattice(height=28, width=28, tile=8, stride=5, rows=5, columns=5)
    rng = np.random.default_rng(0)
    tiles = {(row, column): rng.normal(size=(2, 8, 8)) for row in range(5) for column in range(5)}
    missing = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 3)]  # all of the first block, and one elsewhere
    planned, written = np.ones((5, 5), bool), np.zeros((4, 4), bool)
    blender = Blender(lattice, planned, written, block=8)
    regions = [
        region
        for place in blender.order
        for region in (
            blender.leave_out(*place) if place in missing else blender.add(*place, tiles[place], np.array([0.5, 0.5]))
        )
    ]
    assert planned.all()
    assert not blender.kept
    assert not blender.order
    planned[tuple(np.array(missing).T)] = False
    other = Blender(lattice, planned, written, block=8)
    expected = [region for place in other.order for region in other.add(*place, tiles[place], np.array([0.5, 0.5]))]
    got, wanted = ({(r.y, r.x): r for r in some} for some in (regions, expected))
    assert got.keys() == wanted.keys()
    assert (0, 0) not in got
    for place, region in got.items():
        np.testing.assert_array_equal(region.scores, wanted[place].scores)
        np.testing.assert_array_equal(region.tiles, wanted[place].tiles)
    with pytest.raises(ValueError, match="not to be analysed"):
        other.leave_out(0, 0)


def test_positions_are_whole_at_the_centres_of_tiles_and_rise_evenly_between():
    lattice = Lattice(100, 76, tile=28, stride=24, rows=4, columns=3)
    cells = np.arange(100.0)
    centres = np.arange(4) * 24 + 13.5
    found = lattice.positions(cells, 4)
    np.testing.assert_allclose(found, np.interp(cells, centres, np.arange(4)))
    starts = np.rint(found) * 24
    assert ((starts <= cells) & (cells < starts + 28)).all()


def test_few_tiles_are_kept_on_a_large_slide():
    lattice = Lattice(3000, 3000, tile=28, stride=24, rows=125, columns=125)
    blender = Blender(lattice, np.ones((125, 125), bool), np.zeros((12, 12), bool))
    scores, presence, most = np.zeros((1, 28, 28)), np.ones(1), 0
    for row, column in blender.order:
        blender.add(row, column, scores, presence)
        most = max(most, blender.kept)
    assert most < 4 * 125


def test_resuming_costs_only_the_tiles_on_the_border():
    lattice = Lattice(1024, 1024, tile=28, stride=24, rows=43, columns=43)
    planned = np.ones((43, 43), bool)
    written = np.zeros((4, 4), bool)
    written[:2, :2] = True
    begun = len(Blender(lattice, planned, ~written).order)
    rest = len(Blender(lattice, planned, written).order)
    assert begun + rest - 43 * 43 < 2 * 43


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="leave gaps"):
        Lattice(10, 10, tile=4, stride=5, rows=2, columns=2)
    with pytest.raises(ValueError, match="do not cover"):
        Lattice(10, 10, tile=4, stride=4, rows=2, columns=3)
    blender = Blender(Lattice(4, 4, 4, 4, 1, 1), np.ones((1, 1), bool), np.zeros((1, 1), bool))
    with pytest.raises(ValueError, match="shape"):
        blender.add(0, 0, np.zeros((1, 3, 4)), np.ones(1))


def test_a_tile_is_taken_once():
    blender = Blender(Lattice(4, 4, 4, 4, 1, 1), np.ones((1, 1), bool), np.zeros((1, 1), bool))
    blender.add(0, 0, np.zeros((1, 4, 4)), np.ones(1))
    with pytest.raises(ValueError, match="added before"):
        blender.add(0, 0, np.zeros((1, 4, 4)), np.ones(1))


def test_z_order_is_that_of_morton():
    places = sorted(((y, x) for y in range(4) for x in range(4)), key=z_order)
    assert places[:8] == [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3)]
