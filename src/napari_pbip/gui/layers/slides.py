"""Slides as layers: multiscale RGB in micrometres, decoded beside the window.

The viewer asks for a rectangle on the main thread and waits for it. Decoding has a moment to answer; what is not there
by then is shown from the coarsest level, blurred, and comes sharp a moment later. So a slow file or network drive
never stops the window.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_pbip.errors import SlideError
from napari_pbip.gui.compat import fit, scale_bar
from napari_pbip.slides import Slide, open_slide

if TYPE_CHECKING:
    from napari.layers import Image as ImageLayer
    from napari.layers import Layer
    from napari.viewer import ViewerModel

Pixels = npt.NDArray[np.uint8]
Index = int | slice | npt.NDArray[Any]
METADATA = "napari_pbip_slide"
"""Key in the metadata of every layer of ours that belongs to a slide: the path of the slide."""
BLOCK = 512
"""Side of what is decoded at once, in pixels of its level: also the chunk that napari reads in."""
_COARSEST = 512
"""Longest side of the coarsest level; it is read once and kept."""
_PATIENCE = 0.02
"""Seconds that the window waits for decoding."""
_REFRESH_MS = 80
_CACHE_BYTES = 384 << 20
_THREADS = 2


class SlideLevel:
    """One level of a slide as napari wants arrays: shape, dtype, ndim, chunks and slicing. RGB uint8."""

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, pyramid: SlidePyramid, index: int, scale: float) -> None:
        slide = pyramid.slide
        self.scale = scale
        """Level-0 pixels per pixel."""
        self.shape = (_count(slide.height, scale), _count(slide.width, scale), 3)
        self.chunks = (BLOCK, BLOCK, 3)
        self._pyramid = pyramid
        self._index = index

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1] * 3

    def __getitem__(self, key: Any) -> Pixels:
        key = key if isinstance(key, tuple) else (key,)
        key += (slice(None),) * (3 - len(key))
        (y0, y1, rows), (x0, x1, columns) = _span(key[0], self.shape[0]), _span(key[1], self.shape[1])
        return self._pyramid.read(self._index, y0, y1, x0, x1)[rows, columns, key[2]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Pixels:
        return np.asarray(self[:], dtype)


class SlidePyramid:
    """The levels of a slide for display, and the threads that decode them.

    Parameters
    ----------
    slide
        Open; closed by :meth:`close`.

    Attributes
    ----------
    levels
        Finest first, each about half the one before; the last is kept in memory.
    """

    arrived = Signal()
    """Pixels that were shown blurred are there now; emitted on the main thread."""

    def __init__(self, slide: Slide) -> None:
        self.slide = slide
        self.levels = [SlideLevel(self, i, scale) for i, scale in enumerate(_scales(slide))]
        coarsest = self.levels[-1]
        self._coarsest = slide.read_scaled(0, 0, coarsest.shape[1], coarsest.shape[0], coarsest.scale)
        self._blocks: LRUCache[tuple[int, int, int], Pixels] = LRUCache(_CACHE_BYTES, getsizeof=lambda b: b.nbytes)
        self._lock = threading.Lock()
        self._pending: dict[tuple[int, int, int], Future[None]] = {}
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="napari-pbip-view")
        self._blurred = False
        self.error: SlideError | None = None
        """Why the last block could not be read; it is shown blurred for good."""
        self._timer = QTimer()
        self._timer.setInterval(_REFRESH_MS)
        self._timer.timeout.connect(self._look)

    @property
    def pending(self) -> int:
        """Blocks that are being decoded."""
        return len(self._pending)

    def read(self, level: int, y0: int, y1: int, x0: int, x1: int) -> Pixels:
        """A rectangle of a level; what is not decoded in time comes from the coarsest level."""
        if level == len(self.levels) - 1:
            return self._coarsest[y0:y1, x0:x1]
        wanted = [
            (level, row, column)
            for row in range(y0 // BLOCK, -(-y1 // BLOCK))
            for column in range(x0 // BLOCK, -(-x1 // BLOCK))
        ]
        self._request(wanted)
        with self._lock:
            futures = [self._pending[key] for key in wanted if key in self._pending]
        wait(futures, timeout=_PATIENCE)
        out = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        missing = False
        for key in wanted:
            with self._lock:
                block = self._blocks.get(key)
            top, left = key[1] * BLOCK, key[2] * BLOCK
            ay, by = max(top, y0), min(top + BLOCK, y1)
            ax, bx = max(left, x0), min(left + BLOCK, x1)
            place = np.s_[ay - y0 : by - y0, ax - x0 : bx - x0]
            if block is not None:
                out[place] = block[ay - top : by - top, ax - left : bx - left]
            else:
                out[place] = self._blur(level, ay, by, ax, bx)
                missing = True
        if missing:
            self._blurred = True
            self._timer.start()
        return out

    def close(self) -> None:
        """Stop decoding and close the slide."""
        self._timer.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.slide.close()

    def _request(self, wanted: list[tuple[int, int, int]]) -> None:
        """Decode these blocks, and no others any more: the view has moved on."""
        with self._lock:
            for key, future in list(self._pending.items()):
                if key not in wanted and future.cancel():
                    del self._pending[key]
            for key in wanted:
                if key not in self._blocks and key not in self._pending:
                    self._pending[key] = self._pool.submit(self._decode, key)

    def _decode(self, key: tuple[int, int, int]) -> None:
        """In a thread: one block into the cache."""
        index, row, column = key
        level = self.levels[index]
        height = min(BLOCK, level.shape[0] - row * BLOCK)
        width = min(BLOCK, level.shape[1] - column * BLOCK)
        corner = column * BLOCK * level.scale, row * BLOCK * level.scale
        block = None
        try:
            block = self.slide.read_scaled(*corner, width, height, level.scale)
        except SlideError as error:
            self.error = error
        with self._lock:
            if block is not None:
                self._blocks[key] = block
            self._pending.pop(key, None)

    def _blur(self, level: int, y0: int, y1: int, x0: int, x1: int) -> Pixels:
        factor = self.levels[level].scale / self.levels[-1].scale
        height, width, _ = self._coarsest.shape
        rows = np.minimum(((np.arange(y0, y1) + 0.5) * factor).astype(np.intp), height - 1)
        columns = np.minimum(((np.arange(x0, x1) + 0.5) * factor).astype(np.intp), width - 1)
        picked: Pixels = self._coarsest[rows[:, None], columns]
        return picked

    def _look(self) -> None:
        """Have the view drawn again once the blocks it lacked are there."""
        if not self.pending:
            self._timer.stop()
            if self._blurred:
                self._blurred = False
                self.arrived.emit()


class SlideLayer:
    """A slide and its layer."""

    def __init__(self, pyramid: SlidePyramid, layer: ImageLayer) -> None:
        self.pyramid = pyramid
        self.layer = layer
        pyramid.arrived.connect(self._refresh)

    @property
    def slide(self) -> Slide:
        return self.pyramid.slide

    def place(self) -> None:
        """Put the layer where its microns per pixel say, after they changed."""
        for name, value in placement(self.slide).items():
            setattr(self.layer, name, value)

    def close(self) -> None:
        self.pyramid.arrived.disconnect(self._refresh)
        self.pyramid.close()

    def _refresh(self) -> None:
        self.layer.refresh(thumbnail=False, highlight=False, extent=False)


def in_view(slide: SlideLayer) -> tuple[float, float, float, float] | None:
    """What the canvas shows of a slide: left edge, top edge, width, height in level-0 pixels; None if nothing."""
    layer = slide.layer
    (top, left), (bottom, right) = layer.corner_pixels[:, :2] * layer.downsample_factors[layer.data_level][:2]
    if not layer.visible or bottom <= top or right <= left:
        return None
    return float(left), float(top), float(right - left), float(bottom - top)


class SlideLayers:
    """The slides that are layers of a viewer, in the order in which they came.

    A slide may come by a widget, by napari's *open*, or by dropping it on the canvas: whatever adds a layer of a
    slide, it is found here; when the layer is removed the slide is closed.
    """

    changed = Signal()
    """A slide came or went."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self._slides: list[SlideLayer] = []
        for layer in viewer.layers:
            self._found(layer)
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)

    def open(self, path: Path, mpp: float | None = None) -> SlideLayer:
        """Open a slide as a layer, or select the one it has already.

        Raises
        ------
        SlideError
            If it cannot be opened.
        """
        viewer = self._viewer()
        if viewer is None:
            raise ReferenceError("the viewer was closed")
        slide = next((one for one in self._slides if one.slide.path == Path(path).absolute()), None)
        if slide is None:
            data, options, _ = layer_data(open_slide(path, mpp))
            viewer.add_image(data, **options)
            slide = self._slides[-1]
        self.show(slide)
        return slide

    def show(self, slide: SlideLayer) -> None:
        """Bring a slide into view: all slides lie at the same place, so the layers of the others are hidden."""
        viewer = self._viewer()
        if viewer is None:
            return
        for layer in viewer.layers:
            belongs_to = layer.metadata.get(METADATA)
            if belongs_to is not None:
                layer.visible = belongs_to == str(slide.slide.path)
        viewer.layers.selection.active = slide.layer
        fit(viewer, slide.layer)
        scale_bar(viewer).visible = True

    def of_layer(self, layer: Layer) -> SlideLayer | None:
        """The slide that a layer shows or belongs to, or None."""
        path = layer.metadata.get(METADATA)
        return next((slide for slide in self._slides if str(slide.slide.path) == path), None)

    def __len__(self) -> int:
        return len(self._slides)

    def __iter__(self) -> Iterator[SlideLayer]:
        return iter(self._slides)

    def __getitem__(self, index: int) -> SlideLayer:
        return self._slides[index]

    def close(self) -> None:
        """Close all slides."""
        while self._slides:
            self._slides.pop().close()

    def _on_inserted(self, event: Any) -> None:
        self._found(event.value)

    def _found(self, layer: Layer) -> None:
        level: Any = layer.data[0] if getattr(layer, "multiscale", False) else None
        if isinstance(level, SlideLevel):
            self._slides.append(SlideLayer(level._pyramid, layer))
            self.changed.emit()

    def _on_removed(self, event: Any) -> None:
        slide = next((slide for slide in self._slides if slide.layer is event.value), None)
        if slide is not None:
            self._slides.remove(slide)
            slide.close()
            self.changed.emit()


def layer_data(slide: Slide) -> tuple[list[SlideLevel], dict[str, Any], str]:
    """A slide as napari's layer data: levels, options of ``add_image``, and ``"image"``."""
    pyramid = SlidePyramid(slide)
    options = {
        "name": slide.name,
        "rgb": True,
        "multiscale": True,
        "metadata": {METADATA: str(slide.path)},
        **placement(slide),
    }
    return pyramid.levels, options, "image"


def placement(slide: Slide) -> dict[str, Any]:
    """Scale and units of a slide's layer: micrometres, or pixels where nobody says how large they are."""
    if slide.mpp_xy is None:
        return {"scale": (1.0, 1.0), "units": ("pixel", "pixel")}
    return {"scale": (slide.mpp_xy[1], slide.mpp_xy[0]), "units": ("um", "um")}


def _scales(slide: Slide) -> list[float]:
    """Level-0 pixels per pixel of each display level: those of the file, with halvings where steps are large.

    At least two, since napari shows a single level whole.
    """
    scales: list[float] = []
    own = [level.downsample for level in slide.levels]
    for downsample, following in zip(own, [*own[1:], float("inf")], strict=True):
        scale = downsample
        while scale * 1.5 < following:
            scales.append(scale)
            if max(slide.width, slide.height) / scale <= _COARSEST and len(scales) > 1:
                return scales
            scale *= 2
    return scales


def _count(length: int, scale: float) -> int:
    return max(1, -(-length // 1) if scale == 1 else int(-(-length // scale)))


def _span(key: Index, length: int) -> tuple[int, int, Index]:
    """First and last pixel that an index needs, and the index within them."""
    if isinstance(key, slice):
        start, stop, step = key.indices(length)
        return start, max(start, stop), slice(None, None, step)
    if isinstance(key, (int, np.integer)):
        at = int(key) % length
        return at, at + 1, 0
    places = np.asarray(key)
    low, high = int(places.min()), int(places.max()) + 1
    return low, high, places - low
