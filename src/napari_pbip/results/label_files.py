"""The labels of a score store on disk: an OME-Zarr label image that records the thresholds it was made with.

Label images outside a store have the same format (:mod:`napari_pbip.results.label_image`).
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
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
from napari_pbip.events import Job, Started, Step
from napari_pbip.files import present, writing_folder
from napari_pbip.provenance import Made
from napari_pbip.results.corrections import Cells, Corrections
from napari_pbip.results.counts import LabelCounts
from napari_pbip.results.label_image import AXES, CHUNK, OURS, LabelImage, levels_and_facts, parts
from napari_pbip.results.labels import Refine, deltas
from napari_pbip.results.largest import LargestScores
from napari_pbip.results.lazy import label_blocks
from napari_pbip.results.provenance import Provenance
from napari_pbip.results.pyramid import PyramidWriter, create_levels, nearest
from napari_pbip.results.store import ScoreStore
from napari_pbip.results.store_files import reading, remove_begun, writing_to
from napari_pbip.slides.regions import WHOLE
from napari_pbip.taxonomy import NOT_ANALYSED, UNASSIGNED, Taxonomy

FOLDER = PurePosixPath("labels/tissue")
"""Path of the label image in the store."""
REWRITE = "write the labels again"
"""What to do about damaged labels."""
_WAIT = 30.0
"""Seconds to wait for another process that writes labels of the same store, which takes about this long."""


def write_labels(store: ScoreStore, thresholds: ThresholdSettings, refine: Refine | None = None) -> None:
    """Write the labels of the analysed part of a slide as an OME-Zarr 0.5 label image, ``labels/tissue`` in the store.

    The image is uint8, with colours and class names and a nearest-neighbour pyramid. Its attributes record the
    thresholds, the largest scores and the cell counts. Earlier labels are replaced when the new ones are complete. They
    are those of the model: :func:`open_labels` lays the corrections by hand over them.

    Parameters
    ----------
    store
        A finished or growing store.
    thresholds
        Thresholds by which scores become labels.
    refine
        Function that computes the labels of a chunk with these thresholds instead of :func:`label_region`.

    Raises
    ------
    ConfigError
        If the thresholds name an unknown class.
    OutputError
        If the store is damaged or cannot be written, or the disk is full; earlier labels are kept.
    """
    for _ in writing_labels(store, thresholds, refine):
        pass


def writing_labels(
    store: ScoreStore, thresholds: ThresholdSettings, refine: Refine | None = None, target: Path | None = None
) -> Generator[int, None, None]:
    """Write labels as :func:`write_labels` does, block by block; yield the number of blocks done.

    The blocks are those of :func:`~napari_pbip.results.lazy.analysed_blocks`. If the generator is closed before the
    last one, earlier labels are kept. With a ``target``, which is a folder, labels are written there and not in the
    store.
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
        counts = LabelCounts(store)
        pyramid = PyramidWriter(levels, nearest)
        blocks = ours.enter_context(closing(label_blocks(store, thresholds, largest, refine, corrected=False)))
        for done, (y, x, labels) in enumerate(blocks, 1):
            pyramid.write(y, x, labels)
            counts.add(y, x, labels)
            yield done
        pyramid.flush()
        attributes = _attributes(store, len(levels), thresholds, largest, counts, refine is not None)
        if target is None:
            attributes["ome"]["image-label"]["source"] = {"image": "../../"}
        group.attrs.update(attributes)


def _list_among_labels(folder: Path) -> None:
    """Add the label image to the list in its group, which may contain label images of other programs."""
    file = folder.parent / "zarr.json"
    with writing_to(file):
        remove_begun(folder.parent, inside=False)
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
    """Facts that are recorded with the labels of a store."""

    thresholds: ThresholdSettings
    largest: tuple[float, ...]
    """Largest score of each class over the slide, of which delta is a share."""
    cells: dict[str, dict[int, int]]
    """Number of level-0 cells of each label value but 0: on the slide, by the name ``WHOLE``, and in each region."""
    by_hand: dict[str, dict[int, int]]
    """Number of these cells that have their label from a correction by hand."""
    done: int
    """Number of tiles that had been analysed when the labels were written."""
    planned: int
    """Number of tiles to be analysed in all."""
    refined: bool
    """Whether the labels were refined by a dense CRF."""
    regions: str
    """Identity of the regions by which cells counted."""
    image: LabelImage
    """Names and colours of the values."""
    made: Made | None
    """When they were made, and by whom; None in labels of earlier versions."""

    def corrected_mm2(self, store: ScoreStore) -> float:
        """Return the area that was corrected by hand."""
        return sum(self.by_hand[WHOLE].values()) * (store.cell_um / 1000) ** 2

    def provenance(self, store: ScoreStore) -> Provenance:
        """Return what the labels of the store come from."""
        return Provenance(
            store.facts, self.thresholds, self.refined, self.regions, self.made, self.corrected_mm2(store)
        )

    def check_regions(self, store: ScoreStore) -> None:
        """Check that the labels follow the present regions of their slide.

        Raises
        ------
        OutputError
            If the regions have changed since the labels were written.
        """
        if self.regions != store.regions.identity:
            raise OutputError(
                f"The regions of {store.facts.slide.name} have changed since the labels in {store.path} were written; "
                f"{REWRITE}, or give `thresholds`."
            )


class CorrectedLabels:
    """A level of a label image with the corrections by hand laid over it, with what is used of an array.

    Slices of it, ``level[y, x]``, are read when they are asked for.
    """

    def __init__(self, labels: zarr.Array[Any], corrections: Corrections, level: int) -> None:
        self.shape, self.ndim, self.chunks, self.dtype = labels.shape, labels.ndim, labels.chunks, labels.dtype
        self._labels, self._corrections, self._level = labels, corrections, level

    def __getitem__(self, key: Any) -> Cells:
        y, x = key if isinstance(key, tuple) else (key, slice(None))
        return self._corrections.over(np.asarray(self._labels[y, x]), self._level, y, x)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return all of it, for numpy."""
        return np.asarray(self[:], dtype)


def open_labels(store: ScoreStore, folder: Path | None = None) -> tuple[list[CorrectedLabels], LabelFacts]:
    """Open the levels of a store's label image, finest first, and its facts, both with the corrections by hand.

    Parameters
    ----------
    store
        The store that the labels belong to.
    folder
        The label image; by default the one in the store.

    Raises
    ------
    OutputError
        If the store holds no labels, or they are damaged.
    """
    folder = folder or present(store.path / FOLDER)
    if not folder.exists():
        raise OutputError(f"{store.path} holds scores but no labels yet; write them first.")
    with reading(folder, REWRITE):
        group = zarr.open_group(folder, mode="r", zarr_format=3)
        own: Any = group.attrs[OURS]
        levels, image = levels_and_facts(group)
        regions = own.get("regions", {"identity": "", "cells": {}})  # missing in stores of earlier versions
        model, corrected = LabelCounts(store), LabelCounts(store)
        for y, x in store.corrections.blocks():
            labels = np.asarray(levels[0][y, x])
            model.add(y.start, x.start, labels)
            corrected.add(y.start, x.start, store.corrections.over(labels, 0, y, x))
        changes = {name: corrected.cells[name] - cells for name, cells in model.cells.items()}
        values = [*range(1, len(store.taxonomy) + 1), UNASSIGNED]
        written = {WHOLE: own["cells"], **regions["cells"]}
        thresholds, refined = recorded_settings(own)
        facts = LabelFacts(
            thresholds=thresholds,
            largest=tuple(map(float, own["largest"])),
            cells={
                name: {
                    value: int(cells[str(value)]) + int(changes[name][value] if name in changes else 0)
                    for value in values
                }
                for name, cells in written.items()
            },
            by_hand={name: {value: int(cells[value]) for value in values} for name, cells in corrected.by_hand.items()},
            done=int(own["tiles"]["done"]),
            planned=int(own["tiles"]["planned"]),
            refined=refined,
            regions=str(regions["identity"]),
            image=image,
            made=Made.model_validate(own["made"]) if "made" in own else None,
        )
    return [CorrectedLabels(level, store.corrections, n) for n, level in enumerate(levels)], facts


def recorded_settings(own: Mapping[str, Any]) -> tuple[ThresholdSettings, bool]:
    """Return the thresholds of labels and whether a dense CRF refined them, from the attributes :data:`OURS` of them.

    Damaged ones raise errors of any kind.
    """
    refined = bool(own.get("refined", False))  # missing in stores of earlier versions
    return ThresholdSettings.model_validate(own["thresholds"]), refined


def copy_labels(path: Path, store: ScoreStore, folder: Path, classes: Taxonomy) -> Job:
    """Write a label image of a store as a separate one, with the corrections by hand.

    Parameters
    ----------
    path
        The folder to write. In the folder ``labels`` of an OME-Zarr 0.5 image, the labels are linked to that image.
    store
        The store that the labels belong to.
    folder
        The label image.
    classes
        The classes as they are called and coloured.

    Raises
    ------
    OutputError
        If the labels are damaged, or the folder cannot be written.
    """
    levels, facts = open_labels(store, folder)
    yield Started(f"Writing {path.name}", total=sum(len(parts(level.shape)) for level in levels), unit="parts")
    done = 0
    with writing_folder(path) as begun:
        group = zarr.create_group(begun, zarr_format=3)
        copies = create_levels(group, levels[0].shape, chunk=CHUNK, dtype="uint8", fill_value=NOT_ANALYSED, axes=AXES)
        for level, copy in zip(levels, copies, strict=True):
            for y, x in parts(level.shape):
                with reading(folder, REWRITE):
                    block = level[y : y + CHUNK, x : x + CHUNK]
                copy[y : y + CHUNK, x : x + CHUNK] = block
                done += 1
                yield Step(done)
        attributes: Any = dict(zarr.open_group(folder, mode="r", zarr_format=3).attrs)
        attributes["ome"]["image-label"] = facts.image.of_classes(classes).meaning  # its source is not the scores
        attributes[OURS] |= {**_counted(facts.cells, facts.regions), "by_hand": _by_value(facts.by_hand[WHOLE])}
        attributes[OURS]["provenance"] = facts.provenance(store).values(classes)
        if linked := path.parent.name == "labels" and _is_image(path.parent.parent):
            attributes["ome"]["image-label"]["source"] = {"image": "../../"}
        group.attrs.update(attributes)
    if linked:
        _list_among_labels(path)


def _is_image(folder: Path) -> bool:
    try:
        attributes = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))["attributes"]
        return "multiscales" in attributes["ome"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _attributes(
    store: ScoreStore,
    levels: int,
    thresholds: ThresholdSettings,
    largest: npt.NDArray[np.floating],
    counts: LabelCounts,
    refined: bool,
) -> dict[str, Any]:
    facts = LabelImage(
        name=FOLDER.name,
        cell=(store.cell_um,) * 2,
        first=((store.cell_um - store.facts.slide.mpp) / 2,) * 2,
    ).of_classes(store.taxonomy)
    return {
        "ome": facts.metadata(levels),
        OURS: {
            "refined": refined,
            "thresholds": thresholds.model_dump(mode="json"),
            "largest": [float(value) for value in largest],
            **_counted(
                {region: {value: int(of[value]) for value in facts.names} for region, of in counts.cells.items()},
                store.regions.identity,
            ),
            "made": Made.now().model_dump(mode="json"),
            "tiles": dict(zip(("done", "planned"), store.progress, strict=True)),
        },
    }


def _counted(cells: Mapping[str, Mapping[int, int]], identity: str) -> dict[str, Any]:
    """Return numbers of cells, by region, and the identity of the regions as attributes."""
    of_regions = {name: _by_value(counts) for name, counts in cells.items() if name != WHOLE}
    return {"cells": _by_value(cells[WHOLE]), "regions": {"identity": identity, "cells": of_regions}}


def _by_value(counts: Mapping[int, int]) -> dict[str, int]:
    return {str(value): count for value, count in counts.items()}
