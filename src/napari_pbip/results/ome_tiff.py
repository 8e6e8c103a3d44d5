"""Labels and scores of a store as OME-TIFF: tiled, compressed, with a pyramid."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import zarr

from napari_pbip.events import Job, Started, Step
from napari_pbip.files import writing
from napari_pbip.results.label_files import REWRITE, CorrectedLabels, open_labels
from napari_pbip.results.provenance import Provenance
from napari_pbip.results.store import ScoreStore
from napari_pbip.results.store_files import reading
from napari_pbip.taxonomy import Taxonomy

_TILE = 512
_POLL = 0.1
"""Seconds between two looks at how far the file is written."""


class _Stopped(Exception):
    """The file is not wanted any more."""


def write_label_tiff(path: Path, store: ScoreStore, folder: Path, classes: Taxonomy) -> Job:
    """Write a label image: uint8, class n as n + 1, 0 not analysed, 255 not assigned, with the classes' colours.

    The description in the OME-XML names the values, and then says where they come from
    (:meth:`Provenance.values`). Parameters and errors are those of
    :func:`~napari_pbip.results.geojson.write_geojson`.
    """
    levels, facts = open_labels(store, folder)
    image = facts.image.of_classes(classes)
    colours = np.zeros((3, 256), np.uint16)
    for value, rgb in image.colours.items():
        colours[:, value] = np.array(rgb, np.uint16) * 257  # 8 to 16 bits
    named = ", ".join(f"{value} = {name}" for value, name in image.names.items())
    metadata = {"axes": "YX", "Description": f"{named}; {_text(facts.provenance(store), classes)}"}
    read = partial(reading, folder, REWRITE)
    return _write(path, store, levels, read, np.uint8, metadata, photometric="palette", colormap=colours)


def write_score_tiff(path: Path, store: ScoreStore, classes: Taxonomy) -> Job:
    """Write the raw scores, a float32 channel for each class; NaN where not analysed.

    The description in the OME-XML says where they come from (:meth:`Provenance.values`). The channels have the names of
    ``classes``.

    Raises
    ------
    OutputError
        If the store is damaged.
    """
    about = _text(Provenance(store.facts), classes)
    metadata = {"axes": "CYX", "Channel": {"Name": list(classes.names)}, "Description": about}
    read = partial(reading, store.path)
    return _write(path, store, store.scores, read, np.float32, metadata, photometric="minisblack", predictor=True)


def _text(provenance: Provenance, classes: Taxonomy) -> str:
    return json.dumps(provenance.values(classes), ensure_ascii=False)


def _write(
    path: Path,
    store: ScoreStore,
    levels: Sequence[zarr.Array[Any] | CorrectedLabels],
    read: Callable[[], AbstractContextManager[None]],
    dtype: type[np.generic],
    metadata: dict[str, Any],
    **options: Any,
) -> Job:
    """Write levels, (H, W) or (C, H, W), in a thread, because tifffile asks for the tiles of a level by itself.

    ``read`` makes the context in which errors of reading get their sentence.
    """
    total = sum(
        int(np.prod([*level.shape[:-2], *(-(-side // _TILE) for side in level.shape[-2:])])) for level in levels
    )
    metadata |= {
        "Name": store.facts.slide.name,
        **{f"PhysicalSize{axis}": store.cell_um for axis in "XY"},
        **{f"PhysicalSize{axis}Unit": "µm" for axis in "XY"},
    }
    done, stopped = 0, False

    def tiles(level: zarr.Array[Any] | CorrectedLabels) -> Iterator[npt.NDArray[Any]]:
        nonlocal done
        *outer, height, width = level.shape
        for place in np.ndindex(*outer, -(-height // _TILE), -(-width // _TILE)):
            if stopped:
                raise _Stopped
            y, x = (n * _TILE for n in place[-2:])
            with read():
                tile = np.asarray(level[*place[:-2], y : y + _TILE, x : x + _TILE], dtype)
            yield tile
            done += 1

    def write(begun: Path) -> None:
        shared = {"dtype": dtype, "tile": (_TILE, _TILE), "compression": "zlib", **options}
        with tifffile.TiffWriter(begun, bigtiff=True, ome=True) as tiff:
            for n, level in enumerate(levels):
                place = {"subfiletype": 1} if n else {"subifds": len(levels) - 1, "metadata": metadata}
                tiff.write(tiles(level), shape=level.shape, **place, **shared)

    yield Started(f"Writing {path.name}", total=total, unit="tiles")
    with writing(path) as begun, ThreadPoolExecutor(1, thread_name_prefix="napari-pbip-tiff") as pool:
        written = pool.submit(write, begun)
        try:
            while not written.done():
                wait([written], _POLL)
                yield Step(done)
        finally:
            stopped = True
        written.result()
