"""The job that writes what thresholds make of a store: labels, areas, overlay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from napari_pbip.config import RefineSettings, ThresholdSettings
from napari_pbip.engine.jobs import job
from napari_pbip.errors import SlideError
from napari_pbip.events import Finished, Job, Started, Step, Warned
from napari_pbip.results.areas import Area, areas, write_areas
from napari_pbip.results.labels import Refine, writing_labels, written_chunks
from napari_pbip.results.overlay import write_overlay
from napari_pbip.results.store import ScoreStore
from napari_pbip.slides import Slide, open_slide

AREAS = "areas.csv"
OVERLAY = "overlay.png"
OVERLAY_SIDE = 1600
"""Longest side of the overlay picture, pixels."""


@job
def freeze(path: Path, thresholds: ThresholdSettings, refine: RefineSettings | None = None) -> Job:
    """Write the labels that these thresholds give into a score store, with areas and overlay beside it.

    Earlier ones are replaced. A slide that is not where it was costs the overlay alone, unless labels are refined.

    Parameters
    ----------
    path
        The score store.
    thresholds
        From scores to labels.
    refine
        Whether a dense CRF refines the labels; test-time augmentation was a matter of the scores.

    Raises
    ------
    ConfigError
        If the thresholds name a class that there is not.
    SlideError
        If labels are to be refined and the slide cannot be read.
    OutputError
        If the store is damaged or cannot be written.
    """
    store = ScoreStore.open(path)
    facts = store.facts.slide
    chunks = len(written_chunks(store))
    yield Started("Writing labels", total=chunks + 2, unit="parts")
    with (
        refiner(store, thresholds, refine) as refined,
        closing(writing_labels(store, thresholds, refined)) as writing,
    ):
        for done in writing:
            yield Step(done)
    rows = write_table(store, path.parent)
    yield Step(chunks + 1)
    try:
        with open_slide(Path(facts.path), facts.mpp) as slide:
            write_picture(store, slide, path.parent)
    except SlideError as error:
        yield Warned(f"There is no new overlay picture: {error}")
    yield Step(chunks + 2)
    yield Finished(path, {"areas": [asdict(row) for row in rows]})


@contextmanager
def refiner(store: ScoreStore, thresholds: ThresholdSettings, refine: RefineSettings | None) -> Iterator[Refine | None]:
    """What refines the labels of a store, if anything is to; it reads the slide.

    Raises
    ------
    SlideError
        If the slide is needed and cannot be read.
    """
    if refine is None or not refine.crf:
        yield None
        return
    from napari_pbip.engine.refine import refined_labels  # torch takes seconds to load: not in the window

    facts = store.facts.slide
    with open_slide(Path(facts.path), facts.mpp) as slide:
        yield refined_labels(store, slide, thresholds)


def write_table(store: ScoreStore, out: Path) -> list[Area]:
    """Write ``areas.csv`` of a store with labels into a folder; returns its rows."""
    rows = areas(store)
    write_areas(out / AREAS, rows)
    return rows


def write_picture(store: ScoreStore, slide: Slide, out: Path) -> None:
    """Write ``overlay.png`` of a store with labels into a folder."""
    write_overlay(out / OVERLAY, store, slide.thumbnail(OVERLAY_SIDE))
