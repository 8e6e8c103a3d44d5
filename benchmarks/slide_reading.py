"""Measure how fast slides are read, compared with the decoder alone on the same tiles in the same run.

    python benchmarks/slide_reading.py SLIDE [SLIDE ...] [--mpp 0.5] [--repeat 5]

The floor is decoding every tile of level 0 with imagecodecs, from memory. It is followed by reading the whole level
with this package and with OpenSlide, in megapixels of level 0 per second of processor time (of all threads, so that
other work has little influence) and as a share of the floor. The best of the repetitions is printed; caches are empty
at the start of each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import openslide
import tifffile

from napari_pbip.slides import TileGrid, open_slide

TILE = 224


def main() -> None:
    """Print a table for each slide."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", nargs="+", type=Path)
    parser.add_argument("--mpp", type=float, default=0.5, help="of slides that do not say")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    for path in options.slides:
        with open_slide(path) as slide:
            mpp = slide.mpp or options.mpp
            megapixels = slide.width * slide.height / 1e6
            print(f"\n{path.name}: {slide.width} x {slide.height}, read by {slide.reader}")
        floor = None
        for name, work in candidates(path, mpp):
            seconds = min(processor_time(work) for _ in range(options.repeat))
            if "(floor)" in name:
                floor = seconds
            share = f"{floor / seconds:7.0%}" if floor else ""
            print(f"  {name:50} {megapixels / seconds:7.0f} MPix a core second {share}")


def processor_time(work: Callable[[], None]) -> float:
    """Return the seconds of processor time of all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def candidates(path: Path, mpp: float) -> Iterator[tuple[str, Callable[[], None]]]:
    """Return the functions that are compared, with the floor first if there is one."""
    if (floor := decoder_alone(path)) is not None:
        yield "imagecodecs, tiles in memory (floor)", floor
    yield "Slide, tiles of 224 at the slide's resolution", lambda: tiles(path, mpp, 1)
    yield "Slide, the same, two threads", lambda: tiles(path, mpp, 1, threads=2)
    yield "Slide, tiles of 224 at 1.002 x (resampled)", lambda: tiles(path, mpp, 1.002)
    yield "Slide, tiles of 224 at 2 x", lambda: tiles(path, mpp, 2)
    yield "Slide, thumbnail of 1024 pixels", lambda: thumbnail(path)
    if path.is_file() and openslide.OpenSlide.detect_format(path):
        yield "OpenSlide, regions of 1024", lambda: with_openslide(path, 1024)
        yield "OpenSlide, regions of 224", lambda: with_openslide(path, TILE)


def decoder_alone(path: Path) -> Callable[[], None] | None:
    """Return a function that decodes the tiles of level 0, or None if the file is not a JPEG or JPEG 2000 TIFF."""
    if not path.is_file():
        return None
    try:
        tiff = tifffile.TiffFile(path)
    except tifffile.TiffFileError:
        return None
    with tiff:
        page = tiff.series[0].keyframe
        tiles = list(tiff.filehandle.read_segments(page.dataoffsets, page.databytecounts, flat=True))
        tables, rgb = page.jpegtables, page.photometric == tifffile.PHOTOMETRIC.RGB
        kind = page.compression
    if kind == tifffile.COMPRESSION.JPEG:
        colours = {"colorspace": "RGB" if rgb else "YCBCR", "outcolorspace": "RGB"}
        return lambda: [imagecodecs.jpeg8_decode(t, tables=tables, **colours) for t, _ in tiles] and None
    if kind == tifffile.COMPRESSION.APERIO_JP2000_RGB:
        return lambda: [imagecodecs.jpeg2k_decode(t) for t, _ in tiles] and None
    return None


def tiles(path: Path, mpp: float, factor: float, threads: int = 1) -> None:
    """Read all tiles of the slide, row by row, each by the next free thread."""
    with open_slide(path, mpp=mpp) as slide, ThreadPoolExecutor(threads) as pool:
        grid = TileGrid.plan(slide.width, slide.height, mpp, mpp * factor, TILE, 0)
        places = [grid.box(row, column) for row in range(grid.rows) for column in range(grid.columns)]
        for _ in pool.map(lambda box: slide.read(box.x, box.y, TILE, TILE, mpp * factor), places):
            pass


def thumbnail(path: Path) -> None:
    """Read the thumbnail of the slide."""
    with open_slide(path) as slide:
        slide.thumbnail(1024)


def with_openslide(path: Path, side: int) -> None:
    """Read level 0 in squares, with OpenSlide's cache."""
    with openslide.OpenSlide(path) as slide:
        width, height = slide.dimensions
        for y in range(0, height, side):
            for x in range(0, width, side):
                slide.read_region((x, y), 0, (min(side, width - x), min(side, height - y))).convert("RGB")


if __name__ == "__main__":
    main()
