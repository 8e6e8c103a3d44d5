"""Computing the scores of a slide: tiles -> network -> blended blocks -> score store.

Three things happen at once: threads read the next tiles, the network computes a batch, and one thread writes finished
blocks of scores. With a scheduler, workers do the first two for parts of the slide, and this process is the only one
that blends and writes.

A job that is stopped also writes the tiles of unfinished blocks, so that a resumed one computes no tile again. After a
kill, the tiles since the last save, which happens every minute, are computed again.

A block consists of about a hundred tiles, too many to wait for on a screen. Once a second, unfinished blocks are
therefore written as far as they are known, with the coarser levels. This takes 3 ms of the network's thread and 30 to
40 ms of the writer's, together 2 % of the time of two cores (``benchmarks/score_store.py``).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress

import torch

from napari_pbip.engine.cluster.workers import Cluster
from napari_pbip.engine.inference.slide_tiles import Computed, SlideTiles, TileWork, by_workers
from napari_pbip.engine.runs import TrainedModel
from napari_pbip.errors import OutputError
from napari_pbip.events import Event, RegionDone, Started, Step, Warned
from napari_pbip.results.blend import Blender, Region
from napari_pbip.results.store import ScoreStore
from napari_pbip.results.tile_order import View
from napari_pbip.slides import Slide

UNWRITTEN = 8
"""Largest number of finished blocks that wait for the writer; with more, the network waits too."""
_NAMED = 3
"""Largest number of damaged places that a warning names."""
SHOW_SECONDS = 1.0
"""Time between two writes of unfinished blocks for display."""
KEEP_SECONDS = 60.0
"""Time between two saves of the tiles of unfinished blocks, so that a kill loses little."""

Focus = Callable[[], tuple[float, float, float, float] | None]
"""Returns what the user is looking at: left edge, top edge, width and height in level-0 pixels, or None."""


def fill_store(
    store: ScoreStore,
    slide: Slide,
    model: TrainedModel,
    work: TileWork,
    device: torch.device,
    focus: Focus | None,
    cluster: Cluster | None,
) -> Generator[Event, None, None]:
    """Compute the scores of the tiles that are not done yet, and write them into the store.

    This is a part of the job :func:`~napari_pbip.engine.inference.segment.segment`.
    """
    blender = store.blender()
    kept = store.kept()
    completed = [] if kept is None else blender.restore(kept)
    planned = int(store.planned.sum())
    done = planned - len(blender.order)
    where = f"{device}" if cluster is None else f"the workers of {cluster.name}"
    yield Started(f"Segmenting {slide.name} on {where}", total=planned, unit="tiles", done=done)

    def view() -> View | None:
        shown = focus() if focus is not None else None
        if shown is None:
            return None
        x, y, width, height = (side / (store.facts.grid.cell * work.grid.scale) for side in shown)
        return x, y, width, height

    order = blender.tiles(view)
    computed = (
        SlideTiles(work, slide, model)(order) if cluster is None else by_workers(cluster, work, slide, model, order)
    )
    writing: deque[tuple[Future[None], list[RegionDone]]] = deque()
    finished: list[RegionDone] = []
    shown: Future[None] | None = None
    next_show, next_keep = 0.0, time.monotonic() + KEEP_SECONDS
    left_out, damage = 0, dict[str, None]()
    by: dict[str, str] | None = None
    differ = parted = False
    with ExitStack() as at_end, ThreadPoolExecutor(1, thread_name_prefix="napari-pbip-writer") as writer:
        at_end.callback(_keep, store, blender)
        try:
            for region in completed:
                writing.append((writer.submit(store.write_region, region), [_done(region)]))
            for some in computed:
                if some is not None:
                    if by is None and len(some.tiles):
                        by = some.by
                        store.record_computation(by)
                    elif len(some.tiles) and some.by != by and not differ:
                        differ = True
                        yield Warned(
                            f"Workers compute differently ({_text(by)} and {_text(some.by)}), so scores depend, by "
                            "rounding, on which of them computed a tile."
                        )
                    if some.fitting is not None and not parted:
                        parted = True
                        yield Warned(
                            f"The graphics card's memory is too small for {work.settings.batch_size} tiles at once, so "
                            f"they are computed {some.fitting} at once; set `segment.batch_size` to that."
                        )
                    for region in _blended(blender, some):
                        writing.append((writer.submit(store.write_region, region), []))
                        finished.append(_done(region))
                    left_out += len(some.left_out)
                    damage |= dict.fromkeys(some.damage)
                    done += len(some)
                yield Step(done)
                if some is not None and time.monotonic() > next_show and (shown is None or shown.done()):
                    partials, earlier = blender.partials(), shown
                    shown = writer.submit(_show, store, partials)
                    writing.append((shown, finished + [_done(region) for region in partials]))
                    finished, next_show = [], time.monotonic() + SHOW_SECONDS
                    if earlier is None:
                        wait([shown])  # the first labels shall not come a batch later
                if time.monotonic() > next_keep:
                    writing.append((writer.submit(store.keep, blender.keep()), []))
                    next_keep = time.monotonic() + KEEP_SECONDS
                while writing and (len(writing) > UNWRITTEN or writing[0][0].done()):
                    yield from _written(*writing.popleft())
            writing.append((writer.submit(store.commit), finished))
            while writing:
                yield from _written(*writing.popleft())
        finally:
            computed.close()
            # The pool's exit waits for the writer, so that computed scores are on disk also when the job is cancelled.
    if left_out:
        places = "; ".join(list(damage)[:_NAMED]) + (" and elsewhere" if len(damage) > _NAMED else "")
        yield Warned(
            f"{left_out} of {planned} tiles were not analysed, because {slide.name} is damaged at {places} (level-0 "
            "pixels); copy or export it again and segment it again to include them."
        )


def _blended(blender: Blender, computed: Computed) -> list[Region]:
    """Add tiles to the blender; return the blocks that they complete."""
    regions: list[Region] = []
    tiles = computed.tiles
    for (row, column), scores, presence in zip(tiles.places.tolist(), tiles.scores, tiles.presence, strict=True):
        regions += blender.add(row, column, scores, presence)
    for row, column in computed.left_out:
        regions += blender.leave_out(row, column)
    return regions


def _text(by: Mapping[str, str] | None) -> str:
    return " ".join((by or {}).values())


def _keep(store: ScoreStore, blender: Blender) -> None:
    """Save the tiles of unfinished blocks, however the job ends."""
    with suppress(OutputError):  # the job itself reports a full disk; these tiles are then computed again
        store.keep(blender.keep())


def _show(store: ScoreStore, regions: Sequence[Region]) -> None:
    """Write unfinished blocks, as far as they are known, at all levels; runs in the writer's thread."""
    for region in regions:
        store.write_region(region)
    store.commit()


def _done(region: Region) -> RegionDone:
    _, height, width = region.scores.shape
    return RegionDone(region.x, region.y, width, height, region.complete)


def _written(future: Future[None], regions: Sequence[RegionDone]) -> Iterator[RegionDone]:
    """Wait until regions are on disk, then yield them; an error of the writer is raised here."""
    future.result()
    yield from regions
