"""The labels of a score store on disk: an OME-Zarr label image with what it was made by.

Labels that belong to no store have the same form (:mod:`napari_pbip.results.label_image`).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from napari_pbip.claims import claim
from napari_pbip.config import ThresholdSettings
from napari_pbip.errors import OutputError
from napari_pbip.files import present, writing_folder
from napari_pbip.results.label_image import AXES, CHUNK, OURS, LabelImage
from napari_pbip.results.labels import UNASSIGNED_NAME, UNASSIGNED_RGB, Refine, deltas
from napari_pbip.results.largest import LargestScores
from napari_pbip.results.lazy import label_blocks
from napari_pbip.results.pyramid import PyramidWriter, create_levels, nearest
from napari_pbip.results.store import ScoreStore
from napari_pbip.results.store_files import get_array, reading, writing_to
from napari_pbip.taxonomy import NOT_ANALYSED, UNASSIGNED

FOLDER = PurePosixPath("labels/tissue")
"""Where the label image lies in the store."""
_WAIT = 30.0
"""Seconds to wait for another process that writes labels of the same store: it takes about as long."""


def write_labels(store: ScoreStore, thresholds: ThresholdSettings, refine: Refine | None = None) -> None:
    """Write the labels of what is analysed so far as an OME-Zarr 0.5 label image, ``labels/tissue`` in the store.

    uint8 with colours and class names, a pyramid of nearest neighbours, and with the thresholds, the largest
    scores and the cell counts in its attributes. Earlier labels are replaced when the new ones are complete.

    Parameters
    ----------
    store
        Finished or growing.
    thresholds
        From scores to labels.
    refine
        What makes the labels of these thresholds instead of :func:`label_region`; it is asked for chunks.

    Raises
    ------
    ConfigError
        If the thresholds name a class that there is not.
    OutputError
        If the store is damaged, cannot be written, or the disk is full; earlier labels are still there.
    """
    for _ in writing_labels(store, thresholds, refine):
        pass


def writing_labels(
    store: ScoreStore, thresholds: ThresholdSettings, refine: Refine | None = None, target: Path | None = None
) -> Generator[int, None, None]:
    """As :func:`write_labels`, block by block; yields how many are done.

    There are as many as :func:`~napari_pbip.results.lazy.analysed_blocks` names. Closed before the last one, it leaves
    earlier labels as they were. With a ``target``, a folder, the labels go there and the store is not changed.
    """
    largest = LargestScores(store).percentile(thresholds.percentile)
    deltas(store.taxonomy, thresholds)  # raises before anything is written
    folder = target or store.path / FOLDER
    with ExitStack() as ours:
        if target is None:
            ours.enter_context(claim(folder.parent, "writing labels", wait=_WAIT))
            _list_among_labels(folder)
        begun = ours.enter_context(writing_folder(folder))
        group = zarr.create_group(begun, zarr_format=3)
        levels = create_levels(
            group, store.scores[0].shape[1:], chunk=CHUNK, dtype="uint8", fill_value=NOT_ANALYSED, axes=AXES
        )
        counts = np.zeros(256, np.int64)
        pyramid = PyramidWriter(levels, nearest)
        blocks = ours.enter_context(closing(label_blocks(store, thresholds, largest, refine)))
        for done, (y, x, labels) in enumerate(blocks, 1):
            pyramid.write(y, x, labels)
            counts += np.bincount(labels.ravel(), minlength=256)
            yield done
        pyramid.flush()
        attributes = _attributes(store, len(levels), thresholds, largest, counts, refine is not None)
        if target is None:
            attributes["ome"]["image-label"]["source"] = {"image": "../../"}
        group.attrs.update(attributes)


def _list_among_labels(folder: Path) -> None:
    """Name the label image in the group that holds it, beside those of others."""
    file = folder.parent / "zarr.json"
    with writing_to(file):
        for begun in folder.parent.glob("*.partial"):  # zarr's, of a process that was killed
            begun.unlink(missing_ok=True)
        if not file.exists():
            zarr.create_group(folder.parent, zarr_format=3)
    with reading(file, "delete this file, and write the labels again"):
        parent = zarr.open_group(folder.parent, mode="r+", zarr_format=3)
        listed: Any = parent.attrs.get("ome") or {}
        names = [*listed.get("labels", ())]
    if folder.name not in names:
        with writing_to(file):
            parent.attrs["ome"] = {"version": "0.5", **listed, "labels": [*names, folder.name]}


@dataclass(frozen=True, slots=True)
class LabelFacts:
    """What is recorded with the labels of a store."""

    thresholds: ThresholdSettings
    largest: tuple[float, ...]
    """Largest score of each class over the slide, which its delta is a share of."""
    cells: dict[int, int]
    """Level-0 cells of each label value but 0."""
    done: int
    """Tiles that had been analysed when the labels were written."""
    planned: int
    """Tiles to be analysed."""
    refined: bool
    """Whether a dense CRF had a say in them."""


def open_labels(store: ScoreStore) -> tuple[list[zarr.Array[Any]], LabelFacts]:
    """The levels of the label image of a store, finest first, and what is recorded with it.

    Raises
    ------
    OutputError
        If the store holds no labels, or they are damaged.
    """
    folder = present(store.path / FOLDER)
    if not folder.exists():
        raise OutputError(f"{store.path} holds scores but no labels yet; write them first.")
    with reading(folder, "write the labels again"):
        group = zarr.open_group(folder, mode="r", zarr_format=3)
        attributes: Any = dict(group.attrs)
        levels = [get_array(group, entry["path"]) for entry in attributes["ome"]["multiscales"][0]["datasets"]]
        own = attributes[OURS]
        facts = LabelFacts(
            ThresholdSettings.model_validate(own["thresholds"]),
            tuple(map(float, own["largest"])),
            {value: int(own["cells"][str(value)]) for value in (*range(1, len(store.taxonomy) + 1), UNASSIGNED)},
            int(own["tiles"]["done"]),
            int(own["tiles"]["planned"]),
            bool(own.get("refined", False)),  # stores of before there was a choice
        )
    return levels, facts


def _attributes(
    store: ScoreStore,
    levels: int,
    thresholds: ThresholdSettings,
    largest: npt.NDArray[np.floating],
    counts: npt.NDArray[np.int64],
    refined: bool,
) -> dict[str, Any]:
    names = {n + 1: one.name for n, one in enumerate(store.taxonomy)} | {UNASSIGNED: UNASSIGNED_NAME}
    facts = LabelImage(
        name=FOLDER.name,
        cell=(store.cell_um,) * 2,
        first=((store.cell_um - store.facts.slide.mpp) / 2,) * 2,
        colours={n + 1: one.rgb for n, one in enumerate(store.taxonomy)} | {UNASSIGNED: UNASSIGNED_RGB},
        names=names,
    )
    return {
        "ome": facts.metadata(levels),
        OURS: {
            "refined": refined,
            "thresholds": thresholds.model_dump(mode="json"),
            "largest": [float(value) for value in largest],
            "cells": {str(value): int(counts[value]) for value in names},
            "tiles": dict(zip(("done", "planned"), store.progress, strict=True)),
        },
    }
