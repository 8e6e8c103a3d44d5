"""Labels of tiles of the bundled slides: ten tiles of each class, and some with two classes.

They are by the authors of napari-pbip, who are not pathologists, and are used by a test and the tutorial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_pbip import samples
from napari_pbip.bank.labelled_slides import LabelledSlides
from napari_pbip.slides import Position, TileSize


@dataclass(frozen=True)
class Lesson:
    """Labelled tiles of a slide, each given by its column and row."""

    slide: Path
    mpp: float | None
    """What its user says where its file does not; microns per pixel."""
    size: TileSize
    tiles: Mapping[str, Sequence[Position]]
    """Of each class those that show it alone."""
    mixed: Mapping[Position, tuple[str, ...]] = field(default_factory=dict)
    """Tiles that show several classes."""

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.tiles)


def _skin() -> Lesson:
    """Return the labels of the bundled project, on which its model was trained."""
    labelled = LabelledSlides.read(samples.project())
    assert labelled is not None
    (placed,) = labelled.tiles
    names = labelled.taxonomy.names
    tiles = {name: [place for place, given in placed.items() if given == {n}] for n, name in enumerate(names)}
    mixed = {place: tuple(names[n] for n in sorted(given)) for place, given in placed.items() if len(given) > 1}
    return Lesson(samples.slide(), None, labelled.size, tiles, mixed)


SKIN = _skin()
CARCINOMA = Lesson(
    samples.frozen_section(),
    0.5,
    TileSize(pixels=112, mpp=0.5),
    {
        "tumour": [(8, 14), (6, 15), (9, 8), (28, 5), (29, 6), (29, 11), (26, 13), (22, 19), (24, 22), (34, 21)],
        "stroma": [(23, 9), (23, 10), (14, 10), (15, 12), (17, 15), (19, 16), (20, 16), (30, 21), (29, 22), (33, 17)],
    },
)
SPINDLE_CELLS = Lesson(
    samples.tumour(),
    1.0,
    TileSize(pixels=112, mpp=1.0),
    {
        "tumour": [(20, 12), (18, 14), (22, 13), (25, 13), (28, 18), (30, 18), (27, 20), (33, 20), (13, 21), (20, 22)],
        "fibrous": [(15, 18), (15, 19), (16, 19), (14, 18), (11, 19), (11, 22), (16, 14), (10, 19), (10, 23), (17, 19)],
        "margin": [(36, 10), (36, 11), (36, 12), (37, 13), (37, 14), (37, 15), (37, 16), (37, 17), (38, 19), (38, 20)],
    },
)
