"""The job that writes the results of a store at given thresholds: labels, areas and overlay."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from napari_pbip.config import RefineSettings, ThresholdSettings
from napari_pbip.engine.inference.refine import refiner
from napari_pbip.engine.jobs import job
from napari_pbip.errors import SlideError
from napari_pbip.events import Finished, Job, Started, Step, Warned
from napari_pbip.results.areas import write_areas
from napari_pbip.results.label_files import writing_labels
from napari_pbip.results.lazy import analysed_blocks
from napari_pbip.results.overlay import write_overlay
from napari_pbip.results.places import AREAS, OVERLAY, OVERLAY_SIDE
from napari_pbip.results.store import ScoreStore
from napari_pbip.slides import open_slide


@job
def write_results(path: Path, thresholds: ThresholdSettings, refine: RefineSettings | None = None) -> Job:
    """Write the labels at these thresholds into a score store, and areas and overlay beside it.

    Earlier ones are replaced. If the slide was moved, only the overlay is missing, unless labels are refined.

    Parameters
    ----------
    path
        Path of the score store.
    thresholds
        Thresholds by which scores become labels.
    refine
        Settings that say whether a dense CRF refines the labels; their test-time augmentation only affects scores.

    Raises
    ------
    ConfigError
        If the thresholds name an unknown class.
    SlideError
        If labels are to be refined and the slide cannot be read.
    OutputError
        If the store is damaged or cannot be written.
    """
    store = ScoreStore.open(path)
    facts = store.facts.slide
    blocks = len(analysed_blocks(store))
    yield Started("Writing labels", total=blocks + 2, unit="parts")
    with (
        refiner(store, thresholds, refine) as refined,
        closing(writing_labels(store, thresholds, refined)) as writing,
    ):
        for done in writing:
            yield Step(done)
    rows = write_areas(path.parent / AREAS, store)
    yield Step(blocks + 1)
    try:
        with open_slide(facts.path, facts.mpp) as slide:
            write_overlay(path.parent / OVERLAY, store, slide.thumbnail(OVERLAY_SIDE))
    except SlideError as error:
        yield Warned(f"There is no new overlay picture: {error}")
    yield Step(blocks + 2)
    yield Finished(path, {"areas": [asdict(row) for row in rows]})
