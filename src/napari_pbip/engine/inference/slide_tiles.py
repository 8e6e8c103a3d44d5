"""The network's results for the tiles of a slide: computed in this process, or in parts by the workers of a cluster.

The same class computes them in both cases, and in batches of such sizes that a tile gets the same scores, bit for bit,
wherever it is computed (with the same versions, kind of device and number of threads of the network).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import cachetools
import numpy as np
import numpy.typing as npt

from napari_pbip.config import SegmentSettings
from napari_pbip.engine.cluster.workers import Cluster, require_seen
from napari_pbip.engine.cores import BatchSizes
from napari_pbip.engine.device import Fetched, choose_device, to_device
from napari_pbip.engine.encoding import chunks
from napari_pbip.engine.inference.predict import fused_scores
from napari_pbip.engine.inference.windows import mirrored
from napari_pbip.engine.loading import Image, ahead, to_pixels
from napari_pbip.engine.network import Network
from napari_pbip.engine.runs import TrainedModel, load_model
from napari_pbip.errors import ClusterError, DamagedPlace, SlideError
from napari_pbip.models.views import average_over_views
from napari_pbip.results.blend import Tiles
from napari_pbip.results.lattice import Place
from napari_pbip.slides import Slide, TileGrid, open_slide
from napari_pbip.slides.plane import Plane

PART = 4
"""Batches of a part that a worker computes at once: seconds on a processor, so that little is lost with a worker, and
handing it over, some 10 ms, does not count."""
_SLIDES = 2
"""Slides that a thread of a worker keeps open, with their networks."""


@dataclass(frozen=True, slots=True)
class Computed:
    """The network's results for some tiles."""

    tiles: Tiles
    left_out: list[Place]
    """Tiles that cannot be read, because the slide is damaged there."""
    damage: tuple[str, ...]
    """The damaged places of the slide that were met so far."""
    by: dict[str, str]
    """What computed them: runtime, version, precision and device."""
    fitting: int | None
    """Number of tiles that are computed at once, if the memory of a graphics card was full with a batch."""

    def __len__(self) -> int:
        return len(self.tiles) + len(self.left_out)


@dataclass(frozen=True)
class TileWork:
    """What a process needs to know to compute tiles of a slide."""

    settings: SegmentSettings
    tta: bool
    grid: TileGrid
    model_mpp: float
    expected: float
    """Pixels of all tiles of the slide, by which the runtime is chosen."""


class SlideTiles:
    """Computes tiles of a slide; it must not be used from several threads at once."""

    def __init__(self, work: TileWork, slide: Slide, model: TrainedModel) -> None:
        self._work, self._slide = work, slide
        self._plane = Plane(slide, work.model_mpp)
        device = choose_device(work.settings.device)
        self._network = Network(
            model.method,
            fused_scores,
            device,
            work.settings.precision,
            expected=work.expected,
            identity=model.network_identity,
        )
        self._others = 1 if device.type == "cuda" else 0

    def __call__(self, places: Iterable[Place]) -> Generator[Computed, None, None]:
        """Yield the results for tiles, batch by batch; threads read the next batch meanwhile.

        The first batch is as small as it can be, so that there is something to see soon. A graphics card always has
        another batch to compute while this process uses the results of one.
        """
        sizes = self._network.batch_sizes(self._work.settings.batch_size, self._work.grid.tile**2)
        begun: deque[_Begun] = deque()
        with closing(ahead(self._read, places, depth=sizes.most)) as tiles:
            size = sizes.least
            while some := list(islice(tiles, size)):
                size = sizes.most
                begun.append(self._begin(some, sizes))
                if len(begun) > self._others:
                    yield begun.popleft().finish()
            while begun:
                yield begun.popleft().finish()

    def _read(self, place: Place) -> tuple[Place, Image | None]:
        grid = self._work.grid
        tile = grid.box(*place)
        height, width = grid.inside(tile)
        try:
            return place, mirrored(self._plane.read(tile.model_x, tile.model_y, width, height), tile.size)
        except DamagedPlace:
            return place, None

    def _begin(self, some: Sequence[tuple[Place, Image | None]], sizes: BatchSizes) -> _Begun:
        images = [image for _, image in some if image is not None]
        results = self._infer(images, sizes) if images else None
        return _Begun(
            [place for place, image in some if image is not None],
            [place for place, image in some if image is None],
            results,
            self._slide.damage,
            self._network.computed.to_json() | {"device": str(self._network.device)},
            self._network.fitting,
        )

    def _infer(self, images: Sequence[Image], sizes: BatchSizes) -> Fetched:
        """Return raw class scores (B, N, h, w) and presence probabilities (B, N) of a batch of tiles, once computed."""
        full = to_pixels([*images, *[np.zeros_like(images[0])] * (sizes.holding(len(images)) - len(images))])
        batch = to_device(full, self._network.device)  # once for all views
        maps, presence = average_over_views(self._network, batch) if self._work.tta else self._network(batch)
        return Fetched([maps[: len(images)], presence.sigmoid()[: len(images)]])


@dataclass(frozen=True, slots=True)
class _Begun:
    """Tiles whose results may still be computed; see :class:`Computed`."""

    places: list[Place]
    left_out: list[Place]
    results: Fetched | None
    """Scores and presence, or None if all tiles are left out."""
    damage: tuple[str, ...]
    by: dict[str, str]
    fitting: int | None

    def finish(self) -> Computed:
        """Wait for the results."""
        nothing: list[npt.NDArray[np.float32]] = [np.empty((0, 0, 0, 0), np.float32)] * 2
        scores, presence = nothing if self.results is None else self.results.wait()
        tiles = Tiles(np.array(self.places, np.int32).reshape(-1, 2), scores, presence)
        return Computed(tiles, self.left_out, self.damage, self.by, self.fitting)


# on workers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Where:
    """The slide and the model as a worker finds them."""

    slide: Path
    slide_mpp: float | None
    """Microns per pixel that were given by the user."""
    slide_identity: str
    run: Path
    model_identity: str


def by_workers(
    cluster: Cluster, work: TileWork, slide: Slide, model: TrainedModel, places: Iterator[Place]
) -> Generator[Computed | None, None, None]:
    """Yield the results for tiles as workers compute them, in any order; None if there was nothing for half a second.

    Raises
    ------
    SlideError
        If the slide is not a file or folder.
    ClusterError
        As :meth:`Cluster.results` does, or if a worker does not see the same slide and model.
    """
    if slide.reader == "array":
        raise SlideError(
            f"Workers open a slide by its path, and {slide.name} is an array; write it as OME-Zarr first, or leave "
            "`scheduler` out."
        )
    given = slide.mpp if slide.mpp_is_given else None
    where = _Where(slide.path.absolute(), given, slide.identity, model.run.absolute(), model.identity)
    parts = chunks(places, PART * work.settings.batch_size)
    with closing(cluster.results(partial(_part, work, where), parts)) as results:
        for found in results:
            if found is None:
                yield None
            else:
                yield from found[1]


def _part(work: TileWork, where: _Where, places: Sequence[Place]) -> list[Computed]:
    """Compute a part of a slide on a worker."""
    # one network for each thread, which must not share it; all threads share the cores as dask has set
    if not hasattr(_open, "slides"):
        _open.slides = cachetools.LRUCache(_SLIDES)
    key = (work, where)
    if key not in _open.slides:
        _open.slides[key] = SlideTiles(work, *_opened(where, work))
    return list(_open.slides[key](places))


_open = threading.local()


def _opened(where: _Where, work: TileWork) -> tuple[Slide, TrainedModel]:
    """Open the slide and the model on a worker; they are those that the job was begun with."""
    require_seen(where.slide, where.run)
    slide = open_slide(where.slide, where.slide_mpp)
    model = load_model(where.run, "best", choose_device(work.settings.device))
    for path, here, there in (
        (where.slide, slide.identity, where.slide_identity),
        (where.run, model.identity, where.model_identity),
    ):
        if here != there:
            raise ClusterError(f"A worker sees something else at {path}; give all machines the same files.")
    return slide, model
