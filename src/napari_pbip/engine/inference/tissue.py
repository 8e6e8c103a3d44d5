"""The job that finds the tissue of a slide, for a user who looks at the outline and changes the threshold."""

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
    """Find the tissue and write the mask as PNG, which :meth:`~napari_pbip.slides.TissueMask.read` reads.

    Parameters
    ----------
    path
        The slide.
    settings
        Settings by which tissue is found.
    out
        PNG file to write.
    mpp
        Microns per pixel, for a slide that does not say them.
    measure
        The measurements of an earlier call; without them, or if they do not suit the settings, the slide is read.

    Yields
    ------
    Event
        ``Warned`` for what is odd about the slide or its tissue; ``Finished`` with ``threshold``, ``area_mm2``, the
        ``mpp`` of the mask, and the ``measure`` for the next call.

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
