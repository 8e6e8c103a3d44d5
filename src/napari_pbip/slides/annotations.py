"""Annotations: polygons that were drawn on a slide and given a class in another program, read from QuPath's GeoJSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from skimage.draw import polygon2mask

from napari_pbip.errors import DataError
from napari_pbip.slides.facts import SlideFacts, TileSize
from napari_pbip.slides.grid import Position, SquareGrid
from napari_pbip.taxonomy import UNASSIGNED_NAME, class_name

SUFFIXES = (".geojson", ".json")
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
        for number, name in enumerate(names, 1):
            for polygon in self.polygons.get(name, ()):
                rows, columns, inside = _rasterised(polygon, shape, cell)
                several[rows, columns] |= inside & ~np.isin(mask[rows, columns], (0, number))
                mask[rows, columns][inside] = number
        mask[several] = 0
        return mask


def read_annotations(path: Path) -> Annotations:
    """Read the annotations of a GeoJSON file.

    What an export of this package calls not assigned is left out, because it is no class.

    Raises
    ------
    DataError
        If the file cannot be read, is no GeoJSON, or has no polygons with a class.
    """
    try:
        document = json.loads(path.read_bytes())
        features = [*_features(document)]
        named = [(_classification(feature), feature["geometry"]) for feature in features]
        shapes = shapely.from_geojson([json.dumps(geometry) for _, geometry in named])
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give a GeoJSON file.") from error
    except (ValueError, KeyError, TypeError, AttributeError, shapely.errors.ShapelyError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is no GeoJSON of annotations, or is damaged ({reason}); export it again.") from error
    found: dict[str, list[Any]] = {}
    colours: dict[str, str] = {}
    left_out = Counter[str]()
    for ((name, colour), _), shape in zip(named, shapes, strict=True):
        if name == UNASSIGNED_NAME:
            continue
        if shapely.get_dimensions(shape) < 2:
            left_out["points and lines"] += 1
        elif not name:
            left_out["annotations without a class"] += 1
        else:
            found.setdefault(name, []).append(shapely.make_valid(shape, method="structure", keep_collapsed=False))
            if colour is not None:
                colours[name] = colour
    if not found:
        raise DataError(f"{path} has no polygons with a class; give annotations a class in the program that drew them.")
    notes = tuple(f"Left out: {what} ({count:,})." for what, count in left_out.items())
    parts = {name: shapely.get_parts(shapely.union_all(shapes)) for name, shapes in found.items()}
    return Annotations({name: one[shapely.area(one) > 0] for name, one in parts.items()}, colours, notes)


def _features(document: Any) -> Iterator[Any]:
    """Yield the features of a collection, or of a plain list of features, which QuPath writes too."""
    if isinstance(document, dict) and document["type"] == "Feature":
        yield document
    else:
        yield from document["features"] if isinstance(document, dict) else document


def _classification(feature: Any) -> tuple[str, str | None]:
    """Return the name of a feature's class, which is empty if it has none, and its colour."""
    given = (feature.get("properties") or {}).get("classification") or {}
    name = given.get("name") or ": ".join(given.get("names") or ())
    if (colour := given.get("color")) is not None:
        return class_name(name), "#{:02X}{:02X}{:02X}".format(*colour)
    packed = given.get("colorRGB")  # of earlier versions of QuPath: a signed integer, alpha in its highest byte
    return class_name(name), None if packed is None else f"#{packed & 0xFFFFFF:06X}"


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


def _rasterised(polygon: Any, shape: tuple[int, int], cell: float) -> tuple[slice, slice, npt.NDArray[np.bool_]]:
    """Return the rows and columns of cells around a polygon, and which of their centres lie in it."""
    left, top, right, bottom = np.array(polygon.bounds) / cell
    rows = slice(max(0, int(top)), min(shape[0], int(bottom) + 1))
    columns = slice(max(0, int(left)), min(shape[1], int(right) + 1))
    size = (max(0, rows.stop - rows.start), max(0, columns.stop - columns.start))
    inside = np.zeros(size, bool)
    for ring in (polygon.exterior, *polygon.interiors):
        corners = shapely.get_coordinates(ring)[:, ::-1] / cell - (rows.start + 0.5, columns.start + 0.5)
        inside ^= polygon2mask(size, corners)  # type: ignore[no-untyped-call]
    return rows, columns, inside
