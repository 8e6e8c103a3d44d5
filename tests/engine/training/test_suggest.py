"""Suggested tiles: on all slides, on tissue, the same ones every time, and none that was answered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import shapely

from napari_pbip import samples
from napari_pbip.bank.labelled_slides import LabelledSlides, Labels
from napari_pbip.config import TissueSettings
from napari_pbip.engine.training.suggest import Searched, Suggester, suggest_tiles, typical
from napari_pbip.errors import DataError
from napari_pbip.events import Finished, Loading, Started, Warned
from napari_pbip.results.places import REGIONS
from napari_pbip.slides import Position, SlideFacts, TileSize, find_tissue, open_slide
from napari_pbip.slides.regions import Kind, Region, Regions
from napari_pbip.taxonomy import Taxonomy

SIZE = TileSize(pixels=224, mpp=1.0)
Tile = tuple[SlideFacts, Position]


@pytest.fixture(scope="module")
def suggester(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suggester]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platformdirs, "user_cache_path", lambda *_: folder)
        yield Suggester("efficientnet-lite0", device="cpu")


@pytest.fixture
def slides(tmp_path: Path) -> list[Searched]:
    known = ((samples.slide(), None), (samples.frozen_section(), 0.5), (samples.tumour(), 1.0))
    return [Searched(path, mpp, tmp_path / path.stem) for path, mpp in known]


def suggested(
    suggester: Suggester, slides: list[Searched], labels: dict[Tile, Labels], count: int = 12, *, loads: bool = False
) -> Finished:
    facts = tuple({slide.identity: slide for slide, _ in labels}.values())
    tiles = tuple({place: given for (slide, place), given in labels.items() if slide == one} for one in facts)
    labelled = LabelledSlides(Taxonomy.from_names(["tumour", "stroma"]), SIZE, facts, tiles)
    events = list(suggest_tiles(suggester, labelled, slides, count, TissueSettings()))
    assert not [event for event in events if isinstance(event, Warned)]
    if loads:
        announced = [event for event in events if isinstance(event, Started | Loading)]
        assert announced[1:2] == [Loading("the encoder efficientnet-lite0")]
    assert isinstance(events[-1], Finished)
    return events[-1]


def test_all_slides_are_searched_for_tissue_without_an_answer(suggester: Suggester, slides: list[Searched]) -> None:
    first = suggested(suggester, slides, {})
    tiles: list[Tile] = first.summary["tiles"]
    assert len(set(tiles)) == 12
    assert list(dict.fromkeys(slide.path for slide, _ in tiles)) == [one.path for one in slides]
    for slide, place in tiles:
        with open_slide(slide.path, slide.mpp) as opened:
            grid = slide.grid(SIZE)
            share = find_tissue(opened, TissueSettings()).fraction(*grid.corner(place), grid.side, grid.side)
        assert share >= 0.5
    labels = {tile: frozenset({n % 2}) for n, tile in enumerate(tiles[:8])}
    skipped, left = tiles[8:], []
    for one in slides:
        own = frozenset(place for slide, place in skipped if slide.path == one.path)
        left.append(replace(one, skipped=own))
    second = suggested(suggester, left, labels)
    assert not set(second.summary["tiles"]) & set(tiles)
    again = suggested(Suggester("efficientnet-lite0", device="cpu"), left, labels, loads=True)
    assert again.summary == second.summary


def test_what_is_left_out_is_not_asked_about(suggester: Suggester, slides: list[Searched]) -> None:
    one = slides[2]
    with open_slide(one.path, one.mpp) as opened:
        facts = SlideFacts.from_slide(opened)
    half = shapely.box(0, 0, facts.width / 2, facts.height)
    one.folder.mkdir()
    Regions((Region("half", Kind.ANALYSE, half),)).write(one.folder / REGIONS)
    tiles: list[Tile] = suggested(suggester, [one], {}, 40).summary["tiles"]
    grid, whole = facts.grid(SIZE), suggested(suggester, [replace(one, folder=one.folder / "none")], {}, 40)
    assert len(tiles) == 40
    assert max(grid.corner(place)[0] for _, place in whole.summary["tiles"]) > facts.width / 2
    assert max(grid.corner(place)[0] + grid.side / 2 for _, place in tiles) <= facts.width / 2
    (one.folder / REGIONS).write_text("{", encoding="utf-8")
    *events, _ = suggest_tiles(
        suggester, LabelledSlides(Taxonomy.from_names(["tumour"]), SIZE, (), ()), [one, slides[0]], 5, TissueSettings()
    )
    (warning,) = [event.message for event in events if isinstance(event, Warned)]
    assert REGIONS in warning


def test_a_slide_that_cannot_be_read_is_named_and_left_out(suggester: Suggester, slides: list[Searched]) -> None:
    labelled = LabelledSlides(Taxonomy.from_names(["tumour", "stroma"]), SIZE, (), ())
    both = [slides[2], replace(slides[0], path=Path("gone.svs"))]
    *events, last = suggest_tiles(suggester, labelled, both, 5, TissueSettings())
    (warning,) = [event.message for event in events if isinstance(event, Warned)]
    assert "gone.svs" in warning
    assert isinstance(last, Finished)
    assert {slide.path for slide, _ in last.summary["tiles"]} == {slides[2].path}


def test_when_every_tile_is_answered_it_says_so(suggester: Suggester, slides: list[Searched]) -> None:
    with open_slide(slides[2].path, 1.0) as opened:
        grid = SlideFacts.from_slide(opened).grid(SIZE)
    everything = frozenset((column, row) for column in range(grid.columns) for row in range(grid.rows))
    with pytest.raises(DataError, match="none is left"):
        suggested(suggester, [replace(slides[2], skipped=everything)], {})


def test_questions_are_about_groups_without_a_label() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[-4, 0], [4, 0], [0, -6], [0, 6]], np.float32)
    tiles = np.concatenate([centre + rng.normal(0, 0.2, (50, 2)) for centre in centres]).astype(np.float32)
    assert {int(i) // 50 for i in typical(tiles, tiles[:0], 4)} == {0, 1, 2, 3}
    chosen = typical(tiles, tiles[[0, 50]], 2)
    assert {int(i) // 50 for i in chosen} == {2, 3}
    for i in chosen:  # in the middle of its group, where tiles are dense
        assert np.linalg.norm(tiles[i] - centres[i // 50]) < 0.3
    assert set(typical(tiles[:3], tiles[[5, 50]], 20)) == {0, 1, 2}
    assert set(typical(tiles[:1], tiles[:0], 20)) == {0}
    assert set(typical(tiles[[5, 1, 1]], tiles[[5, 50]], 20)) == {1}  # tiles without tissue may be equal
    assert not len(typical(tiles[[5, 5]], tiles[[5, 50]], 20))
