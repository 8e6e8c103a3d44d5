"""Polygons on a slide in the GeoJSON of QuPath: features with a class, a name and a colour, in level-0 pixels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from napari_pbip.errors import DataError
from napari_pbip.taxonomy import class_name

SUFFIXES = (".geojson", ".json")


@dataclass(frozen=True, slots=True)
class Feature:
    """A polygon or several, with what QuPath says about it."""

    shape: shapely.Geometry
    """A valid Polygon or MultiPolygon; empty if it has no area."""
    classification: str
    """Name of its class; empty if it has none."""
    colour: str | None
    """Colour ``#RRGGBB`` of its class, or None."""
    name: str
    """Its own name; empty if it has none."""


def read_features(path: Path) -> tuple[list[Feature], int]:
    """Read the polygons of a GeoJSON file; return them, and the number of points and lines, which are left out.

    Polygons that cross themselves are made valid.

    Raises
    ------
    DataError
        If the file cannot be read or is no GeoJSON.
    """
    try:
        features = [*_features(json.loads(path.read_bytes()))]
        shapes = shapely.from_geojson([json.dumps(feature["geometry"]) for feature in features])
        said = [(*_classification(feature), _name(feature)) for feature in features]
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give a GeoJSON file.") from error
    except (ValueError, KeyError, TypeError, AttributeError, shapely.errors.ShapelyError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is no GeoJSON of annotations, or is damaged ({reason}); export it again.") from error
    flat = shapely.get_dimensions(shapes) < 2
    polygons = shapely.make_valid(shapes, method="structure", keep_collapsed=False)
    found = [Feature(polygons[n], *said[n]) for n in np.flatnonzero(~flat)]
    return found, int(flat.sum())


def cells_inside(
    shape: shapely.Geometry, y: npt.NDArray[np.floating[Any]], x: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.bool_]:
    """Return which points of a grid lie inside a polygon, bool (h, w); points on a border belong to one side of it.

    Each row is filled between its crossings with the borders, so that the time hardly depends on their number.

    Parameters
    ----------
    shape
        A valid Polygon or MultiPolygon.
    y, x
        Rows (h,) and columns (w,) of the points, ascending.
    """
    inside = np.zeros((len(y), len(x)), bool)
    left, top, right, bottom = shapely.bounds(shape)
    rows, columns = (slice(*np.searchsorted(at, ends)) for at, ends in ((y, (top, bottom)), (x, (left, right))))
    y, x = y[rows], x[columns]
    corners, ring = shapely.get_coordinates(shapely.get_rings(shapely.get_parts(shape)), return_index=True)
    start, end = corners[:-1][ring[1:] == ring[:-1]], corners[1:][ring[1:] == ring[:-1]]
    first, last = (np.searchsorted(y, edge) for edge in (np.fmin(start, end)[:, 1], np.fmax(start, end)[:, 1]))
    side = np.repeat(np.arange(len(start)), last - first)  # each side of a ring, once for each row that it crosses
    row = np.arange(len(side)) - np.repeat(np.cumsum(last - first) - last, last - first)
    (x0, y0), (dx, dy) = start[side].T, (end - start)[side].T
    column = np.searchsorted(x, x0 + (y[row] - y0) / dy * dx)
    odd = np.zeros((len(y), len(x) + 1), np.uint8)  # whether an odd number of crossings lies before a point
    np.bitwise_xor.at(odd, (row, column), 1)
    inside[rows, columns] = np.bitwise_xor.accumulate(odd, 1)[:, :-1]
    return inside


def _features(document: Any) -> Iterator[Any]:
    """Yield the features of a collection, or of a plain list of features, which QuPath writes too."""
    if isinstance(document, dict) and document["type"] == "Feature":
        yield document
    else:
        yield from document["features"] if isinstance(document, dict) else document


def _name(feature: Any) -> str:
    return class_name((feature.get("properties") or {}).get("name") or "")


def _classification(feature: Any) -> tuple[str, str | None]:
    """Return the name of a feature's class, which is empty if it has none, and its colour."""
    given = (feature.get("properties") or {}).get("classification") or {}
    if isinstance(given, str):  # which QuPath reads too, and other programs write
        return class_name(given), None
    name = given.get("name") or ": ".join(given.get("names") or ())
    if (colour := given.get("color")) is not None:
        return class_name(name), "#{:02X}{:02X}{:02X}".format(*colour)
    packed = given.get("colorRGB")  # of earlier versions of QuPath: a signed integer, alpha in its highest byte
    return class_name(name), None if packed is None else f"#{packed & 0xFFFFFF:06X}"
