"""Regions of a slide: polygons with a name that are analysed, or that are left out, kept as GeoJSON of QuPath.

If any region is to be analysed, only the inside of such regions counts, else the whole slide; what is left out counts
nowhere. :meth:`Regions.counted` is the one rule that labels, areas, statistics and exports follow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import shapely

from napari_pbip.errors import DataError
from napari_pbip.files import output_error, write_json
from napari_pbip.slides.geojson import cells_inside, read_features
from napari_pbip.slides.tissue import TissueMask

Positions = npt.NDArray[np.float64]
WHOLE = ""
"""The name under which tables have what counts on the whole slide, beside the names of regions."""


class Kind(StrEnum):
    """What a region is for."""

    ANALYSE = "analyse"
    LEAVE_OUT = "leave out"


_CLASSES = {Kind.ANALYSE: "Region*", Kind.LEAVE_OUT: "Ignore*"}
"""The classes that QuPath has for such regions; a star says that a class is no kind of tissue."""
COLOURS = {Kind.ANALYSE: "#1E6BFF", Kind.LEAVE_OUT: "#B00020"}


class Sized(Protocol):
    """A slide, open or not."""

    @property
    def name(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Region:
    """A region of a slide."""

    name: str
    kind: Kind
    shape: shapely.Geometry
    """A valid Polygon or MultiPolygon in level-0 pixels, with an area."""


@dataclass(frozen=True)
class Regions:
    """The regions of a slide; those with the same name are one region in tables."""

    items: tuple[Region, ...] = ()
    size: tuple[int, int] | None = None
    """Width and height of the slide that they were drawn on, or None if unknown."""

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Region]:
        return iter(self.items)

    @cached_property
    def shapes(self) -> dict[str, shapely.Geometry]:
        """The regions that are analysed, by name: valid geometries in level-0 pixels."""
        parts: dict[str, list[shapely.Geometry]] = {}
        for region in self.items:
            if region.kind is Kind.ANALYSE:
                parts.setdefault(region.name, []).append(region.shape)
        return {name: shapely.union_all(shapes) for name, shapes in parts.items()}

    @cached_property
    def identity(self) -> str:
        """Hash of names, kinds and shapes; empty if there are no regions."""
        if not self.items:
            return ""
        said = [(one.name, one.kind, shapely.to_wkb(shapely.normalize(one.shape), hex=True)) for one in self.items]
        return hashlib.sha256(json.dumps(sorted(said)).encode()).hexdigest()[:16]

    def counted(self, y: Positions, x: Positions) -> npt.NDArray[np.bool_]:
        """Return which points of a grid count, bool (h, w); a cell of a slide counts if its centre does.

        Rows (h,) and columns (w,) are level-0 pixels in ascending order.
        """
        if self.shapes:
            return cells_inside(self._inside, y, x)
        return ~cells_inside(self._left_out, y, x)

    def tissue(self, tissue: TissueMask) -> TissueMask:
        """Return the tissue that counts: a pixel of the mask does if its centre does."""
        if not self.items:
            return tissue
        y, x = (np.arange(0.5, count) * tissue.scale for count in tissue.array.shape)
        return replace(tissue, array=tissue.array & self.counted(y, x))

    def why_not(self, x: float, y: float) -> str:
        """Return why a point, in level-0 pixels, does not count, as a sentence; an empty one if it counts."""
        if not self.items or self.counted(np.array([y]), np.array([x]))[0, 0]:
            return ""
        point = shapely.Point(x, y)
        for region in self.items:
            if region.kind is Kind.LEAVE_OUT and shapely.intersects(region.shape, point):
                return f"It lies in the region “{region.name}”, which is left out."
        return "It lies outside the regions to analyse."

    def touched(self, left: Positions, top: Positions, side: float) -> npt.NDArray[np.bool_]:
        """Return which squares contain something that counts; the edges, in level-0 pixels, broadcast."""
        squares = shapely.box(left, top, left + side, top + side)
        if self.shapes:
            return np.asarray(shapely.intersects(self._inside, squares))
        return np.asarray(~shapely.covers(self._left_out, squares))

    def check_on(self, slide: Sized) -> None:
        """Check that the regions are on the slide, and leave something to analyse.

        Raises
        ------
        DataError
            If they were drawn on a slide of another size, one lies outside the slide, or all of it is left out.
        """
        size = slide.width, slide.height
        on_it = f"{slide.name} ({slide.width:,} x {slide.height:,} pixels)"
        if self.size not in (None, size):
            width, height = self.size
            raise DataError(
                f"The regions were drawn on a slide of {width:,} x {height:,} pixels and not on {on_it}; give the "
                "regions of this slide."
            )
        whole = shapely.box(0, 0, *size)
        for region in self.items:
            if not shapely.area(shapely.intersection(region.shape, whole)):
                raise DataError(
                    f"The region {region.name} lies outside {on_it}; draw it on this slide, in pixels of its full "
                    "resolution, or remove it."
                )
        left = shapely.intersection(self._inside, whole) if self.shapes else whole.difference(self._left_out)
        if left.is_empty:
            raise DataError(f"The regions leave out all of {slide.name}; make what is left out smaller.")

    def write(self, path: Path) -> None:
        """Write as GeoJSON, which QuPath opens as annotations; without regions, remove the file.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        if not self.items:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise output_error(path, error) from error
            return
        features = [
            {
                "type": "Feature",
                "geometry": json.loads(shapely.to_geojson(region.shape)),
                "properties": {
                    "objectType": "annotation",
                    "name": region.name,
                    "classification": {
                        "name": _CLASSES[region.kind],
                        "color": [*bytes.fromhex(COLOURS[region.kind][1:])],
                    },
                },
            }
            for region in self.items
        ]
        size = {} if self.size is None else {"slide": dict(zip(("width", "height"), self.size, strict=True))}
        write_json(path, {"type": "FeatureCollection", **size, "features": features})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the polygons of a GeoJSON file, of this package or of QuPath, as regions.

        A region has the name of its annotation, else of its class, else a number. What has QuPath's class ``Ignore*``
        is left out, and all other polygons are analysed. Points and lines are no regions.

        Raises
        ------
        DataError
            If the file cannot be read, is no GeoJSON, or has no polygons.
        """
        features, _ = read_features(path)
        regions = []
        for number, one in enumerate(features, 1):
            kind = Kind.LEAVE_OUT if one.classification == _CLASSES[Kind.LEAVE_OUT] else Kind.ANALYSE
            known = one.classification if one.classification not in _CLASSES.values() else ""
            if not one.shape.is_empty:
                regions.append(Region(one.name or known or f"region {number}", kind, one.shape))
        if not regions:
            raise DataError(f"{path} has no polygons with an area; draw regions in the program that wrote it.")
        return cls(tuple(regions), _size(path))

    @cached_property
    def _left_out(self) -> shapely.Geometry:
        left_out = shapely.union_all([region.shape for region in self.items if region.kind is Kind.LEAVE_OUT])
        shapely.prepare(left_out)
        return left_out

    @cached_property
    def _inside(self) -> shapely.Geometry:
        inside = shapely.union_all([*self.shapes.values()]).difference(self._left_out)
        shapely.prepare(inside)
        return inside


def _size(path: Path) -> tuple[int, int] | None:
    """Return the size of the slide that a file of this package records."""
    try:
        said = json.loads(path.read_bytes())["slide"]
        return int(said["width"]), int(said["height"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
