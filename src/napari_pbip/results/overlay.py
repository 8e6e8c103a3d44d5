"""A picture for reports: labels in their colours over a thumbnail of the slide, with a legend."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from napari_pbip.files import write_picture
from napari_pbip.results.areas import Area, area_rows, areas, of_whole
from napari_pbip.results.counts import LabelCounts
from napari_pbip.results.label_files import open_labels
from napari_pbip.results.labels import Labels
from napari_pbip.results.store import ScoreStore
from napari_pbip.results.store_files import reading
from napari_pbip.taxonomy import NOT_ANALYSED, UNASSIGNED, UNASSIGNED_RGB, Taxonomy

RGB = npt.NDArray[np.uint8]
_INK = (30, 30, 30)
_PAPER = (255, 255, 255)


def labels_like(store: ScoreStore, height: int, width: int, folder: Path | None = None) -> Labels:
    """Return the labels of a store as a picture of the whole slide with this size, uint8 (height, width).

    ``folder`` is a label image of the store other than its own, as in :func:`open_labels`.

    Raises
    ------
    OutputError
        If the store holds no labels, or they are damaged.
    """
    levels, _ = open_labels(store, folder)
    level, rows, columns = _cells_under(store, height, width)
    with reading(store.path):
        labels = np.asarray(levels[level][:])
    picked: Labels = labels[rows >> level][:, columns >> level]
    return picked


class LabelSummary:
    """The areas and a picture of labels that are not written, to which blocks are added one by one.

    Parameters
    ----------
    store
        The store that the labels belong to.
    height, width
        Size of the picture of the whole slide in pixels; 0 makes none.

    Attributes
    ----------
    picture
        The labels as a picture of the whole slide, like that of :func:`labels_like`.
    """

    def __init__(self, store: ScoreStore, height: int = 0, width: int = 0) -> None:
        self._store = store
        self._counts = LabelCounts(store)
        _, self._rows, self._columns = _cells_under(store, height, width)
        self.picture: Labels = np.zeros((height, width), np.uint8)

    def add(self, y: int, x: int, labels: Labels) -> None:
        """Add the labels of a rectangle of level-0 cells, whose first cell is (y, x)."""
        self._counts.add(y, x, labels)
        rows, columns = (
            slice(*np.searchsorted(cells, (first, first + length)))
            for cells, first, length in zip((self._rows, self._columns), (y, x), labels.shape, strict=True)
        )
        self.picture[rows, columns] = labels[self._rows[rows] - y][:, self._columns[columns] - x]

    @property
    def areas(self) -> list[Area]:
        """Return the table of areas, like that of :func:`napari_pbip.results.areas.areas`."""
        return area_rows(self._store, self._counts.cells, self._counts.by_hand)


def _cells_under(store: ScoreStore, height: int, width: int) -> tuple[int, npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the coarsest level as fine as a picture of this size, and its cells under the rows and columns."""
    slide = store.facts.slide
    cells = store.cell_um / slide.mpp  # level-0 pixels of the slide under a cell
    level = max((n for n in range(len(store.scores)) if cells * 2**n * height <= slide.height), default=0)
    rows, columns = (
        np.minimum(((np.arange(count) + 0.5) * (side / max(1, count) / (cells * 2**level))).astype(np.intp), length - 1)
        << level
        for count, side, length in zip(
            (height, width), (slide.height, slide.width), store.scores[level].shape[1:], strict=True
        )
    )
    return level, rows, columns


def overlay(thumbnail: RGB, labels: Labels, taxonomy: Taxonomy, opacity: float = 0.45) -> RGB:
    """Blend the colours of the labels into a picture; pixels that were not analysed are not changed.

    Parameters
    ----------
    thumbnail
        RGB uint8, (H, W, 3).
    labels
        uint8, (H, W).
    taxonomy
        The classes with their colours.
    opacity
        Share of the label's colour, 0 to 1.
    """
    colours = np.zeros((256, 3), np.float32)
    colours[1 : len(taxonomy) + 1] = taxonomy.colours
    colours[UNASSIGNED] = UNASSIGNED_RGB
    share = np.full(256, opacity, np.float32)
    share[NOT_ANALYSED] = 0
    alpha = share[labels][..., None]
    mixed: RGB = (thumbnail * (1 - alpha) + colours[labels] * alpha + 0.5).astype(np.uint8)
    return mixed


def write_overlay(
    path: Path, store: ScoreStore, thumbnail: RGB, folder: Path | None = None, classes: Taxonomy | None = None
) -> None:
    """Write the overlay with a legend (class, colour, share of the tissue) as PNG.

    Parameters
    ----------
    path
        The file to write.
    store
        A store with labels.
    thumbnail
        The whole slide, RGB uint8 (H, W, 3).
    folder
        Label image to draw instead of the store's own.
    classes
        The classes as they are called and coloured in the picture; by default those of the store.

    Raises
    ------
    OutputError
        If the store holds no labels, or the file cannot be written.
    """
    height, width, _ = thumbnail.shape
    classes = classes or store.taxonomy
    picture = overlay(thumbnail, labels_like(store, height, width, folder), classes)
    about = PngInfo()
    about.add_itxt("napari-pbip", json.dumps(open_labels(store, folder)[1].provenance(store).values(classes)))
    with_legend = _with_legend(picture, of_whole(areas(store, folder)), classes)
    write_picture(path, with_legend, "PNG", pnginfo=about)


def _with_legend(picture: RGB, rows: list[Area], taxonomy: Taxonomy) -> Image.Image:
    """Return the picture with a legend on its right."""
    colours = {n + 1: one.rgb for n, one in enumerate(taxonomy)} | {UNASSIGNED: UNASSIGNED_RGB, NOT_ANALYSED: _PAPER}
    size = max(14, picture.shape[0] // 45)
    font = ImageFont.load_default(size)
    titles = {n + 1: one.name for n, one in enumerate(taxonomy)}
    texts = [(titles.get(row.label, row.name), f"{row.percent_of_tissue:.1f} %") for row in rows]
    names = max(font.getlength(name) for name, _ in texts)
    shares = max(font.getlength(share) for _, share in texts)
    line, gap = round(1.7 * size), size
    width = round(gap + size + 0.6 * size + names + gap + shares + gap)
    height = max(picture.shape[0], gap * 2 + line * (len(rows) + 2))
    canvas = Image.new("RGB", (picture.shape[1] + width, height), _PAPER)
    canvas.paste(Image.fromarray(picture))
    draw = ImageDraw.Draw(canvas)
    left, right = picture.shape[1] + gap, canvas.width - gap
    draw.text((right, gap), "share of tissue", _INK, font, anchor="ra")
    for place, (row, (name, share)) in enumerate(zip(rows, texts, strict=True), 1):
        middle = gap + place * line + size // 2
        box = (left, middle - size // 2, left + size, middle + size // 2)
        draw.rectangle(box, fill=colours[row.label], outline=_INK)
        draw.text((left + 1.6 * size, middle), name, _INK, font, anchor="lm")
        draw.text((right, middle), share, _INK, font, anchor="rm")
    if corrected := sum(row.corrected_mm2 for row in rows):
        draw.text((left, gap + line * (len(rows) + 1)), f"{corrected:.3g} mm² corrected by hand", _INK, font)
    return canvas
