"""The job that exports a result: areas as CSV, a picture as PNG, or labels as a separate OME-Zarr."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

from napari_pbip.config import RefineSettings, ThresholdSettings
from napari_pbip.engine.inference.refine import refiner
from napari_pbip.engine.jobs import job
from napari_pbip.errors import OutputError, SlideError
from napari_pbip.events import Finished, Job, Started, Step
from napari_pbip.results.areas import write_areas
from napari_pbip.results.label_files import writing_labels
from napari_pbip.results.lazy import analysed_blocks, label_blocks
from napari_pbip.results.overlay import LabelSummary, write_overlay
from napari_pbip.results.places import OVERLAY_SIDE
from napari_pbip.results.store import ScoreStore
from napari_pbip.slides import open_slide

FORMATS = {".csv": "Areas per class (*.csv)", ".png": "Overlay picture (*.png)", ".zarr": "Labels (*.ome.zarr)"}
"""The formats by suffix, with descriptions for a file dialog."""


@job
def export(store: Path, thresholds: ThresholdSettings, target: Path, *, refine: RefineSettings | None = None) -> Job:
    """Export the labels of a store at these thresholds in the format of the target's suffix. The store is not changed.

    Parameters
    ----------
    store
        Path of the score store.
    thresholds
        Thresholds by which scores become labels.
    target
        ``.csv``: areas per class; ``.png``: the overlay; ``.zarr``: the label image with its pyramid, colours and
        names (OME-Zarr 0.5). An existing file is replaced, an existing folder is not.
    refine
        Settings that say whether a dense CRF refines the labels.

    Raises
    ------
    OutputError
        If the suffix is unknown, the folder exists, the overlay cannot be drawn because the slide does not exist, or
        the target cannot be written.
    """
    ending = target.suffix.lower()
    if ending not in FORMATS:
        raise OutputError(f"{target.name} does not say what to write; end its name with .csv, .png or .ome.zarr.")
    if target.is_dir():
        raise OutputError(f"{target} exists already; choose another name.")
    scores = ScoreStore.open(store)
    facts = scores.facts.slide
    blocks = len(analysed_blocks(scores))
    yield Started(f"Writing {target.name}", total=blocks + 1, unit="parts")
    with ExitStack() as open_while_writing:
        thumbnail = None
        if ending == ".png":
            try:
                slide = open_while_writing.enter_context(open_slide(facts.path, facts.mpp))
                thumbnail = slide.thumbnail(OVERLAY_SIDE)
            except SlideError as error:
                raise OutputError(
                    f"The overlay needs the slide, and the slide of {store.name} is gone: {error}"
                ) from error
        refined = open_while_writing.enter_context(refiner(scores, thresholds, refine))
        if ending == ".zarr":
            for done in open_while_writing.enter_context(closing(writing_labels(scores, thresholds, refined, target))):
                yield Step(done)
        else:
            summary = LabelSummary(scores, *(() if thumbnail is None else thumbnail.shape[:2]))
            labels = open_while_writing.enter_context(closing(label_blocks(scores, thresholds, refine=refined)))
            for done, block in enumerate(labels, 1):
                summary.add(*block)
                yield Step(done)
            if thumbnail is None:
                write_areas(target, summary.areas)
            else:
                write_overlay(target, scores, thumbnail, summary)
    yield Step(blocks + 1)
    yield Finished(target)
