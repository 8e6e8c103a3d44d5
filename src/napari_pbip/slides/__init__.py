"""A slide as pixels at any microns per pixel, its tissue, and the tiles that a network sees."""

from napari_pbip.slides.array import ArrayReader
from napari_pbip.slides.facts import SlideFacts, TileSize
from napari_pbip.slides.grid import Position, Rectangle, SquareGrid, Tile, TileGrid
from napari_pbip.slides.mpp import save_mpp
from napari_pbip.slides.opening import is_slide, open_slide, slides_in
from napari_pbip.slides.reader import Image, Level, Reader, ReaderEntry, readers
from napari_pbip.slides.slide import Slide
from napari_pbip.slides.tissue import TissueMap, TissueMask, find_tissue

__all__ = [
    "ArrayReader",
    "Image",
    "Level",
    "Position",
    "Reader",
    "ReaderEntry",
    "Rectangle",
    "Slide",
    "SlideFacts",
    "SquareGrid",
    "Tile",
    "TileGrid",
    "TileSize",
    "TissueMap",
    "TissueMask",
    "find_tissue",
    "is_slide",
    "open_slide",
    "readers",
    "save_mpp",
    "slides_in",
]
