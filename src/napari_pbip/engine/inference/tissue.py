"""The job that finds the tissue of a slide, for a user who looks at it and moves the threshold."""

from __future__ import annotations

from pathlib import Path

from napari_pbip.config import TissueSettings
from napari_pbip.engine.jobs import job
from napari_pbip.events import Finished, Job, Started, Warned
from napari_pbip.slides import TissueMap, open_slide


@job
def outline_tissue(
    path: Path, settings: TissueSettings, out: Path, *, mpp: float | None = None, measure: TissueMap | None = None
) -> Job:
    """Find tissue and write the mask as PNG, which :meth:`~napari_pbip.slides.TissueMask.read` reads.

    Parameters
    ----------
    path
        The slide.
    settings
        How tissue is found.
    out
        PNG file to write.
    mpp
        Microns per pixel, where the slide does not say.
    measure
        What an earlier call measured; the slide is read again only if it does not fit the settings.

    Yields
    ------
    Event
        ``Warned`` of what is odd about the slide or its tissue.
        ``Finished`` with ``threshold``, ``area_mm2``, ``mpp`` of the mask, and the ``measure`` for the next call.

    Raises
    ------
    SlideError
        If the slide cannot be read, does not say its microns per pixel, or shows no tissue.
    OutputError
        If the mask cannot be written.
    """
    yield Started("Looking for tissue", total=1, unit="slides")
    if measure is None or not measure.fits(settings):
        with open_slide(path, mpp) as slide:
            for note in slide.notes:
                yield Warned(note)
            measure = TissueMap.from_slide(slide, settings)
    mask = measure.mask(settings)
    for note in mask.notes:
        yield Warned(note)
    mask.write(out)
    yield Finished(out, {"threshold": mask.threshold, "area_mm2": mask.area_mm2, "mpp": mask.mpp, "measure": measure})
