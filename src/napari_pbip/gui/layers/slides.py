"""Slides as layers: multiscale RGB in micrometres, decoded in threads.

The viewer requests a rectangle on the main thread and waits for it. Blocks that are not decoded within a moment are
shown from the coarsest level, blurred, until they are. The coarsest level itself is decoded in threads, too.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.utils.notifications import show_warning
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_pbip.blocks import BlockLoader
from napari_pbip.gui.compat import fit, show_scale_bar
from napari_pbip.gui.layers.magnification import Magnification
from napari_pbip.gui.layers.registry import LayerRegistry
from napari_pbip.gui.layers.units import MICRONS, PIXELS
from napari_pbip.gui.timers import single_shot
from napari_pbip.slides import Slide, open_slide

if TYPE_CHECKING:
    from napari.layers import Image as ImageLayer
    from napari.layers import Layer
    from napari.viewer import ViewerModel

Pixels = npt.NDArray[np.uint8]
Index = int | slice | npt.NDArray[Any]
METADATA = "napari_pbip_slide"
"""Key in the metadata of every layer of this plugin that belongs to a slide: the path of the slide."""
BLOCK = 512
"""Side of the blocks that are decoded, in pixels of their level; napari reads in chunks of the same size."""
_COARSEST = 512
"""Longer side of the coarsest level in pixels; it is read once and kept."""
_AT_ONCE = 2048
"""Side of the blocks from which the coarsest level is made, in pixels of the level that they are read from."""
_NOT_THERE_YET = 220
"""Grey value of parts of which nothing is decoded yet."""
_REFRESH_MS = 80
_CACHE_BYTES = 384 << 20
_THREADS = 2


class SlideLevel:
    """One level of a slide, RGB uint8, with what napari needs of an array: shape, dtype, ndim, chunks and slicing."""

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, pyramid: SlidePyramid, index: int, scale: float) -> None:
        slide = pyramid.slide
        self.scale = scale
        """Level-0 pixels per pixel."""
        self.shape = (_count(slide.height, scale), _count(slide.width, scale), 3)
        self.chunks = (BLOCK, BLOCK, 3)
        self.pyramid = pyramid
        self._index = index

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1] * 3

    def __getitem__(self, key: Any) -> Pixels:
        key = key if isinstance(key, tuple) else (key,)
        key += (slice(None),) * (3 - len(key))
        (y0, y1, rows), (x0, x1, columns) = _span(key[0], self.shape[0]), _span(key[1], self.shape[1])
        return self.pyramid.read(self._index, y0, y1, x0, x1)[rows, columns, key[2]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Pixels:
        return np.asarray(self[:], dtype)


class _Sharing:
    """The pyramids that share an open slide, which is closed when the last of them has ended."""

    def __init__(self, slide: Slide) -> None:
        self._slide = slide
        self._lock = threading.Lock()
        self._count = 0

    def begin(self) -> None:
        with self._lock:
            self._count += 1

    def end(self) -> None:
        """End one; it may be called in any thread."""
        with self._lock:
            self._count -= 1
            last = not self._count
        if last:
            self._slide.close()


class SlidePyramid:
    """The levels of a slide for display, and the threads that decode them.

    Parameters
    ----------
    slide
        The open slide, which is closed with the last pyramid of it.
    sharing
        The pyramids of the same slide, whose layers are duplicates of each other.

    Attributes
    ----------
    levels
        Levels, finest first, each about half as large; the last is kept in memory, and is grey until it is decoded.
    """

    arrived = Signal()
    """Emitted on the main thread when pixels that were shown blurred have been decoded."""
    failed = Signal(str)
    """Emitted once, on the main thread, with a sentence when a part of the slide cannot be read and stays blurred."""

    def __init__(self, slide: Slide, sharing: _Sharing | None = None) -> None:
        self.slide = slide
        self._sharing = _Sharing(slide) if sharing is None else sharing
        self._sharing.begin()
        scales = _scales(slide)
        self.levels = [SlideLevel(self, i, scale) for i, scale in enumerate(scales)]
        self._loader = BlockLoader(
            partial(_decode, slide, scales),  # without the pyramid, whose timer a thread must not be the last to have
            scales,
            [level.shape[:2] for level in self.levels],
            np.full(self.levels[-1].shape, _NOT_THERE_YET, np.uint8),
            side=BLOCK,
            size=_CACHE_BYTES,
            threads=_THREADS,
            name="napari-pbip-view",
        )
        self.error = ""
        """Why a part of the slide cannot be read, as a sentence; empty if there was no error."""
        self._timer = QTimer()
        self._timer.setInterval(_REFRESH_MS)
        self._timer.timeout.connect(self._poll)
        self._loader.fill_coarsest(self._piece())
        self._timer.start()

    def __deepcopy__(self, memo: dict[int, Any]) -> SlidePyramid:
        """Copy for a duplicated layer, which decodes the same open slide."""
        return SlidePyramid(self.slide, self._sharing)

    @property
    def coarsest(self) -> Pixels:
        """The last level as far as it is decoded, without waiting; ``arrived`` tells that there is more of it."""
        return self._loader.coarsest

    @property
    def pending(self) -> int:
        """Number of blocks that are being decoded."""
        return self._loader.pending

    def read(self, level: int, y0: int, y1: int, x0: int, x1: int) -> Pixels:
        """Return a rectangle of a level; blocks that are not decoded in time come from the coarsest level."""
        pixels = self._loader.read(level, y0, y1, x0, x1)
        if self._loader.lacking and not self._timer.isActive():
            self._timer.start()
        return pixels

    def retry(self) -> None:
        """Try again to read the blocks that could not be read."""
        if self.error:
            self.error = ""
            self._loader.retry()
            self.arrived.emit()

    def close(self) -> None:
        """Stop decoding, and have the slide closed, if nothing else shows it, when what is being decoded is done."""
        self._timer.stop()
        self._loader.close(self._sharing.end)

    def _piece(self) -> int:
        """Return the side of the pieces of the coarsest level; without a pyramid, decoding all of it takes seconds."""
        coarsest = self.levels[-1].scale
        finer = max(level.downsample for level in self.slide.levels if level.downsample <= 1.01 * coarsest)
        return max(16, round(_AT_ONCE * finer / coarsest))

    def _poll(self) -> None:
        """Request a redraw if blocks that were missing have been decoded."""
        if not self.pending:
            self._timer.stop()
        if self._loader.arrived():
            self.arrived.emit()
        if self._loader.error is not None and not self.error:
            self.error = f"A part of {self.slide.name} is shown blurred, or grey: {self._loader.error}"
            self.failed.emit(self.error)


class SlideLayer:
    """A slide and its layer."""

    def __init__(self, pyramid: SlidePyramid, layer: ImageLayer) -> None:
        self.pyramid = pyramid
        self.layer = layer
        pyramid.arrived.connect(self._refresh)
        pyramid.failed.connect(show_warning)

    @property
    def slide(self) -> Slide:
        return self.pyramid.slide

    def place(self) -> None:
        """Set the scale of the layer after the microns per pixel have changed."""
        for name, value in placement(self.slide).items():
            setattr(self.layer, name, value)

    def close(self) -> None:
        self.pyramid.arrived.disconnect(self._refresh)
        self.pyramid.failed.disconnect(show_warning)
        self.pyramid.close()

    def _refresh(self) -> None:
        self.layer.refresh(highlight=False, extent=False)


def in_view(slide: SlideLayer) -> tuple[float, float, float, float] | None:
    """Return the part of a slide in view: left edge, top edge, width, height in level-0 pixels; None if nothing is."""
    layer = slide.layer
    (top, left), (bottom, right) = layer.corner_pixels[:, :2] * layer.downsample_factors[layer.data_level][:2]
    if not layer.visible or bottom <= top or right <= left:
        return None
    return float(left), float(top), float(right - left), float(bottom - top)


class SlideLayers(LayerRegistry[SlideLayer]):
    """The slides that are layers of a viewer, whether opened by a widget, by napari's *Open*, or by drag and drop."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._newest: SlideLayer | None = None
        self._place = 0
        self._put_away: weakref.WeakSet[Layer] = weakref.WeakSet()
        self._added: list[SlideLayer] = []  # since _lower was called
        self._magnification = Magnification(viewer)
        # shown after napari has handled the change, and once for any number of changes
        self._show_next = single_shot(0, self._on_next)
        # a turn of the event loop later each, because napari takes long for its first scale bar and its first text
        self._measure_next = single_shot(0, self._measure)
        self._magnify_next = single_shot(0, self._magnify)
        super().__init__(viewer)

    def open(self, path: Path, mpp: float | None = None) -> SlideLayer:
        """Open a slide as a layer, or select the layer that it has already; it is read at once, as in a script.

        Raises
        ------
        SlideError
            If the slide cannot be opened.
        """
        slide = self.of_path(Path(path).absolute())
        if slide is None:
            slide = self.add(open_slide(path, mpp))
        self.show(slide)
        return slide

    def add(self, slide: Slide) -> SlideLayer:
        """Add a layer of an open slide, which is closed with it."""
        data, options, _ = layer_data(slide)
        self.viewer.add_image(data, **options)
        return self[-1]

    def show(self, slide: SlideLayer) -> None:
        """Show a slide and put the layers of the others away, which lie at the same place.

        Layers that the user has hidden stay hidden.
        """
        self._show_next.stop()
        self._newest = None
        viewer = self._viewer()
        if viewer is None:
            return
        self._lower(viewer)
        for layer in viewer.layers:
            belongs_to = layer.metadata.get(METADATA)
            if belongs_to == str(slide.slide.path):
                layer.visible = layer.visible or layer is slide.layer or layer in self._put_away
                self._put_away.discard(layer)
            elif belongs_to is not None:
                self.put_away(layer)
        slide.pyramid.retry()
        viewer.layers.selection.active = slide.layer
        fit(viewer, slide.layer)
        self._measure_next.start()

    def show_soon(self, slide: SlideLayer) -> None:
        """Show a slide after napari has handled what it does now; of several slides, only the last one is shown."""
        self._newest = slide
        self._show_next.start()

    def put_away(self, layer: Layer) -> None:
        """Hide a layer until its slide is shown."""
        if layer.visible:
            layer.visible = False
            self._put_away.add(layer)

    def show_instead(self, layer: Layer, others: Iterable[Layer]) -> None:
        """Show a layer of a slide instead of others of it, now or when the slide is shown next."""
        for other in others:
            other.visible = False
            self._put_away.discard(other)
        layer.visible = True
        slide = self.of_layer(layer)
        if slide is not None and not slide.layer.visible:
            self.put_away(layer)

    def give_mpp(self, slide: SlideLayer, mpp: float) -> None:
        """Set the microns per pixel of a slide that the user gave.

        Raises
        ------
        SlideError
            If the value is impossible.
        """
        first = slide.slide.mpp is None
        slide.slide.give_mpp(mpp)
        for one in self:
            if one.slide is slide.slide:  # duplicates too
                one.place()
        if first:
            self.show(slide)
        self.changed.emit()

    def of_layer(self, layer: Layer) -> SlideLayer | None:
        """Return the slide that a layer shows or belongs to, or None."""
        path = layer.metadata.get(METADATA)
        return next((slide for slide in self if str(slide.slide.path) == path), None)

    def of_path(self, path: Path) -> SlideLayer | None:
        """Return the slide with this path, or None."""
        return next((slide for slide in self if slide.slide.path == path), None)

    def close(self) -> None:
        """Close all slides."""
        for timer in (self._show_next, self._measure_next, self._magnify_next):
            timer.stop()
        super().close()

    def _make(self, layer: Layer) -> SlideLayer | None:
        level: Any = layer.data[0] if getattr(layer, "multiscale", False) else None
        if not isinstance(level, SlideLevel):
            return None
        layer.events.visible.connect(self._measure_soon)
        layer.events.units.connect(self._measure_soon)
        return SlideLayer(level.pyramid, layer)

    def _on_added(self, slide: SlideLayer) -> None:
        self._added.append(slide)
        self.show_soon(slide)

    def _lower(self, viewer: ViewerModel) -> None:
        """Move the slides that were added below the layers that belong to them, such as maps that were there before."""
        added, self._added = self._added, []
        slides = {one.layer for one in self}  # a duplicate of a slide stays above it
        for slide in added:
            path = slide.layer.metadata.get(METADATA)
            above = (
                place
                for place, layer in enumerate(viewer.layers)
                if layer not in slides and layer.metadata.get(METADATA) == path
            )
            if slide.layer in viewer.layers and (lowest := next(above, None)) is not None:
                place = viewer.layers.index(slide.layer)
                if lowest < place:
                    viewer.layers.move(place, lowest)

    def _on_gone(self, slide: SlideLayer, place: int) -> None:
        self._place = place
        self._show_next.start()

    def _on_next(self) -> None:
        """Show the slide that was added last, or another one if the one in view was removed."""
        newest, self._newest = self._newest, None
        if newest is not None and newest in self._items:
            self.show(newest)
        elif len(self) and not any(slide.layer.visible for slide in self):
            self.show(self[min(self._place, len(self) - 1)])
        else:
            self._measure_soon()

    def _measure_soon(self) -> None:
        self._measure_next.start()

    def _measure(self) -> None:
        """Show the scale bar if the microns per pixel of all visible slides are known, and then the magnification."""
        viewer = self._viewer()
        if viewer is not None and any(slide.layer.visible for slide in self):
            show_scale_bar(viewer, self._measured)
        self._magnify_next.start()

    def _magnify(self) -> None:
        self._magnification.show(self._measured and any(slide.layer.visible for slide in self))

    @property
    def _measured(self) -> bool:
        """Whether the microns per pixel of all visible slides are known."""
        return all(slide.slide.mpp_xy is not None for slide in self if slide.layer.visible)


def layer_data(slide: Slide) -> tuple[list[SlideLevel], dict[str, Any], str]:
    """Return a slide as napari's layer data: levels, options of ``add_image``, and ``"image"``."""
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
    """Return scale and units of a slide's layer: micrometres, or pixels if their size is unknown."""
    if slide.mpp_xy is None:
        return {"scale": (1.0, 1.0), "units": PIXELS}
    return {"scale": (slide.mpp_xy[1], slide.mpp_xy[0]), "units": MICRONS}


def _decode(slide: Slide, scales: list[float], index: int, rows: slice, columns: slice) -> Pixels:
    """Decode a part of a level; called in a thread."""
    scale, width, height = scales[index], columns.stop - columns.start, rows.stop - rows.start
    return slide.read_scaled(columns.start * scale, rows.start * scale, width, height, scale)


def _scales(slide: Slide) -> list[float]:
    """Return the level-0 pixels per pixel of each displayed level: those of the file, and halvings between them.

    There are at least two levels, because napari would load a single level whole.
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
    """Return the first and last pixel that an index needs, and the index relative to them."""
    if isinstance(key, slice):
        start, stop, step = key.indices(length)
        return start, max(start, stop), slice(None, None, step)
    if isinstance(key, (int, np.integer)):
        at = int(key) % length
        return at, at + 1, 0
    places = np.asarray(key)
    low, high = int(places.min()), int(places.max()) + 1
    return low, high, places - low
