"""Suggests which tiles to label next: those of all slides of a project that are typical of tissue without a label.

Of each slide, some tiles with tissue are looked at, always the same ones, so that time and memory are limited and the
mean features of a tile are computed once. Their features are clustered, and the most typical tiles of the clusters with
the fewest labels are suggested (TypiClust, Hacohen et al. 2022). ``benchmarks/suggest.py`` compares that with other
strategies.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skactiveml.pool import TypiClust

from napari_pbip.bank.labelled_slides import LabelledSlides
from napari_pbip.config import TissueSettings
from napari_pbip.engine.jobs import job
from napari_pbip.engine.training.linear_probe import Floats, Ints
from napari_pbip.engine.training.tile_features import Place, TileFeatures, tissue_of
from napari_pbip.errors import DataError, OutputError, SlideError
from napari_pbip.events import Event, Finished, Job, Started, Step, Warned
from napari_pbip.results.places import TISSUE, regions_in
from napari_pbip.slides import Position, SlideFacts, TileSize, open_slide

_MOST = 600
"""Number of tiles of all slides that are looked at, beside those with a label."""
_FEWEST = 12
"""Smallest number of them on each slide, however many slides there are."""
_TISSUE = 0.5
"""Share of tissue from which a tile is suggested."""
_MEMORY = 1 << 26
"""Bytes of dense features that are kept in memory; mean features are small."""


@dataclass(frozen=True, slots=True)
class Searched:
    """A slide on which tiles are suggested."""

    path: Path
    mpp: float | None
    """Microns per pixel, or None for those that the slide itself says."""
    folder: Path
    """Its folder of results, with its tissue mask and its regions; without a mask, tissue is found by the settings."""
    skipped: frozenset[Position] = frozenset()
    """Tiles that are not suggested again."""


class Suggester:
    """What is kept between suggestions, of which only one may run at a time: the encoder, and features of tiles.

    Parameters
    ----------
    encoder, weights, device
        As for :class:`~napari_pbip.engine.training.tile_features.TileFeatures`.
    """

    def __init__(self, encoder: str, weights: Path | None = None, device: str = "auto") -> None:
        self._features = TileFeatures(encoder, weights, device, _MEMORY)
        self._means: dict[Place, Floats] = {}

    def means(self, tiles: Sequence[Place]) -> Generator[Event, None, dict[Place, Floats]]:
        """Return the mean dense feature (D,) of those tiles that can be read; the others cause a ``Warned``."""
        lacking = [tile for tile in tiles if tile not in self._means]
        if lacking:
            yield from self._features.load()
        yield Started("Looking at tiles", len(lacking), "tiles")
        done = 0
        for slide, size in dict.fromkeys((tile.slide, tile.size) for tile in lacking):
            own = [tile.position for tile in lacking if (tile.slide, tile.size) == (slide, size)]
            try:
                for found in self._features.read(slide, size, own):
                    for position, features in found.items():
                        if features is not None:
                            mean = features.reshape(len(features), -1).mean(1, dtype=np.float32)
                            self._means[Place(slide, size, position)] = mean
                    done += len(found)
                    yield Step(done)
            except SlideError as error:
                yield Warned(f"No tile of {slide.name} is suggested: {error}")
        return {tile: self._means[tile] for tile in tiles if tile in self._means}


@job
def suggest_tiles(
    suggester: Suggester,
    labelled: LabelledSlides,
    slides: Sequence[Searched],
    count: int,
    tissue: TissueSettings,
) -> Job:
    """Choose the tiles of some slides that should be labelled next; the same ones for the same input.

    Parameters
    ----------
    suggester
        What earlier calls have computed.
    labelled
        The labelled tiles of all slides, and the size of tiles.
    slides
        The slides; those that cannot be read, or whose regions cannot, are left out with a ``Warned``.
    count
        Largest number of tiles.
    tissue
        How tissue is found on slides without a mask.

    Yields
    ------
    Event
        ``Loading`` the first time; ``Finished`` with ``tiles``: pairs of the
        :class:`~napari_pbip.slides.SlideFacts` and the position of a tile, slide by slide in the given order.

    Raises
    ------
    DataError
        If no tile is left to be suggested.
    ConfigError, WeightsUnavailable
        If the encoder cannot be loaded, or has no dense features.
    """
    yield Started("Looking for tissue", len(slides), "slides")
    known = [
        Place(slide, labelled.size, position)
        for slide, tiles in zip(labelled.slides, labelled.tiles, strict=True)
        for position in tiles
    ]
    places: list[Place] = []
    for done, searched in enumerate(slides, 1):
        try:
            facts = _facts(searched)
            taken = {one.position for one in known if one.slide.identity == facts.identity} | searched.skipped
            share = max(_FEWEST, _MOST // len(slides))
            places += [
                Place(facts, labelled.size, position)
                for position in _some(facts, searched, labelled.size, tissue, taken, share)
            ]
        except (SlideError, OutputError) as error:
            yield Warned(f"No tile of {searched.path.name} is suggested: {error}")
        yield Step(done)
    means = yield from suggester.means([*known, *places])
    known, places = ([place for place in some if place in means] for some in (known, places))
    chosen: list[Place] = []
    if places:
        candidates = np.stack([means[place] for place in places])
        of_known = np.array([means[place] for place in known], np.float32).reshape(-1, candidates.shape[1])
        chosen = [places[i] for i in typical(candidates, of_known, count)]
    if not chosen:
        raise DataError(
            "Every tile with tissue that is to be analysed has a label or was skipped, so none is left to be suggested."
        )
    order = list(dict.fromkeys(place.slide.identity for place in places))
    chosen.sort(key=lambda place: order.index(place.slide.identity))
    yield Finished(None, {"tiles": [(place.slide, place.position) for place in chosen]})


def typical(candidates: Floats, labelled: Floats, count: int) -> Ints:
    """Return the candidates that are typical of groups of tiles with few labels, as indices.

    Parameters
    ----------
    candidates
        Mean dense features of tiles without a label, (n, D).
    labelled
        Those of the labelled tiles, (m, D); there may be none.
    count
        Number of tiles to return; fewer if there are fewer candidates that differ from each other and from those.
    """
    features, distinct = np.unique(np.concatenate([labelled, candidates]), axis=0, return_index=True)
    features, distinct = features[distinct.argsort()].astype(np.float64), np.sort(distinct)
    answers = np.where(distinct < len(labelled), 0, np.nan)  # the strategy only looks whether there is one
    batch = min(count, int(np.isnan(answers).sum()))
    if not batch:
        return np.zeros(0, np.intp)
    scale = features.std(0)
    scale[scale < 1e-6] = 1  # for channels that are constant
    found = TypiClust(random_state=0).query((features - features.mean(0)) / scale, answers, batch_size=batch)
    chosen: Ints = distinct[found] - len(labelled)
    return chosen


def _facts(searched: Searched) -> SlideFacts:
    with open_slide(searched.path, searched.mpp) as slide:
        return SlideFacts.from_slide(slide)


def _some(
    facts: SlideFacts,
    searched: Searched,
    size: TileSize,
    settings: TissueSettings,
    taken: Collection[Position],
    count: int,
) -> list[Position]:
    """Return some tiles with tissue that counts and that are not taken, in an order that does not depend on those."""
    grid = facts.grid(size)
    mask = regions_in(searched.folder, facts).tissue(tissue_of(facts, searched.folder / TISSUE, settings))
    x, y = (grid.side * np.arange(number) for number in (grid.columns, grid.rows))
    rows, columns = np.nonzero(mask.fraction(x[None], y[:, None], grid.side, grid.side) >= _TISSUE)
    order = np.random.default_rng(0).permutation(len(rows))
    free = (place for i in order if (place := (int(columns[i]), int(rows[i]))) not in taken)
    return [place for place, _ in zip(free, range(count), strict=False)]
