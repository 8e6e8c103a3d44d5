"""The job of the live map: its labels are those of a probe, and nothing is computed twice."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import shapely

from napari_pbip import samples
from napari_pbip.bank.labelled_slides import LabelledSlides, Labels, corner
from napari_pbip.engine.loading import to_tensor
from napari_pbip.engine.training.live_map import LiveProbe, check_labels, live_map
from napari_pbip.engine.training.live_view import Coloured, Fit, Fitted, View, places_in, squares_for
from napari_pbip.errors import ConfigError, DataError
from napari_pbip.events import Event, Finished, Started, Warned
from napari_pbip.models import encoders
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.results.smoothing import deviation, smooth
from napari_pbip.slides import Position, SlideFacts, TileSize, TissueMask, find_tissue, open_slide
from napari_pbip.slides.regions import Kind, Region, Regions
from napari_pbip.taxonomy import Taxonomy
from tests.gui.sample_labels import SKIN


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platformdirs, "user_cache_path", lambda *_: folder)
        yield folder


@pytest.fixture(scope="module")
def slide() -> SlideFacts:
    with open_slide(samples.slide()) as opened:
        return SlideFacts.from_slide(opened)


@pytest.fixture(scope="module")
def labelled(slide: SlideFacts) -> LabelledSlides:
    tiles: dict[Position, Labels] = {
        place: frozenset({n}) for n, places in enumerate(SKIN.tiles.values()) for place in places[:4]
    }
    taxonomy = Taxonomy.from_names([*SKIN.classes, "nerve"])  # of which no tile is labelled yet
    return LabelledSlides(taxonomy, SKIN.size, (slide,), (tiles,))


@pytest.fixture
def view(slide: SlideFacts, labelled: LabelledSlides, tmp_path: Path) -> View:
    size = squares_for(labelled.size)
    return View(slide, size, places_in(slide, size, (900, 900, 600, 500), 1000), tmp_path / "tissue.png")


@pytest.fixture(scope="module")
def live() -> LiveProbe:
    return LiveProbe("efficientnet-lite0", device="cpu")


def coloured(events: list[Event]) -> dict[Position, np.ndarray]:
    return {place: cells for e in events if isinstance(e, Coloured) for place, cells in e.tiles.items()}


def fitted(events: list[Event]) -> Fit:
    fit = [e.fit for e in events if isinstance(e, Fitted)][-1]
    assert fit is not None
    return fit


def test_every_cell_of_the_view_has_its_likeliest_class(live: LiveProbe, labelled: LabelledSlides, view: View) -> None:
    events = list(live_map(live, labelled, Path("tiles"), view))
    tiles, fit = coloured(events), fitted(events)
    assert tiles.keys() == set(view.places)
    assert fit.names == SKIN.classes
    started = [e for e in events if isinstance(e, Started)][-1]
    assert started.total == len(view.places)
    assert isinstance(events[-1], Finished)
    encoder = encoders.load("efficientnet-lite0")
    with open_slide(samples.slide()) as opened:
        tissue = find_tissue(opened, view.tissue)
        for place in view.places[::3]:
            x, y = corner(view.slide.grid(view.size), place)
            pixels = opened.read(x, y, 224, 224, SKIN.size.mpp)
            features = encoder.dense(to_tensor(pixels[None]))[0].flatten(1).T.numpy()
            likeliest = fit.probe.log_probability(features).argmax(1).reshape(28, 28) + 1
            side = view.size.microns / view.slide.mpp / 28
            shares = tissue.fraction(x + side * np.arange(28), y + side * np.arange(28)[:, None], side, side)
            expected = np.where(shares >= 0.5, likeliest, 0)
            assert np.mean(tiles[place] == expected) > 0.98  # features are kept in half precision
    assert len(np.unique(np.stack(list(tiles.values())))) == 4


def test_the_map_is_smoothed_like_that_of_a_slide(live: LiveProbe, labelled: LabelledSlides, view: View) -> None:
    """Single cells of another class go, and squares join without a seam, in whatever order they have arrived."""
    size = view.size.pixels // 8
    raw = coloured(list(live_map(live, labelled, Path("tiles"), view)))
    smoothed = replace(view, smoothing_um=15.0)
    fresh = LiveProbe("efficientnet-lite0", device="cpu")  # squares arrive a few at a time
    maps = coloured(list(live_map(fresh, labelled, Path("tiles"), smoothed)))
    assert maps.keys() == raw.keys()
    (left, top), (right, bottom) = np.min(view.places, 0), np.max(view.places, 0) + 1
    pictures = [
        np.block([[tiles[c, r] for c in range(left, right)] for r in range(top, bottom)]) for tiles in (raw, maps)
    ]
    edges = [np.count_nonzero(p[:, 1:] != p[:, :-1]) + np.count_nonzero(p[1:] != p[:-1]) for p in pictures]
    assert edges[1] < 0.7 * edges[0]
    fit = fitted(list(live_map(fresh, labelled, Path("tiles"), smoothed)))
    encoder, cells = encoders.load("efficientnet-lite0"), np.arange(size)
    grid, cell = view.slide.grid(view.size), view.size.microns / view.slide.mpp / size
    rows, shares = [], []
    with open_slide(samples.slide()) as opened:
        found = find_tissue(opened, view.tissue)
        for r in range(top, bottom):
            corners = [corner(grid, (c, r)) for c in range(left, right)]
            pixels = np.stack([opened.read(x, y, 224, 224, view.size.mpp) for x, y in corners])
            features = encoder.dense(to_tensor(pixels)).half().float().flatten(2).mT.numpy()
            rows.append(np.hstack([fit.probe.log_probability(f).reshape(size, size, -1) for f in features]))
            shares.append([found.fraction(x + cell * cells, y + cell * cells[:, None], cell, cell) for x, y in corners])
    tissue = np.block(shares) >= 0.5
    whole = smooth(np.concatenate(rows).transpose(2, 0, 1), tissue, deviation(15.0, 8 * view.size.mpp)).argmax(0) + 1
    assert np.mean(pictures[1] == np.where(tissue, whole, 0)) > 0.998


def test_only_the_fit_and_some_mosaics_are_made_again(
    live: LiveProbe, labelled: LabelledSlides, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(live_map(live, labelled, Path("tiles"), view))
    encoded, dense = list[int](), Encoder.dense
    monkeypatch.setattr(Encoder, "dense", lambda self, images: encoded.append(len(images)) or dense(self, images))
    assert fitted(list(live_map(live, labelled, Path("tiles"), view))) is fitted(before)
    (tiles,) = labelled.tiles
    last = list(tiles)[-1]
    other = replace(labelled, tiles=({**tiles, last: frozenset({0})},))
    after = list(live_map(live, other, Path("tiles"), view))
    (composed,) = [e.total for e in after if isinstance(e, Started) and e.unit == "mosaics"]
    assert 0 < sum(encoded) == composed < len(tiles)  # half of all mosaics, which are two for each tile
    changed = [np.mean(coloured(before)[p] != coloured(after)[p]) for p in view.places]
    assert np.max(changed) > 0.05
    warm = coloured(list(live_map(live, labelled, Path("tiles"), view)))
    assert sum(encoded) == composed  # those of the first labels are known from the disk
    agree = [np.mean(warm[p] == coloured(before)[p]) for p in view.places]
    assert np.mean(agree) > 0.99  # wherever the fit began


def test_a_painted_mask_counts(live: LiveProbe, labelled: LabelledSlides, view: View) -> None:
    with open_slide(samples.slide()) as opened:
        found = find_tissue(opened, view.tissue)
    array = np.zeros_like(found.array)
    array[:, : array.shape[1] // 2] = True
    TissueMask(array, found.scale, found.mpp).write(view.tissue_file)
    tiles = coloured(list(live_map(live, labelled, Path("tiles"), view)))
    columns = sorted(tiles)
    assert (tiles[columns[0]][:, :20] > 0).all()
    assert not tiles[columns[-1]].any()


def test_only_what_counts_is_coloured(live: LiveProbe, labelled: LabelledSlides, view: View, slide: SlideFacts) -> None:
    whole = coloured(list(live_map(live, labelled, Path("tiles"), view)))
    analysed, pen = shapely.box(0, 0, 1250, slide.height), shapely.box(1000, 1000, 1100, 1200)
    regions = Regions((Region("half", Kind.ANALYSE, analysed), Region("pen", Kind.LEAVE_OUT, pen)))
    places = places_in(slide, view.size, (900, 900, 600, 500), 1000, regions)
    side = view.size.microns / slide.mpp
    assert set(places) == {place for place in view.places if place[0] * side < 1250}
    assert len(places) < len(view.places)
    tiles = coloured(list(live_map(live, labelled, Path("tiles"), replace(view, places=places, regions=regions))))
    counts = shapely.difference(analysed, pen)
    for place, cells in tiles.items():
        centres = [(at * side + side / 28 * (np.arange(28) + 0.5)) for at in place]
        inside = shapely.contains_xy(counts, *np.meshgrid(*centres))
        np.testing.assert_array_equal(cells, np.where(inside, whole[place], 0))
    assert sum(np.count_nonzero(cells) for cells in tiles.values()) > 0


def test_labels_of_a_slide_that_is_gone_are_left_out(
    live: LiveProbe, labelled: LabelledSlides, view: View, tmp_path: Path
) -> None:
    gone = labelled.slides[0].model_copy(update={"path": tmp_path / "gone.svs", "name": "gone", "identity": "gone"})
    copy = Path(shutil.copy(samples.slide(), tmp_path / "copy.svs"))
    other = gone.model_copy(update={"path": copy, "name": "other", "identity": "other"})
    theirs = {(3, 3): frozenset({0}), (3, 4): frozenset({1})}
    both = replace(labelled, slides=(*labelled.slides, gone, other), tiles=(*labelled.tiles, theirs, theirs))
    events = list(live_map(live, both, Path("tiles"), view))
    of_gone, of_other = [e.message for e in events if isinstance(e, Warned)]
    assert of_gone.startswith("2 labelled tiles of gone cannot be read and are left out: There is no slide")
    assert "is another slide now; open other from its present folder." in of_other
    assert len(fitted(events).single.tiles) == 12


@pytest.mark.parametrize(("pixels", "square"), [(112, 224), (100, 300), (224, 224), (256, 256)])
def test_small_tiles_are_looked_at_together(pixels: int, square: int) -> None:
    assert squares_for(TileSize(pixels=pixels, mpp=0.5)) == TileSize(pixels=square, mpp=0.5)


def test_the_middle_of_the_view_comes_first(slide: SlideFacts) -> None:
    places = places_in(slide, SKIN.size, (0, 0, slide.width, slide.height), 1000)
    assert len(places) == len(set(places)) == 20 * 27
    assert places[0] in [(9, 13), (10, 13)]
    distances = [max(abs(c - 9.5), abs(r - 13)) for c, r in places]
    assert np.corrcoef(distances, np.arange(len(places)))[0, 1] > 0.9
    assert places_in(slide, SKIN.size, (0, 0, slide.width, slide.height), 9) == places[:9]
    assert places_in(slide, SKIN.size, (9000, 0, 100, 100), 9) == ()


def test_the_labels_are_checked(live: LiveProbe, labelled: LabelledSlides, view: View) -> None:
    (tiles,) = labelled.tiles
    wrong = SKIN.tiles["keratin"][5]
    fit = fitted(
        list(live_map(live, replace(labelled, tiles=({**tiles, wrong: frozenset({1})},)), Path("tiles"), view))
    )
    end = list(check_labels(fit))[-1]
    assert isinstance(end, Finished)
    assert 50 < end.summary["balanced_accuracy"] < 100
    confusion = np.array(end.summary["confusion"])
    assert end.summary["slides"] == {view.slide.name: [confusion.trace(), confusion.sum()]}
    first = end.summary["worst"][0]
    assert first["label"] == "dermis"
    assert first["predicted"] == "keratin"
    x, y = corner(view.slide.grid(SKIN.size), wrong)
    assert Path(first["path"]).name == f"x{x}_y{y}.png"


def test_what_cannot_be_mapped_is_one_sentence(labelled: LabelledSlides, view: View) -> None:
    (tiles,) = labelled.tiles
    first = next(iter(tiles))
    alone = replace(labelled, tiles=({first: tiles[first]},))
    with pytest.raises(DataError, match="Tiles of two classes"):
        list(live_map(LiveProbe("efficientnet-lite0"), alone, Path("tiles"), view))
    with pytest.raises(ConfigError, match="no dense features"):
        list(live_map(LiveProbe("texture"), labelled, Path("tiles"), view))
