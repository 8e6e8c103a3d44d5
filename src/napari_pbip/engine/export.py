"""The job that hands a result on: areas as CSV, a picture as PNG, labels as an OME-Zarr of their own."""

from __future__ import annotations

import shutil
from pathlib import Path

from napari_pbip.config import RefineSettings, ThresholdSettings
from napari_pbip.engine.freeze import AREAS, OVERLAY, freeze
from napari_pbip.engine.jobs import job, phase
from napari_pbip.errors import OutputError
from napari_pbip.events import Finished, Job
from napari_pbip.results.labels import FOLDER

_SOURCES = {".csv": AREAS, ".png": OVERLAY}
FORMATS = {".csv": "Areas per class (*.csv)", ".png": "Overlay picture (*.png)", ".zarr": "Labels (*.ome.zarr)"}
"""What can be written, by the ending of its name, in the words of a file dialog."""


@job
def export(store: Path, thresholds: ThresholdSettings, target: Path, *, refine: RefineSettings | None = None) -> Job:
    """Write what the thresholds make of a store into a file; its ending says what.

    The store's own labels, areas and overlay become the same (:func:`napari_pbip.engine.freeze.freeze`).

    Parameters
    ----------
    store
        The score store.
    thresholds
        From scores to labels.
    target
        ``.csv``: areas per class; ``.png``: the overlay; ``.zarr``: the label image with its pyramid, colours and
        names (OME-Zarr 0.5). A file is replaced, a folder is not.
    refine
        Whether a dense CRF refines the labels.

    Raises
    ------
    OutputError
        If the ending is none of these, the folder exists, the overlay could not be made because the slide is gone, or
        the target cannot be written.
    """
    if target.suffix.lower() not in FORMATS:
        raise OutputError(f"{target.name} does not say what to write; end its name with .csv, .png or .ome.zarr.")
    if target.is_dir():
        raise OutputError(f"{target} exists already; choose another name.")
    yield from phase(freeze(store, thresholds, refine))
    if target.suffix.lower() == ".zarr":
        shutil.copytree(store / FOLDER, target)
    else:
        source = store.parent / _SOURCES[target.suffix.lower()]
        if not source.exists():
            raise OutputError(f"There is no {source.name} to write, because the slide of {store.name} is gone.")
        shutil.copyfile(source, target)
    yield Finished(target)
