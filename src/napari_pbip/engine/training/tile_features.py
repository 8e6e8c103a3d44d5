"""Dense features of squares of slides, which are kept in memory as far as there is room, and on disk."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cachetools

from napari_pbip.bank.labelled_slides import corner
from napari_pbip.config import TissueSettings
from napari_pbip.engine.dense import DenseFeatures, Features
from napari_pbip.engine.device import choose_device
from napari_pbip.engine.encoding import chunks
from napari_pbip.engine.loading import Image, ahead
from napari_pbip.errors import SlideError
from napari_pbip.events import Loading
from napari_pbip.models import encoders
from napari_pbip.slides import Position, SlideFacts, TileSize, TissueMask, find_tissue, open_slide

PIXELS_AT_ONCE = 4 * 224**2
"""Pixels that are encoded at once: few, so that a job can be replaced soon after a label or the view has changed."""


@dataclass(frozen=True, slots=True)
class Place:
    """A tile of a slide."""

    slide: SlideFacts
    size: TileSize
    position: Position


class TileFeatures:
    """Reads squares of slides and computes their dense features, for which :meth:`load` is called first.

    Parameters
    ----------
    encoder
        Name of the encoder in the catalogue.
    weights
        Path of its weights, for encoders that need them.
    device
        Device of the computation.
    memory
        Bytes of features that are kept in memory.
    """

    def __init__(self, encoder: str, weights: Path | None, device: str, memory: int) -> None:
        self._encoder = encoder, weights, device
        self._dense: DenseFeatures | None = None
        self._held: cachetools.LRUCache[Place, Features] = cachetools.LRUCache(memory, lambda f: f.nbytes)

    def load(self) -> Iterator[Loading]:
        """Load the encoder unless it is loaded, after an event that says so.

        Raises
        ------
        ConfigError, WeightsUnavailable
            If the encoder cannot be loaded, or has no dense features.
        """
        if self._dense is None:
            name, weights, device = self._encoder
            yield Loading(f"the encoder {name}")
            self._dense = DenseFeatures(encoders.load(name, weights).to(choose_device(device)))

    def held(self, place: Place) -> Features | None:
        """Return the features of a tile if they are in memory."""
        return self._held.get(place)

    @property
    def dimension(self) -> int:
        """Length of a feature vector; the encoder must have been loaded."""
        return self._loaded.encoder.dense_dimension

    def encode(self, images: Sequence[Image]) -> list[Features]:
        """Return the features of pictures, (D, h, w) each; the encoder must have been loaded."""
        return self._loaded(images)

    def read(
        self, slide: SlideFacts, size: TileSize, places: Sequence[Position]
    ) -> Iterator[dict[Position, Features | None]]:
        """Yield the features of some tiles at a time; None for a tile that cannot be read.

        The encoder must have been loaded.

        Raises
        ------
        SlideError
            If the slide cannot be opened, or is another one now.
        """
        together = max(1, PIXELS_AT_ONCE // size.pixels**2)
        with closing(self.pictures(slide, size, places, depth=2 * together)) as pictures:
            for batch in chunks(pictures, together):
                found: dict[Position, Features | None] = dict.fromkeys(place for place, _ in batch)
                readable = [(place, image) for place, image in batch if image is not None]
                features = self.encode([image for _, image in readable])
                for (place, _), one in zip(readable, features, strict=True):
                    found[place] = self._held[Place(slide, size, place)] = one
                yield found

    def pictures(
        self, slide: SlideFacts, size: TileSize, places: Sequence[Position], depth: int = 8
    ) -> Generator[tuple[Position, Image | None], None, None]:
        """Yield the pictures of some tiles, RGB uint8, (H, W, 3), in order; None for a tile that cannot be read.

        Up to ``depth`` of them are read ahead, by threads.

        Raises
        ------
        SlideError
            If the slide cannot be opened, or is another one now.
        """
        if not places:
            return
        grid = slide.grid(size)
        with open_slide(slide.path, slide.mpp) as opened:
            if opened.identity != slide.identity:
                raise SlideError(f"{slide.path} is another slide now; open {slide.name} from its present folder.")

            def read(place: Position) -> tuple[Position, Image | None]:
                try:
                    return place, opened.read(*corner(grid, place), size.pixels, size.pixels, size.mpp)
                except SlideError:
                    return place, None

            with closing(ahead(read, places, depth)) as pictures:  # closed before the slide, from which threads read
                yield from pictures

    @property
    def _loaded(self) -> DenseFeatures:
        assert self._dense is not None
        return self._dense


def tissue_of(facts: SlideFacts, file: Path, settings: TissueSettings) -> TissueMask:
    """Return the tissue of a slide: that of a file if it exists, otherwise found by the settings.

    Raises
    ------
    SlideError
        If the slide cannot be opened, or shows no tissue.
    """
    with open_slide(facts.path, facts.mpp) as slide:
        return TissueMask.read(file, slide) if file.exists() else find_tissue(slide, settings)
