"""Cells of mosaics of labelled tiles for the live map, of which those that a change of labels leaves alone are kept."""

from __future__ import annotations

from collections.abc import Generator, Sequence, Set

import cachetools
import numpy as np

from napari_pbip.engine.encoding import chunks
from napari_pbip.engine.loading import Image
from napari_pbip.engine.training.linear_probe import Floats, Ints
from napari_pbip.engine.training.live_view import squares_for
from napari_pbip.engine.training.probe_mosaics import Mosaic, Pieces, compose, plan_mosaics, sampled_cells
from napari_pbip.engine.training.tile_features import PIXELS_AT_ONCE, Place, TileFeatures
from napari_pbip.errors import SlideError
from napari_pbip.events import Event, Started, Step
from napari_pbip.slides import SlideFacts, TileSize

_CELLS = 3_000
"""Largest number of cells of all mosaics, which is that of the tiles in :mod:`.live_map`."""
_CELLS_A_MOSAIC = 100
_PICTURES = 1 << 26
"""Bytes of pictures of tiles that are kept for other mosaics."""

_Key = tuple[int, tuple[Place, ...]]
"""The seed of a mosaic and the tiles of its pieces."""


class LiveMosaics:
    """Composes mosaics of labelled tiles and keeps their cells.

    Parameters
    ----------
    features
        Reads and encodes the tiles.
    """

    def __init__(self, features: TileFeatures) -> None:
        self._features = features
        self._pictures: cachetools.LRUCache[Place, Image] = cachetools.LRUCache(_PICTURES, lambda image: image.nbytes)
        self._cells: dict[_Key, tuple[Floats, Pieces]] = {}

    def cells(self, tiles: Sequence[Place], classes: Ints) -> tuple[Floats, Ints]:
        """Return features, (n, D), and classes, (n,), of cells of the mosaics that have been composed.

        Parameters
        ----------
        tiles
            Tiles that show one class alone, (T,), of one size.
        classes
            Class of each of them, (T,), 0..N-1; each occurs at least once, and N is 2 or more.
        """
        plans = _plans(tiles, classes)
        # what labels of a moment ago needed is not needed again
        self._cells = {key: self._cells[key] for key in plans if key in self._cells}
        each = max(1, _CELLS // len(plans))
        known = [(*cells, classes[list(plans[key].tiles)]) for key, cells in self._cells.items()]
        return (
            np.concatenate([self._none[0], *(of_cells[:each] for of_cells, _, _ in known)]),
            np.concatenate([np.empty(0, np.intp), *(shown[pieces[:each]] for _, pieces, shown in known)]),
        )

    @property
    def _none(self) -> tuple[Floats, Pieces]:
        return np.empty((0, self._features.dimension), np.float32), np.empty(0, np.uint8)

    def __len__(self) -> int:
        return len(self._cells)

    def compose(self, tiles: Sequence[Place], classes: Ints, size: TileSize) -> Generator[Event, None, None]:
        """Compose the mosaics of tiles of ``size`` that have not been composed yet."""
        lacking = [(key, plan) for key, plan in _plans(tiles, classes).items() if key not in self._cells]
        if lacking:
            yield Started("Composing mosaics of labelled tiles", len(lacking), "mosaics")
        side, done = squares_for(size).pixels, 0
        for batch in chunks(iter(lacking), max(1, PIXELS_AT_ONCE // side**2)):
            pictures = self._read({place for (_, places), _ in batch for place in places}, size)
            readable = [(key, plan) for key, plan in batch if all(place in pictures for place in key[1])]
            composed = [compose(plan, [pictures[place] for place in key[1]], side) for key, plan in readable]
            found = self._features.encode([image for image, _ in composed])
            for (key, _), (_, pieces), features in zip(readable, composed, found, strict=True):
                self._cells[key] = sampled_cells(features, pieces, _CELLS_A_MOSAIC)
            # a slide that is gone since its tiles were read has no mosaics, and its tiles count none the less
            self._cells |= {key: self._none for key, _ in batch if key not in self._cells}
            done += len(batch)
            yield Step(done)

    def _read(self, places: Set[Place], size: TileSize) -> dict[Place, Image]:
        """Return the pictures of those places that can be read."""
        found = {place: self._pictures[place] for place in places if place in self._pictures}
        of_slides: dict[SlideFacts, list[Place]] = {}
        for place in places:
            if place not in found:
                of_slides.setdefault(place.slide, []).append(place)
        for slide, lacking in of_slides.items():
            try:
                for position, image in self._features.pictures(slide, size, [place.position for place in lacking]):
                    if image is not None:
                        found[Place(slide, size, position)] = image
            except SlideError:
                continue
        self._pictures.update(found)
        return found


def _plans(tiles: Sequence[Place], classes: Ints) -> dict[_Key, Mosaic]:
    plans = plan_mosaics([f"{tile.slide.name} {tile.position}" for tile in tiles], classes)
    return {(plan.seed, tuple(tiles[n] for n in plan.tiles)): plan for plan in plans}
