"""Annotations: polygons that were drawn on a slide and given a class in another program, read from QuPath's GeoJSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely

from napari_pbip.errors import DataError
from napari_pbip.slides.facts import SlideFacts, TileSize
from napari_pbip.slides.geojson import cells_inside, read_features
from napari_pbip.slides.grid import Position, SquareGrid
from napari_pbip.taxonomy import UNASSIGNED_NAME

_ENOUGH = 0.5
"""Share of a tile that the annotations of a class have to cover."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """The annotations of each class, in level-0 pixels of a slide."""

    polygons: Mapping[str, npt.NDArray[np.object_]]
    """Valid polygons by class name; those of one class do not overlap, and those of different classes may."""
    colours: Mapping[str, str]
    """Colours ``#RRGGBB`` of the classes for which the file has one."""
    notes: tuple[str, ...] = ()
    """Sentences on what was left out."""

    def check_on(self, slide: SlideFacts) -> None:
        """Check that the annotations are on the slide.

        Raises
        ------
        DataError
            If one lies completely outside it, as it does if it was drawn on another slide or at another scale.
        """
        whole = shapely.box(0, 0, slide.width, slide.height)
        for name, polygons in self.polygons.items():
            if not shapely.intersects(polygons, whole).all():
                raise DataError(
                    f"Annotations of {name} lie outside {slide.name} ({slide.width:,} x {slide.height:,} pixels); give "
                    "the annotations of this slide, in pixels of its full resolution."
                )

    def tiles_of(self, slide: SlideFacts, size: TileSize) -> dict[str, list[Position]]:
        """Return the tiles of a slide of which the annotations of a class cover at least half, by class name.

        Raises
        ------
        DataError
            If annotations are not on the slide, or cover no tile.
        """
        self.check_on(slide)
        grid = slide.grid(size)
        tiles = {name: covered for name, polygons in self.polygons.items() if (covered := [*_covered(polygons, grid)])}
        if not tiles:
            raise DataError(f"No annotation covers half of a tile of {size}; choose smaller tiles, or draw more.")
        return tiles

    def mask(self, names: tuple[str, ...], shape: tuple[int, int], cell: float) -> npt.NDArray[np.uint8]:
        """Return the class at the centre of each cell of a slide, (H, W): class n as n + 1; 0 for none or several.

        Parameters
        ----------
        names
            Names of the classes; annotations of others are not drawn.
        shape
            Number of cells, (H, W).
        cell
            Side of a cell in level-0 pixels.
        """
        mask = np.zeros(shape, np.uint8)
        several = np.zeros(shape, bool)
        centres = [(np.arange(length) + 0.5) * cell for length in shape]
        for number, name in enumerate(names, 1):
            if name in self.polygons:
                inside = cells_inside(shapely.multipolygons(self.polygons[name]), *centres)
                several |= inside & (mask > 0)
                mask[inside] = number
        mask[several] = 0
        return mask


def read_annotations(path: Path, titles: Mapping[str, str] | None = None) -> Annotations:
    """Read the annotations of a GeoJSON file.

    What an export of this package calls not assigned is left out, because it is no class.

    Parameters
    ----------
    path
        The file.
    titles
        The names of classes by the titles that they may have in the file.

    Raises
    ------
    DataError
        If the file cannot be read, is no GeoJSON, or has no polygons with a class.
    """
    features, flat = read_features(path)
    found: dict[str, list[shapely.Geometry]] = {}
    colours: dict[str, str] = {}
    for feature in features:
        name = (titles or {}).get(feature.classification, feature.classification)
        found.setdefault(name, []).append(feature.shape)
        if feature.colour is not None:
            colours[name] = feature.colour
    found.pop(UNASSIGNED_NAME, None)
    left_out = {"points and lines": flat, "annotations without a class": len(found.pop("", ()))}
    if not found:
        raise DataError(f"{path} has no polygons with a class; give annotations a class in the program that drew them.")
    notes = tuple(f"Left out: {what} ({count:,})." for what, count in left_out.items() if count)
    parts = {name: shapely.get_parts(shapely.union_all(shapes)) for name, shapes in found.items()}
    return Annotations({name: one[shapely.area(one) > 0] for name, one in parts.items()}, colours, notes)


def _covered(polygons: npt.NDArray[np.object_], grid: SquareGrid) -> Iterator[Position]:
    """Yield the squares of a grid of which polygons that do not overlap cover at least half, row by row."""
    places = grid.within(*shapely.total_bounds(polygons))
    if not places:
        return
    left, top = np.array([grid.corner(place) for place in places]).T
    squares = shapely.box(left, top, left + grid.side, top + grid.side)
    square, polygon = shapely.STRtree(polygons).query(squares, predicate="intersects")
    shares = np.bincount(
        square, shapely.area(shapely.intersection(squares[square], polygons[polygon])), minlength=len(places)
    )
    for n in np.flatnonzero(shares >= _ENOUGH * grid.side**2 * (1 - 1e-9)):
        yield places[n]
