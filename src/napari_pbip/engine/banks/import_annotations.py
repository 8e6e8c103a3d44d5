"""The jobs that make labelled tiles, or regions, of a slide from annotations of another program."""

from __future__ import annotations

from pathlib import Path

from napari_pbip.bank.labelled_slides import LabelledSlides
from napari_pbip.bank.slide_labels import SlideLabels
from napari_pbip.claims import claims
from napari_pbip.engine.banks.cut_tiles import cut_tiles
from napari_pbip.engine.jobs import job, phase
from napari_pbip.events import Finished, Job, Noted
from napari_pbip.results.places import regions_file
from napari_pbip.slides import SlideFacts, open_slide
from napari_pbip.slides.annotations import read_annotations
from napari_pbip.slides.regions import Regions
from napari_pbip.taxonomy import ClassDisplay


@job
@claims("folder", "labelling")
def import_annotations(
    annotations: Path,
    slide: Path,
    folder: Path,
    *,
    pixels: int | None = None,
    tile_mpp: float | None = None,
    mpp: float | None = None,
    class_display: ClassDisplay | None = None,
) -> Job:
    """Label the tiles of a slide of which annotations of a class cover at least half, and cut them.

    Tiles that the folder has already keep their labels and get those of the annotations too.

    Parameters
    ----------
    annotations
        GeoJSON of QuPath, in level-0 pixels of the slide.
    slide
        The slide.
    folder
        Folder of labelled tiles, which ``load_tiles`` reads; it need not exist.
    pixels, tile_mpp
        Side of a tile in pixels, and its microns per pixel; by default those of the folder.
    mpp
        Microns per pixel, if the slide does not give them.
    class_display
        The titles that classes of the folder may have in the annotations.

    Yields
    ------
    Event
        ``Noted`` for what was left out; then those of :func:`cut_tiles`; ``Finished`` with the number of tiles
        that were ``labelled`` now, and the numbers of ``cut_tiles``.

    Raises
    ------
    DataError
        If the annotations cannot be read, are of another slide or cover no tile, or the folder has tiles of another
        size.
    SlideError
        If the slide cannot be read, or its microns per pixel are not known.
    OutputError
        If the folder cannot be written.
    """
    known = LabelledSlides.read(folder)
    labels = SlideLabels() if known is None else SlideLabels.from_labelled(known)
    found = read_annotations(annotations, (class_display or ClassDisplay()).names(labels.taxonomy))
    for note in found.notes:
        yield Noted(note)
    with open_slide(slide, mpp) as opened:
        facts = SlideFacts.from_slide(opened)
    wanted = {"pixels": pixels, "mpp": tile_mpp}
    labels.resize(labels.size.model_copy(update={key: value for key, value in wanted.items() if value is not None}))
    labels.add_slide(facts)
    labelled = labels.annotate(facts.identity, found.tiles_of(facts, labels.size), found.colours)
    summary = yield from phase(cut_tiles(labels.snapshot(), folder))
    yield Finished(folder, {"labelled": labelled, **summary})


@job
@claims("out", "importing regions")
def import_regions(annotations: Path, slide: Path, out: Path) -> Job:
    """Add annotations to the regions of a slide, which are kept in the folder of its results.

    Parameters
    ----------
    annotations
        GeoJSON of QuPath, in level-0 pixels of the slide.
    slide
        The slide.
    out
        Folder of the slide's results; it need not exist.

    Yields
    ------
    Event
        ``Finished`` with the number of regions that were ``imported``, of all ``regions``, and their ``file``.

    Raises
    ------
    DataError
        If the annotations or the earlier regions cannot be read, or do not suit the slide.
    SlideError
        If the slide cannot be read.
    OutputError
        If the folder cannot be written.
    """
    file = regions_file(out)
    earlier, found = Regions.read(file) if file.exists() else Regions(), Regions.read(annotations)
    with open_slide(slide) as opened:
        found.check_on(opened)
        regions = Regions((*earlier, *found), (opened.width, opened.height))
        regions.check_on(opened)
    regions.write(file)
    yield Finished(out, {"imported": len(found), "regions": len(regions), "file": str(file)})
