"""The job that cuts labelled tiles out of slides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from napari_pbip.bank.labelled_slides import LabelledSlides, corner
from napari_pbip.engine.jobs import job
from napari_pbip.errors import SlideError
from napari_pbip.events import Finished, Job, Started, Step, Warned
from napari_pbip.files import write_picture
from napari_pbip.slides import Position, SlideFacts, TileSize, open_slide


@job
def cut_tiles(labelled: LabelledSlides, folder: Path) -> Job:
    """Update a folder of tiles, which ``load_tiles`` reads, to the present labels.

    The labels are written first. Existing pictures are not cut again, so that a cancelled job can be continued. Until a
    job ends successfully, the folder lists the earlier tiles.

    Parameters
    ----------
    labelled
        The labelled tiles.
    folder
        The folder, whose contents :mod:`napari_pbip.bank.labelled_slides` describes.

    Yields
    ------
    Event
        ``Started``; a ``Step`` per tile; ``Warned`` for a slide that cannot be read, whose new tiles are left out until
        it can; ``Finished`` with the numbers ``tiles`` (listed in the folder) and ``cut`` (in this run).

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    labelled.write(folder)
    lacking = [
        {
            path: place
            for place in sorted(tiles, key=lambda place: place[::-1])
            if not (folder / (path := labelled.picture(slide, place))).exists()
        }
        for slide, tiles in zip(labelled.slides, labelled.tiles, strict=True)
    ]
    before = len(labelled) - sum(map(len, lacking))
    yield Started("Cutting tiles", total=len(labelled), unit="tiles", done=before)
    cut = 0
    for slide, places in zip(labelled.slides, lacking, strict=True):
        try:
            for path in _cut(slide, labelled.size, places, folder):
                del places[path]
                cut += 1
                yield Step(before + cut)
        except SlideError as error:
            yield Warned(f"{len(places)} tiles of {slide.name} are left out until it can be read: {error}")
    labelled.write_tables(folder, missing=[path for places in lacking for path in places])
    yield Finished(folder, {"tiles": before + cut, "cut": cut})


def _cut(slide: SlideFacts, size: TileSize, places: dict[Path, Position], folder: Path) -> Iterator[Path]:
    """Write the pictures of a slide row by row; yield the path of each."""
    if not places:
        return
    grid = slide.grid(size)
    with open_slide(slide.path, slide.mpp) as opened:
        if opened.identity != slide.identity:
            raise SlideError(f"{slide.path} is another slide now; open {slide.name} from its present folder.")
        for path, place in list(places.items()):
            pixels = opened.read(*corner(grid, place), size.pixels, size.pixels, size.mpp)
            write_picture(folder / path, Image.fromarray(pixels), "PNG")
            yield path
