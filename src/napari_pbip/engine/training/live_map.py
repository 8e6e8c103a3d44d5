"""The live map: the tiles in view, classified by a linear probe that is fitted again whenever a label changes.

What does not depend on the labels is kept: features of tiles in memory and on disk, sampled cells of the labelled
tiles and of their mosaics, the tissue, and the last fit, from which the next one starts. A change of a label therefore
costs only a fit to some thousands of cells and a matrix product, and then some mosaics and another fit.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_pbip.bank import LabelledTile, Origin
from napari_pbip.bank.labelled_slides import LabelledSlides, corner
from napari_pbip.engine.dense import Features
from napari_pbip.engine.encoding import chunks
from napari_pbip.engine.jobs import cancellable, job
from napari_pbip.engine.training.linear_probe import DEFAULT_STRENGTH, Ints, cross_validate, groups_of_classes
from napari_pbip.engine.training.live_cells import Bools, LiveCells, Scores
from napari_pbip.engine.training.live_mosaics import LiveMosaics
from napari_pbip.engine.training.live_view import Coloured, Fit, Fitted, Labels, View
from napari_pbip.engine.training.probe import ENOUGH, Cells, cross_validation_summary, fit_with_mixed, groups_of
from napari_pbip.engine.training.tile_features import Place, TileFeatures, tissue_of
from napari_pbip.errors import DataError, SlideError
from napari_pbip.events import Event, Finished, Job, Started, Step, Warned
from napari_pbip.slides import Position, TissueMask

_MEMORY = 1 << 30
"""Bytes of features that are kept in memory."""
_CELLS = 3_000
"""Largest number of cells of tiles that the probe is fitted to, so that a fit takes some tenths of a second."""
_CELLS_A_TILE = 100
_AT_ONCE = 64
"""Largest number of squares that are drawn at once."""


@dataclass(frozen=True, slots=True)
class _Lesson:
    """The labelled tiles that a probe is fitted to."""

    names: tuple[str, ...]
    """The classes that at least one tile shows alone."""
    known: list[int]
    """These classes as indices into the taxonomy."""
    single: list[tuple[LabelledTile, Place]]
    mixed: list[tuple[LabelledTile, Place]]
    """Tiles with several classes."""

    @property
    def places(self) -> list[Place]:
        """The places of the tiles that show one class alone, (T,)."""
        return [place for _, place in self.single]

    @property
    def classes(self) -> Ints:
        """Class of each of them, as an index into ``names``, (T,)."""
        return np.array([tile.class_index for tile, _ in self.single])


class LiveProbe:
    """The probe of a live map with all that is kept between its jobs, of which only one may run at a time.

    Parameters
    ----------
    encoder
        Name of the encoder in the catalogue.
    weights
        Path of its weights, for encoders that need them.
    device
        Device of the computation.
    """

    def __init__(self, encoder: str, weights: Path | None = None, device: str = "auto") -> None:
        self._features = TileFeatures(encoder, weights, device, _MEMORY)
        self._mosaics = LiveMosaics(self._features)
        self._samples: dict[Place, npt.NDArray[np.float32]] = {}
        self._tissue: tuple[object, TissueMask] | None = None
        self._last: tuple[LabelledSlides, _Lesson, Fit] | None = None
        self._used = 0  # mosaics in the last fit

    # the labels ------------------------------------------------------------------------------------------------

    def learn(self, labelled: LabelledSlides, folder: Path) -> Generator[Event, None, Fit]:
        """Fit the probe to labelled tiles and return the fit; the last one if the labels have not changed.

        Parameters
        ----------
        labelled
            The labelled tiles; those that cannot be read are left out with a ``Warned``.
        folder
            Folder of the pictures of the tiles, whose paths become part of the fit.

        Raises
        ------
        DataError
            If fewer than two classes have a tile that shows them alone.
        ConfigError, WeightsUnavailable
            If the encoder cannot be loaded, or has no dense features.
        """
        if self._last is not None and self._last[0] == labelled:
            return self._last[2]
        yield from self._sample(labelled)
        return self._fit(labelled, self._lesson(labelled, folder))

    def improve(self) -> Generator[Event, None, Fit | None]:
        """Compose the mosaics that the last fit lacks, and return a fit to them, too; None if it lacks none."""
        assert self._last is not None
        labelled, lesson, _ = self._last
        yield from self._mosaics.compose(lesson.places, lesson.classes, labelled.size)
        return None if len(self._mosaics) == self._used else self._fit(labelled, lesson)

    def _lesson(self, labelled: LabelledSlides, folder: Path) -> _Lesson:
        """Return the tiles that the probe learns from: those whose cells have been sampled."""
        places = {
            (slide, place): labels
            for slide, tiles in zip(labelled.slides, labelled.tiles, strict=True)
            for place, labels in tiles.items()
            if Place(slide, labelled.size, place) in self._samples
        }
        counts = [list(places.values()).count(frozenset({n})) for n in range(len(labelled.taxonomy))]
        known = [n for n, count in enumerate(counts) if count]
        if len(known) < 2:
            raise DataError("Tiles of two classes are needed, each showing one class alone; label some more.")
        index = {n: i for i, n in enumerate(known)}
        single: list[tuple[LabelledTile, Place]] = []
        mixed: list[tuple[LabelledTile, Place]] = []
        for (slide, place), labels in places.items():
            if not labels <= index.keys() or (len(labels) > 1 and min(counts[n] for n in known) < ENOUGH):
                continue
            x, y = corner(slide.grid(labelled.size), place)
            path, ours = folder / labelled.picture(slide, place), frozenset(index[n] for n in labels)
            tile = LabelledTile(path, ours, origin=Origin(slide.name, x, y))
            (mixed if len(labels) > 1 else single).append((tile, Place(slide, labelled.size, place)))
        return _Lesson(tuple(labelled.taxonomy.names[n] for n in known), known, single, mixed)

    def _fit(self, labelled: LabelledSlides, lesson: _Lesson) -> Fit:
        each = max(1, min(_CELLS_A_TILE, _CELLS // (len(lesson.single) + len(lesson.mixed))))
        of_single, of_mixed = (self._cells(tiles, each) for tiles in (lesson.single, lesson.mixed))
        start = self._last[2].probe if self._last is not None and self._last[2].names == lesson.names else None
        mosaics = self._mosaics.cells(lesson.places, lesson.classes)
        probe = fit_with_mixed(of_single, lesson.classes, of_mixed, mosaics, DEFAULT_STRENGTH, start)
        fit = Fit(lesson.names, np.array(lesson.known, np.uint8) + 1, of_single, lesson.classes, probe)
        self._last, self._used = (labelled, lesson, fit), len(self._mosaics)
        return fit

    def _sample(self, labelled: LabelledSlides) -> Generator[Event, None, None]:
        """Sample cells of the labelled tiles that have no sample yet."""
        lacking = {
            slide: places
            for slide, tiles in zip(labelled.slides, labelled.tiles, strict=True)
            if (places := [p for p in tiles if Place(slide, labelled.size, p) not in self._samples])
        }
        total, done = sum(map(len, lacking.values())), 0
        if total:
            yield from self._features.load()
            yield Started("Reading labelled tiles", total, "tiles")
        for slide, places in lacking.items():
            why = "."
            try:
                for found in self._features.read(slide, labelled.size, places):
                    for place, features in found.items():
                        if features is not None:
                            cells = features.reshape(len(features), -1).T
                            chosen = np.resize(np.random.default_rng(0).permutation(len(cells)), _CELLS_A_TILE)
                            self._samples[Place(slide, labelled.size, place)] = cells[chosen].astype(np.float32)
                    done += len(found)
                    yield Step(done)
            except SlideError as error:
                why = f": {error}"
            if lost := sum(Place(slide, labelled.size, place) not in self._samples for place in places):
                which = "1 labelled tile" if lost == 1 else f"{lost:,} labelled tiles"
                yield Warned(f"{which} of {slide.name} cannot be read and {'is' if lost == 1 else 'are'} left out{why}")

    def _cells(self, tiles: Sequence[tuple[LabelledTile, Place]], each: int) -> Cells:
        dimension = next(iter(self._samples.values())).shape[1]
        features = np.array([self._samples[place][:each] for _, place in tiles], np.float32)
        return Cells([tile for tile, _ in tiles], features.reshape(len(tiles), each, dimension))

    # the view --------------------------------------------------------------------------------------------------

    def colour(self, fit: Fit, view: View) -> Generator[Event, None, None]:
        """Yield the labels of a view, first of squares whose features are in memory, then of the others.

        The labels of a square are yielded again when a neighbour has arrived, with which it is smoothed.

        Raises
        ------
        SlideError
            If the slide cannot be opened, or shows no tissue.
        """
        yield Started("Colouring", len(view.places), "tiles")
        tissue = self._tissue_of(view)
        held = {p: f for p in view.places if (f := self._features.held(Place(view.slide, view.size, p))) is not None}
        lacking = [p for p in view.places if p not in held]
        known: Iterator[dict[Position, Features | None]] = iter([dict(held)])
        cells, done = LiveCells(view.smoothing_um / view.size.microns), 0
        for found in chain(known, self._features.read(view.slide, view.size, lacking)):
            done += len(found)
            readable = {place: features for place, features in found.items() if features is not None}
            for place, features in readable.items():
                cells.add(place, _scores(fit, features), _tissue_in(tissue, view, place, features))
            for batch in chunks(iter(cells.touched(readable)), _AT_ONCE):
                yield Coloured(done, tiles={place: _labels(fit, cells.best(place)) for place in batch})

    def _tissue_of(self, view: View) -> TissueMask:
        file = view.tissue_file
        key = view.slide, view.tissue, file.stat().st_mtime_ns if file.exists() else None
        if self._tissue is None or self._tissue[0] != key:
            self._tissue = key, tissue_of(view.slide, file, view.tissue)
        return self._tissue[1]


def _scores(fit: Fit, features: Features) -> Scores:
    """Return the log-probability of each class in each cell of a square, (N, h, w)."""
    dimension, rows, columns = features.shape
    cells = np.ascontiguousarray(features.reshape(dimension, -1).T, np.float32)
    of_cells = fit.probe.log_probability(cells).astype(np.float32)
    return of_cells.T.reshape(-1, rows, columns)


def _tissue_in(tissue: TissueMask, view: View, place: Position, features: Features) -> Bools:
    """Return which cells of a square are at least half tissue, and count by the regions, (h, w)."""
    _, rows, columns = features.shape
    x, y = corner(view.slide.grid(view.size), place)
    side = view.size.microns / view.slide.mpp
    height, width = side / rows, side / columns
    left, top = x + width * np.arange(columns), y + height * np.arange(rows)
    inside: Bools = tissue.fraction(left, top[:, None], width, height) >= 0.5
    return inside & view.regions.counted(top + height / 2, left + width / 2) if view.regions else inside


def _labels(fit: Fit, best: npt.NDArray[np.intp]) -> Labels:
    """Return class index + 1 of each cell, or 0 where ``best`` is -1."""
    return np.where(best >= 0, fit.values[best], 0).astype(np.uint8)


@job
def live_map(live: LiveProbe, labelled: LabelledSlides, folder: Path, view: View) -> Job:
    """Fit a probe to the labels, and classify the cells of the squares in view.

    Parameters
    ----------
    live
        The probe, with all that earlier calls have computed.
    labelled
        The labelled tiles of all slides.
    folder
        Folder of the pictures of the labelled tiles, whose paths :func:`check_labels` returns.
    view
        The squares to be coloured.

    Yields
    ------
    Event
        ``Loading`` the first time; ``Fitted``; a ``Coloured`` per batch of squares; after ``Started`` and ``Step`` of
        mosaics that were lacking, both again; ``Warned`` for labelled tiles that cannot be read; ``Finished``.

    Raises
    ------
    DataError
        If fewer than two classes have a tile that shows them alone.
    SlideError
        If a slide cannot be opened, or shows no tissue.
    ConfigError, WeightsUnavailable
        If the encoder cannot be loaded, or has no dense features.
    """
    yield Started("Learning from the labels", 1, "fits")
    fit = yield from live.learn(labelled, folder)
    yield Fitted(1, fit=fit)
    yield from live.colour(fit, view)
    if (better := (yield from live.improve())) is not None:  # mosaics take longer than the rest, which is shown before
        yield Fitted(1, fit=better)
        yield from live.colour(better, view)
    yield Finished(None, {"tiles": len(view.places)})


@job
def check_labels(fit: Fit) -> Job:
    """Cross-validate the labels: how well the classes are distinguished, and which tiles do not look like their label.

    Yields
    ------
    Event
        ``Finished`` with ``balanced_accuracy``, ``confusion``, ``slides`` and ``worst`` as in
        :attr:`~napari_pbip.engine.run_facts.RunFacts.fit`. Classes with a single tile are left out; if no class has
        two, the values are None and empty.
    """
    yield Started("Checking the labels", 1, "fits")
    groups, seen = groups_of(fit.single.tiles, fit.classes), None
    if (groups_of_classes(fit.classes, groups) > 1).any():
        seen = yield from cancellable(cross_validate(fit.single.features, fit.classes, groups, (DEFAULT_STRENGTH,)), 0)
    yield Finished(None, cross_validation_summary(fit.names, fit.single.tiles, fit.classes, seen))
