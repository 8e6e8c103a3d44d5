"""Conversion of label images on disk to layers, which read lazily, and of layers to label images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from napari_pbip.errors import DataError
from napari_pbip.gui.layers.colours import label_colormap
from napari_pbip.gui.layers.units import MICRONS, PIXELS
from napari_pbip.results.label_image import RGB, LabelImage, open_label_image

_UNITS = {"micrometer": MICRONS, None: PIXELS}


def layer_data(path: Path) -> tuple[Any, dict[str, Any], str]:
    """Return a label image of this package as napari's layer data.

    Raises
    ------
    OutputError
        If the folder is not such a label image, or is damaged.
    """
    levels, facts = open_label_image(path)
    options: dict[str, Any] = {
        "name": path.name.removesuffix(".zarr").removesuffix(".ome"),
        "opacity": 0.5,
        "scale": facts.cell,
        "translate": facts.first,
        "units": _UNITS.get(facts.unit, (facts.unit,) * 2),
    }
    if facts.colours:
        options["colormap"] = label_colormap(facts.colours)
    if facts.names:
        options["features"] = {"index": list(facts.names), "class": list(facts.names.values())}
    lazy = [da.from_array(level, chunks=level.chunks) for level in levels]  # type: ignore[no-untyped-call]  # dask's own
    options["multiscale"] = len(lazy) > 1
    return lazy if options["multiscale"] else lazy[0], options, "labels"


def label_image(labels: npt.NDArray[Any], meta: Mapping[str, Any]) -> LabelImage:
    """Return the facts of a label image on disk for a layer.

    Parameters
    ----------
    labels
        Finest level of the layer; all of it is read, to find its values.
    meta
        Attributes of the layer as napari passes them to a writer.

    Raises
    ------
    DataError
        If the layer has more than two dimensions.
    """
    if labels.ndim != 2:
        raise DataError(
            f"The layer {meta['name']} has {labels.ndim} dimensions; only two-dimensional labels can be saved."
        )
    values = [int(value) for value in np.unique(np.asarray(labels)) if value]
    colours = np.atleast_2d(meta["colormap"].map(np.array(values, labels.dtype))) if values else np.empty((0, 4))
    features = meta.get("features")
    named = (
        {} if features is None or "class" not in features else dict(features[["index", "class"]].to_numpy().tolist())
    )
    unit = str(meta["units"][-1])
    return LabelImage(
        name=str(meta["name"]),
        cell=(float(meta["scale"][-2]), float(meta["scale"][-1])),
        first=(float(meta["translate"][-2]), float(meta["translate"][-1])),
        unit=None if unit in ("pixel", PIXELS[0]) else unit,
        colours={value: _rgb(colour) for value, colour in zip(values, colours, strict=True)},
        names={int(value): str(name) for value, name in named.items() if int(value) in values},
    )


def _rgb(colour: npt.NDArray[np.floating[Any]]) -> RGB:
    """Return a colour RGBA in [0, 1] as RGB in 0..255."""
    red, green, blue = (round(255 * float(part)) for part in colour[:3])
    return red, green, blue
