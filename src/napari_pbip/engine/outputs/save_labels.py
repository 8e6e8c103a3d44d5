"""The job that writes a label image that is not of a score store, such as a drawn mask."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_pbip.engine.jobs import job
from napari_pbip.events import Finished, Job, Started, Step
from napari_pbip.results.label_image import LabelImage, parts, write_label_image


@job
def save_labels(labels: npt.NDArray[np.integer[Any]], facts: LabelImage, target: Path) -> Job:
    """Write labels as OME-Zarr 0.5; yields a ``Step`` per chunk.

    Parameters
    ----------
    labels
        Labels, (H, W); slices of them may be computed on demand.
    facts
        Position and scale of the labels, and the meaning of their values.
    target
        Path of the new folder.

    Raises
    ------
    OutputError
        If the folder exists or cannot be written.
    """
    yield Started("Saving labels", total=len(parts(labels.shape)), unit="parts")
    with closing(write_label_image(target, labels, facts)) as writing:
        for done in writing:
            yield Step(done)
    yield Finished(target)
