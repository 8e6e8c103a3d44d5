"""Label images outside a score store: OME-Zarr 0.5 with a pyramid, colours and class names.

The labels of a score store have the same format (:mod:`napari_pbip.results.label_files`).
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from napari_pbip.errors import OutputError
from napari_pbip.files import writing_folder
from napari_pbip.results.lattice import z_order
from napari_pbip.results.pyramid import PyramidWriter, create_levels, multiscales, nearest
from napari_pbip.results.store_files import get_array
from napari_pbip.taxonomy import UNASSIGNED, UNASSIGNED_NAME, UNASSIGNED_RGB, Taxonomy

RGB = tuple[int, int, int]
CHUNK = 512
AXES = ("y", "x")
OURS = "pbip"
"""Key of the attributes that this package adds to its label images."""


@dataclass(frozen=True, slots=True)
class LabelImage:
    """The position and scale of a label image, and the meaning of its values."""

    name: str
    cell: tuple[float, float]
    """Height and width of a pixel, in :attr:`unit`."""
    first: tuple[float, float]
    """Centre (y, x) of the first pixel; the origin is the centre of the slide's first pixel."""
    unit: str | None = "micrometer"
    """Unit of both axes; None if the size of a pixel is unknown."""
    colours: Mapping[int, RGB] = field(default_factory=dict)
    """Colours of the values."""
    names: Mapping[int, str] = field(default_factory=dict)
    """Names of the values."""

    def of_classes(self, classes: Taxonomy) -> LabelImage:
        """Return the same image with the names and colours of these classes, and those of tissue without one."""
        return replace(
            self,
            colours={n + 1: one.rgb for n, one in enumerate(classes)} | {UNASSIGNED: UNASSIGNED_RGB},
            names={n + 1: one.name for n, one in enumerate(classes)} | {UNASSIGNED: UNASSIGNED_NAME},
        )

    @property
    def meaning(self) -> dict[str, Any]:
        """The NGFF 0.5 attribute ``image-label``: the colours and names of the values."""
        return {
            "version": "0.5",
            "colors": [{"label-value": value, "rgba": [*rgb, 255]} for value, rgb in self.colours.items()],
            "properties": [{"label-value": value, "class": name} for value, name in self.names.items()],
        }

    def metadata(self, levels: int) -> dict[str, Any]:
        """Return the NGFF 0.5 attributes of such an image with this number of levels."""
        return {
            "version": "0.5",
            "multiscales": multiscales(self.name, levels, AXES, self.cell, self.first, self.unit),
            "image-label": self.meaning,
        }


def is_label_image(path: Path) -> bool:
    """Return whether a folder is a label image of this package, which reads one small file."""
    try:
        attributes = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]
        return OURS in attributes and "image-label" in attributes["ome"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_label_image(path: Path, labels: npt.NDArray[np.integer[Any]], facts: LabelImage) -> Generator[int]:
    """Write labels (H, W) into a new folder, which appears only when complete; yield the number of :func:`parts` done.

    Raises
    ------
    OutputError
        If the folder exists, cannot be written, or the disk is full.
    """
    if path.exists():
        raise OutputError(f"{path} exists already; choose another name.")
    with writing_folder(path) as begun:
        group = zarr.create_group(begun, zarr_format=3)
        levels = create_levels(group, labels.shape, chunk=CHUNK, dtype=str(labels.dtype), fill_value=0, axes=AXES)
        pyramid = PyramidWriter(levels, nearest)
        for done, (y, x) in enumerate(parts(labels.shape), 1):
            pyramid.write(y, x, np.asarray(labels[y : y + CHUNK, x : x + CHUNK]))
            yield done
        pyramid.flush()
        group.attrs.update({"ome": facts.metadata(len(levels)), OURS: {}})


def parts(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the first pixel (y, x) of each chunk of an image (H, W), in the order in which they are written."""
    height, width = (-(-side // CHUNK) for side in shape)
    places = sorted(((y, x) for y in range(height) for x in range(width)), key=z_order)
    return [(y * CHUNK, x * CHUNK) for y, x in places]


def open_label_image(path: Path) -> tuple[list[zarr.Array[Any]], LabelImage]:
    """Open the levels of a label image, finest first, and its facts.

    Raises
    ------
    OutputError
        If the folder is not a label image, or is damaged.
    """
    try:
        levels, facts = levels_and_facts(zarr.open_group(path, mode="r", zarr_format=3))
    except Exception as error:  # zarr may raise any error on damaged metadata
        reason = " ".join(str(error).split())
        raise OutputError(
            f"{path} is no label image of napari-pbip, or is damaged ({reason}); save it again."
        ) from error
    return levels, facts


def levels_and_facts(group: zarr.Group) -> tuple[list[zarr.Array[Any]], LabelImage]:
    """Return the levels of a label image, finest first, and its facts; damaged ones raise errors of any kind."""
    ome: Any = group.attrs["ome"]
    entry, meaning = ome["multiscales"][0], ome["image-label"]
    levels = [get_array(group, one["path"]) for one in entry["datasets"]]
    scale, translation = entry["datasets"][0]["coordinateTransformations"]
    facts = LabelImage(
        name=entry["name"],
        cell=(scale["scale"][0], scale["scale"][1]),
        first=(translation["translation"][0], translation["translation"][1]),
        unit=entry["axes"][0].get("unit"),
        colours={one["label-value"]: tuple(one["rgba"][:3]) for one in meaning["colors"]},
        names={one["label-value"]: one["class"] for one in meaning["properties"]},
    )
    return levels, facts
