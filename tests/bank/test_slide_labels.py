"""Labels of tiles on slides: undo restores them exactly, and they are read as they were written."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from napari_pbip.bank.labelled_slides import LABELS, LabelledSlides, Origin, check_class_name
from napari_pbip.bank.slide_labels import SlideLabels
from napari_pbip.errors import DataError
from napari_pbip.slides import SlideFacts, TileSize

FACTS = SlideFacts(identity="abc", name="a", path=Path("a.svs"), mpp=0.25, width=10_000, height=5_000)
OTHER = SlideFacts(identity="def", name="b", path=Path("b.svs"), mpp=0.5, width=4_000, height=4_000)


@pytest.fixture
def labels() -> SlideLabels:
    labels = SlideLabels()
    labels.add_slide(FACTS)
    labels.add_slide(OTHER)
    return labels


def test_the_grid_holds_whole_tiles_only():
    grid = FACTS.grid(TileSize(pixels=224, mpp=0.5))
    assert (grid.columns, grid.rows, grid.side) == (22, 11, 448)
    assert grid.at(0, 0) == (0, 0)
    assert grid.at(447.9, 448) == (0, 1)
    assert grid.at(9_990, 10) is None
    assert grid.at(-1, 10) is None
    assert grid.within(500, 0, 400, 900) == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]
    assert len(grid.within(-1e6, -1e6, 1e6, 1e6)) == 22 * 11
    assert grid.corner((2, 1)) == (896, 448)
    assert TileSize().microns == 112


def test_a_tile_may_carry_several_labels(labels):
    assert labels.label("abc", [(0, 0), (1, 0)], {0}) == 2
    assert labels.label("abc", [(0, 0)], {1}, add=True) == 1
    assert dict(labels.tiles("abc")) == {(0, 0): {0, 1}, (1, 0): {0}}
    assert labels.counts == (2, 1)
    assert labels.label("abc", [(0, 0)], {1}) == 1
    assert labels.counts == (1, 1)
    assert labels.label("abc", [(0, 0)], ()) == 1
    assert labels.counts == (1, 0)
    with pytest.raises(IndexError):
        labels.label("abc", [(0, 0)], {2})


def test_what_changes_nothing_is_no_step(labels):
    labels.label("abc", [(0, 0)], {0})
    labels.undo()
    assert labels.can_redo
    labels.label("abc", [(5, 5)], ())
    labels.rename_class(0, "tumour")
    assert labels.can_redo
    assert not labels.can_undo


def state(labels: SlideLabels) -> tuple:
    return labels.snapshot(), labels.counts


def change(labels: SlideLabels, chance: random.Random) -> None:
    """Make one of the changes that a user can make, at random."""
    n = len(labels.taxonomy)
    where = [(chance.randrange(6), chance.randrange(6)) for _ in range(chance.randrange(1, 8))]
    match chance.randrange(10):
        case 0:
            labels.add_class()
        case 1 if n > 1:
            labels.remove_class(chance.randrange(n))
        case 2:
            labels.rename_class(chance.randrange(n), f"name {chance.random()}")
        case 3:
            labels.recolour_class(chance.randrange(n), f"#{chance.randrange(1 << 24):06x}")
        case 4:
            labels.clear()
        case 5 if not len(labels):
            labels.resize(TileSize(pixels=chance.choice((96, 224, 256))))
        case 6 if labels.tiles("abc"):
            labels.restart_slide(FACTS.model_copy(update={"mpp": chance.choice((0.25, 0.5))}))
        case _:
            given = chance.sample(range(n), chance.randrange(min(n, 3)))
            labels.label(chance.choice(("abc", "def")), where, given, add=chance.random() < 0.3)


@pytest.mark.parametrize("seed", range(8))
def test_undo_and_redo_are_exact(labels, seed):
    chance = random.Random(seed)
    states = [state(labels)]
    for _ in range(120):
        change(labels, chance)
        if state(labels) != states[-1]:
            states.append(state(labels))
    for expected in reversed(states[:-1]):
        assert labels.undo()
        assert state(labels) == expected
    assert not labels.undo()
    for expected in states[1:]:
        assert labels.redo()
        assert state(labels) == expected
    assert not labels.redo()
    assert len(states) > 40


def test_counts_agree_with_the_tiles(labels):
    chance = random.Random(3)
    for _ in range(300):
        change(labels, chance)
        every = [given for identity in ("abc", "def") for given in labels.tiles(identity).values()]
        assert labels.counts == tuple(sum(n in given for given in every) for n in range(len(labels.taxonomy)))
        assert all(every)


def test_classes_can_be_removed_from_under_their_tiles(labels):
    labels.add_class("necrosis")
    labels.label("abc", [(0, 0)], {0})
    labels.label("abc", [(1, 0)], {0, 2})
    labels.label("abc", [(2, 0)], {2})
    assert labels.remove_class(0) == 2
    assert labels.taxonomy.names == ("stroma", "necrosis")
    assert dict(labels.tiles("abc")) == {(1, 0): {1}, (2, 0): {1}}
    labels.remove_class(0)
    with pytest.raises(DataError, match="has to stay"):
        labels.remove_class(0)


def test_new_classes_get_colours_of_their_own(labels):
    labels.remove_class(0)
    labels.add_class()
    labels.add_class()
    colours = [c.colour for c in labels.taxonomy]
    assert len(set(colours)) == 3
    assert labels.taxonomy.names == ("stroma", "class 2", "class 3")


@pytest.mark.parametrize("name", ["", "  ", "path", "Path", "x", "a,b", 'say "a"', "a\tb"])
def test_names_that_would_break_a_table_are_refused(labels, name):
    with pytest.raises(DataError):
        check_class_name(name)
    with pytest.raises(DataError):
        labels.rename_class(0, name)
    assert labels.taxonomy.names[0] == "tumour"


def test_a_name_given_twice_is_refused(labels):
    with pytest.raises(DataError, match="cannot both be named “stroma”"):
        labels.rename_class(0, " stroma ")


def test_the_size_stays_while_tiles_are_labelled(labels):
    labels.label("abc", [(0, 0)], {0})
    with pytest.raises(DataError, match=r"1 tiles are labelled at 224 px at 0\.5 µm; remove"):
        labels.resize(TileSize(pixels=512))
    labels.clear()
    labels.resize(TileSize(pixels=512))
    assert labels.size.pixels == 512


def test_a_slide_whose_microns_changed_keeps_its_labels_until_it_is_restarted(labels):
    labels.label("abc", [(0, 0)], {0})
    corrected = FACTS.model_copy(update={"mpp": 0.5})
    with pytest.raises(DataError, match=r"labelled at 0\.25 microns per pixel and has 0\.5 now"):
        labels.add_slide(corrected)
    assert labels.restart_slide(corrected) == 1
    labels.add_slide(corrected)
    labels.undo()
    assert dict(labels.tiles("abc")) == {(0, 0): {0}}
    with pytest.raises(DataError):
        labels.add_slide(corrected)


def test_labels_come_back_from_disk(labels, tmp_path):
    labels.add_class("Nekrose & Übergang")
    labels.label("abc", [(0, 0), (3, 4)], {0, 2})
    labels.label("def", [(1, 1)], {1})
    labels.snapshot().write(tmp_path)
    read = LabelledSlides.read(tmp_path)
    assert read == labels.snapshot()
    again = SlideLabels.from_labelled(read)
    assert again.snapshot() == labels.snapshot()
    assert again.counts == labels.counts
    assert not again.can_undo


def test_a_snapshot_does_not_follow(labels):
    labels.label("abc", [(0, 0)], {0})
    snapshot = labels.snapshot()
    labels.clear()
    assert len(snapshot) == 1


@pytest.mark.parametrize("damage", [("[0,0,[0]]", "[0,0,[7]]"), ("[0,0,[0]]", "[-1,0,[0]]"), ("}", ""), ('"a"', "3")])
def test_damaged_labels_are_told(labels, tmp_path, damage):
    labels.label("abc", [(0, 0)], {0})
    labels.snapshot().write(tmp_path)
    path = tmp_path / LABELS
    text = path.read_text(encoding="utf-8").replace(", ", ",").replace(": ", ":")
    assert damage[0] in text
    path.write_text(text.replace(*damage), encoding="utf-8")
    with pytest.raises(DataError, match=r"labels\.json cannot be read; restore"):
        LabelledSlides.read(tmp_path)


def test_a_folder_without_labels_holds_none(tmp_path):
    assert LabelledSlides.read(tmp_path) is None


def test_labels_remember_where_they_come_from(labels, tmp_path):
    labels.label("abc", [(0, 0), (1, 0)], {0})
    labels.annotate("abc", {"tumour": [(2, 0)], "stroma": [(1, 0)]})
    assert labels.annotate("def", {"stroma": [(5, 5)]}, origin=Origin.CORRECTED, add=False) == 1
    assert dict(labels.origins("abc")) == {(2, 0): Origin.IMPORTED, (1, 0): Origin.IMPORTED}
    labels.snapshot().write(tmp_path)
    read = LabelledSlides.read(tmp_path)
    assert read == labels.snapshot()
    assert dict(SlideLabels.from_labelled(read).origins("def")) == {(5, 5): Origin.CORRECTED}
    labels.remove_class(0)
    assert dict(labels.origins("abc")) == {(1, 0): Origin.IMPORTED}
    labels.undo()
    assert labels.snapshot() == read
    labels.annotate("abc", {"stroma": [(0, 0)]}, origin=Origin.CORRECTED, add=False)
    assert labels.tiles("abc")[0, 0] == {1}
    labels.label("abc", [(0, 0)], ())
    assert (0, 0) not in labels.origins("abc")
    labels.undo()
    assert labels.origins("abc")[0, 0] is Origin.CORRECTED
