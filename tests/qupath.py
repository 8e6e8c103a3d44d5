"""What QuPath makes of a GeoJSON file, by the rules of its reader, which raises where this one does.

The rules are those of version 0.5, in ``qupath.lib.io``: ``GsonTools`` (classes and collections),
``QuPathTypeAdapters`` (objects) and ``ROITypeAdapters`` (geometries), and of ``qupath.lib.objects.classes.PathClass``.
Members of other names are ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import shapely

_TYPES = ("annotation", "detection", "tile", "cell", "tmaCore", "root", "unknown")


@dataclass(frozen=True)
class PathObject:
    """An object of QuPath."""

    object_type: str
    names: tuple[str, ...]
    """Names of its class, from the most general one; a class without colons has one name, no class none."""
    colour: tuple[int, ...] | None
    """Colour of its class; None lets QuPath choose one."""
    name: str | None
    locked: bool
    measurements: dict[str, float]
    shape: shapely.Geometry


def read(path: Path) -> list[PathObject]:
    """Return the objects of a file."""
    return [*_objects(json.loads(path.read_text(encoding="utf-8")))]


def _objects(element: Any) -> list[PathObject]:
    if isinstance(element, list):
        return [found for one in element for found in _objects(one)]
    if element["type"] == "FeatureCollection":
        return [_object(one) for one in element["features"]]
    assert element["type"] == "Feature", "geometries alone are annotations without a class"
    return [_object(element)]


def _object(feature: dict[str, Any]) -> PathObject:
    properties = feature.get("properties", {})
    if "id" in feature:
        UUID(feature["id"])  # another text is ignored, and of early versions it was the type
    names: tuple[str, ...] = ()
    colour = None
    if properties.get("classification") is not None:
        names, colour = _class(properties["classification"])
    assert isinstance(properties.get("name", ""), str), "a null is no text"
    measurements = properties.get("measurements", {})
    if isinstance(measurements, list):  # of versions before 0.4
        measurements = {one["name"]: one["value"] for one in measurements}
    kind = properties.get("objectType", "unknown")
    assert kind in _TYPES
    locked = properties.get("isLocked", False)
    assert isinstance(locked, bool)
    shape = _shape(feature["geometry"])
    return PathObject(kind, names, colour, properties.get("name"), locked, measurements, shape)


def _class(given: Any) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    if isinstance(given, str):
        return _names(given), None
    if not given or "colorRGB" in given:  # as versions before 0.4 wrote it
        packed = given.get("colorRGB")
        return _names(given.get("name", "")), None if packed is None else (*(packed & 0xFFFFFF).to_bytes(3),)
    assert "color" in given, "a class without a colour is not parsed"
    colour = given["color"]
    assert len(colour) in (0, 3, 4)
    assert all(type(value) is int and 0 <= value <= 255 for value in colour)
    names = _names(given["name"]) if "name" in given else tuple(given["names"])
    return names, tuple(colour[:3]) or None


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(":"))
    assert all(name and not {"\n", "\r"} & set(name) for name in names), "blank names and line breaks are refused"
    return names


def _shape(geometry: dict[str, Any]) -> shapely.Geometry:
    polygons = {"Polygon": [geometry["coordinates"]], "MultiPolygon": geometry["coordinates"]}
    for ring in (ring for polygon in polygons.get(geometry["type"], []) for ring in polygon):
        assert len(ring) >= 4
        assert ring[0] == ring[-1], "a ring of JTS is closed"
    return shapely.from_geojson(json.dumps(geometry))
