"""The job that segments a slide of the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_pbip.engine.jobs import JobMaker
from napari_pbip.engine.run_facts import RunFacts
from napari_pbip.errors import SlideError
from napari_pbip.events import Job
from napari_pbip.gui.state.queued_slide import QueuedSlide
from napari_pbip.results.places import result_folder, store_for
from napari_pbip.results.slide_maps import SlideMaps
from napari_pbip.slides import open_slide

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session


def segment_job(session: Session, slide: QueuedSlide) -> JobMaker:
    """Return the function that makes the job in its thread.

    It writes into the slide where its map is, and which map was there before.
    """
    settings, overwrite = slide.settings.segment, slide.overwrite
    chosen = session.maps.chosen_for(slide.path)
    layer = session.slides.of_path(slide.path)
    # a value that was given in the window counts even if it could not be saved beside the slide
    given = layer.slide.mpp if layer is not None and layer.slide.mpp_is_given else None
    given = given or session.project.given_mpp(slide.path)

    def make() -> Job:
        from napari_pbip.engine.inference.segment import segment  # brings torch: not on the main thread
        from napari_pbip.engine.inference.segment_slides import folder_of_map, settings_of

        with open_slide(slide.path) as opened:
            if opened.mpp is None and given is None and settings.mpp is None:
                raise SlideError(
                    f"{slide.path.name} does not say how large its pixels are; open it in Slides, "
                    "give its microns per pixel there, and try again."
                )
            folder = result_folder(slide.results, opened.name, opened.identity)
            used = settings_of(opened, folder, settings, given)
            maps = SlideMaps.find(folder, opened.name, opened.identity, chosen)
            out = folder_of_map(maps, slide.run, used, slide.settings.refine, beside=slide.beside)
            slide.store = store_for(out, opened.name, opened.identity)
            slide.earlier = maps.titles.get(slide.store, "")
        return segment(
            slide.path,
            slide.run,
            out,
            used,
            slide.settings.thresholds.of_classes(RunFacts.read(slide.run).taxonomy.names),
            refine=slide.settings.refine,
            resume=not overwrite,
            overwrite=overwrite,
            focus=lambda: slide.view,
            scheduler=slide.settings.scheduler,
        )

    return make
