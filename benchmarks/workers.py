"""Measure what a second worker gives: the same slide by one and by two worker processes, one thread each, in turn.

    python benchmarks/workers.py [--json OUT] [--copies 3] [--repeats 3] [--run RUN]

The slide repeats the sample slide ``copies`` times in both directions. Before the time is taken, the same workers
segment it once, so that starting processes and loading networks, some seconds for any slide, do not count. Both stores
have to have the same scores as one that this process computes alone. Each worker is kept to a core of its own, because
the reader's threads of a single worker would use the second one, too. The machine should be idle, and run Linux.

The second figure bounds how many workers one slide can have: processor seconds of this process for a tile (scheduler,
client, blending, writing), when a worker returns random numbers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
from distributed import Client, LocalCluster

from napari_pbip import samples
from napari_pbip.config import SegmentSettings
from napari_pbip.engine.cluster.workers import Cluster
from napari_pbip.engine.encoding import chunks
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.inference.slide_tiles import PART
from napari_pbip.events import Step
from napari_pbip.results.blend import Tiles
from napari_pbip.results.lattice import Place
from napari_pbip.results.places import stores_in
from napari_pbip.results.store import ScoreStore
from napari_pbip.slides import open_slide
from napari_pbip.taxonomy import BCSS
from pbip_alone import pbip_alone
from score_store import TILE, create

SETTINGS = SegmentSettings(device="cpu", precision="float32")


def repeated_slide(path: Path, copies: int) -> Path:
    """Write a slide that shows the sample slide several times."""
    with open_slide(samples.slide()) as slide:
        pixels = slide.read_level(0, 0, 0, slide.width // 256 * 256, slide.height // 256 * 256)
        per_cm = 1e4 / slide.require_mpp()
    tifffile.imwrite(
        path,
        np.tile(pixels, (copies, copies, 1)),
        tile=(256, 256),
        photometric="rgb",
        compression="jpeg",
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
    )
    return path


def timed(slide: Path, run: Path, out: Path, client: Client) -> float:
    """Return tiles per second of workers that have segmented the slide before."""
    for place in (out / "before", out / "timed"):
        began = time.perf_counter()
        events = segment(slide, run, place, SETTINGS, scheduler=client)
        seen = [(event.done, time.perf_counter()) for event in events if isinstance(event, Step)]
        total, _ = seen[-1]
    return total / (next(moment for done, moment in seen if done == total) - began)


def keep_to_core(core: int) -> None:
    """Let all threads of the process that calls this run on one core (Linux)."""
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def random_tiles(places: list[Place]) -> Tiles:
    """Return what a network of four classes might return for a part."""
    rng, count = np.random.default_rng(0), len(places)
    scores = rng.normal(size=(count, len(BCSS), TILE, TILE)).astype(np.float32)
    return Tiles(np.array(places, np.int32), scores, np.full((count, len(BCSS)), 0.9, np.float32))


def coordinating(path: Path) -> float:
    """Return processor seconds of this process for a tile, without the first part."""
    create(path, 2048)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, memory_limit=0, dashboard_address="127.0.0.1:0") as local,
        Client(local) as client,
        ScoreStore.open(path, "r+") as store,
    ):
        blender, began, tiles = store.blender(), 0.0, 0
        for found in Cluster(client).results(random_tiles, chunks(blender.tiles(), PART * SETTINGS.batch_size)):
            if found is None:
                continue
            part = found[1]
            for (row, column), scores, presence in zip(part.places.tolist(), part.scores, part.presence, strict=True):
                for region in blender.add(row, column, scores, presence):
                    store.write_region(region)
            tiles, began = (tiles + len(part), began) if began else (0, time.process_time())
        return (time.process_time() - began) / tiles


def scores(out: Path) -> np.ndarray:
    """Return the scores of a result."""
    (path,) = stores_in(out)
    return np.asarray(ScoreStore.open(path).scores[0][:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--copies", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--run", type=Path, default=pbip_alone())
    arguments = parser.parse_args()
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    rates: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slide = repeated_slide(folder / "slide.tif", arguments.copies)
        for repeat in range(arguments.repeats):
            for workers in rates:
                with (
                    LocalCluster(
                        n_workers=workers,
                        threads_per_worker=1,
                        memory_limit=0,
                        dashboard_address="127.0.0.1:0",
                        env=one_thread,
                    ) as cluster,
                    Client(cluster) as client,
                ):
                    for core, worker in zip(sorted(os.sched_getaffinity(0)), client.nthreads(), strict=False):
                        client.run(keep_to_core, core, workers=[worker])
                    rate = timed(slide, arguments.run, folder / f"{workers}-{repeat}", client)
                rates[workers].append(rate)
                print(f"{workers} worker(s): {rate:.1f} tiles/s")
        here = coordinating(folder / "random.ome.zarr")
        list(segment(slide, arguments.run, folder / "alone", SETTINGS))
        alone = scores(folder / "alone")
        same = all(np.array_equal(scores(folder / f"{n}-0" / "timed"), alone, equal_nan=True) for n in rates)
    ratio = max(rates[2]) / max(rates[1])
    print(f"two workers over one: {ratio:.2f} (best of {arguments.repeats}); same scores: {same}")
    print(f"{1000 * here:.2f} ms of the processor of the coordinating process for a tile, {1 / here:,.0f} tiles/s")
    if arguments.json:
        found = {
            "machine": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
            "tiles/s": {str(workers): many for workers, many in rates.items()},
            "ratio": ratio,
            "ms of the coordinating process for a tile": 1000 * here,
            "same scores": same,
        }
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
