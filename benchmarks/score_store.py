"""Measure how fast scores are written, read and turned into labels, compared with a naive implementation.

    python benchmarks/score_store.py [--cells 2048] [--repeats 5] [--json OUT.json]

* write: tiles of 28 x 28 cells every 24 cells with ``Blender`` and ``ScoreStore`` (blended, with all coarser levels,
  presence and progress), compared with adding each tile to float32 sums in a zarr with the same chunks.
* look: the time for showing unfinished blocks once a second while 25 tiles per second arrive, those in view first.
* labels: ``labels_from_scores`` on four classes x 1024 x 1024, compared with nan_to_num, divide, where, argmax; and
  ``label_region``, which also reads the scores.
* chunks: milliseconds for writing a block and reading a view of 1024 x 1024 cells, by side of the chunks, classes in a
  chunk, and codec, on which the choice of the store's chunks is based.

The best of the repeats is printed, because other work on the machine can only add time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from scipy.ndimage import gaussian_filter
from zarr.codecs import BloscCodec, ZstdCodec

from napari_pbip.config import ThresholdSettings
from napari_pbip.results import LargestScores, ScoreStore, label_region, labels_from_scores, write_labels
from napari_pbip.results.lattice import BLOCK
from napari_pbip.taxonomy import BCSS

TILE, STRIDE, CELL = 28, 24, 8
VIEW = 1024
CLASSES = len(BCSS)


def best(run: Callable[[], object], repeats: int, before: Callable[[], object] = lambda: None) -> float:
    """Return the seconds of the shortest call."""
    seconds = []
    for _ in range(repeats):
        before()
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def smooth_field(cells: int) -> np.ndarray:
    """Return scores that vary over a dozen cells, as those of a network, (N, cells + tile, cells + tile) float32."""
    rng = np.random.default_rng(0)
    size = (cells + TILE, cells + TILE)
    return np.stack([gaussian_filter(rng.normal(size=size).astype(np.float32), 6) * 40 for _ in range(CLASSES)])


def create(path: Path, cells: int) -> ScoreStore:
    """Return an empty store of a slide that is all tissue."""
    tiles = -(-(cells - TILE) // STRIDE) + 1
    side = cells * CELL
    return ScoreStore.create(
        path,
        taxonomy=BCSS,
        slide={"name": "slide", "path": "slide", "identity": "0", "width": side, "height": side, "mpp": 1.0},
        model={"hash": "0"},
        settings={},
        grid={
            "tile": TILE * CELL,
            "overlap": (TILE - STRIDE) * CELL,
            "stride": STRIDE * CELL,
            "rows": tiles,
            "columns": tiles,
            "model_mpp": 1.0,
        },
        score_shape=(cells, cells),
        tissue=np.ones((cells // 8, cells // 8), bool),
        planned=np.ones((tiles, tiles), bool),
        overwrite=path.exists(),
    )


def write_store(path: Path, field: np.ndarray) -> None:
    """Blend the tiles of a field and write them."""
    presence = np.full(CLASSES, 0.9)
    with ScoreStore.open(path, "r+") as store:
        blender = store.blender()
        for row, column in blender.order:
            y, x = row * STRIDE, column * STRIDE
            for region in blender.add(row, column, field[:, y : y + TILE, x : x + TILE], presence):
                store.write_region(region)


def write_naive(path: Path, field: np.ndarray, tiles: int) -> None:
    """Add each tile to sums and weights in a zarr, which are read and written for every tile."""
    group = zarr.open_group(path, mode="w")
    side = field.shape[1]
    sums = group.create_array("sums", shape=field.shape, chunks=(CLASSES, BLOCK, BLOCK), dtype="float32")
    weights = group.create_array("weights", shape=(side, side), chunks=(BLOCK, BLOCK), dtype="float32")
    for row in range(tiles):
        for column in range(tiles):
            place = np.s_[row * STRIDE : row * STRIDE + TILE, column * STRIDE : column * STRIDE + TILE]
            sums[(slice(None), *place)] = sums[(slice(None), *place)] + field[(slice(None), *place)]
            weights[place] = weights[place] + 1


def bench_write(folder: Path, cells: int, repeats: int) -> dict[str, float]:
    """Return tiles per second with the store, and with the naive implementation."""
    field = smooth_field(cells)
    path = folder / "store.ome.zarr"
    ours = best(lambda: write_store(path, field), repeats, before=lambda: create(path, cells))
    tiles = -(-(cells - TILE) // STRIDE) + 1
    few = min(tiles, 12)  # the naive implementation is too slow for all tiles
    naive = best(lambda: write_naive(folder / "naive.zarr", field, few), 1) / few**2 * tiles**2
    return {
        "tiles/s": tiles**2 / ours,
        "naive tiles/s": tiles**2 / naive,
        "ratio": naive / ours,
        "MPix/s (model pixels)": (cells * CELL) ** 2 / 1e6 / ours,
        "ms per block": 1e3 * ours / (-(-cells // BLOCK)) ** 2,
    }


def bench_look(folder: Path, cells: int, repeats: int) -> dict[str, float]:
    """Return the processor time for showing unfinished blocks, per 25 tiles."""
    field = smooth_field(cells)
    presence = np.full(CLASSES, 0.9)
    store = create(folder / "looked.ome.zarr", cells)
    blender = store.blender()
    blending, writing = [], []
    middle = (cells / 2 - 150.0, cells / 2 - 80.0, 300.0, 160.0)
    with store:
        for count, (row, column) in enumerate(blender.tiles(lambda: middle)):
            y, x = row * STRIDE, column * STRIDE
            for region in blender.add(row, column, field[:, y : y + TILE, x : x + TILE], presence):
                store.write_region(region)
            if count % 25 == 24:
                began = time.process_time()
                partials = blender.partials()
                blended = time.process_time()
                for region in partials:
                    store.write_region(region)
                store.commit()
                blending.append(blended - began)
                writing.append(time.process_time() - blended)
            if count == 25 * 10 * repeats:
                break
    return {
        "ms in the job's thread": 1e3 * float(np.median(blending)),
        "ms in the writer's thread": 1e3 * float(np.median(writing)),
        "% of one core at one look a second": 100 * float(np.median(np.add(blending, writing))),
    }


def naive_labels(scores: np.ndarray, scale: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """Apply the rule of labels in a naive implementation."""
    normalised = np.nan_to_num(scores.astype(np.float32)) / scale
    normalised = np.where(normalised >= 0.15, normalised, 0)
    labels = normalised.argmax(0) + 1
    labels[normalised.max(0) <= 0] = 255
    labels[~tissue] = 0
    return labels.astype(np.uint8)


def bench_labels(folder: Path, repeats: int) -> dict[str, float]:
    """Return the milliseconds from scores to labels."""
    store = ScoreStore.open(folder / "store.ome.zarr")
    view = slice(100, 100 + VIEW)
    counts = LargestScores(store)
    counting = best(lambda: counts.percentile(99.5), 1)
    largest = counts.percentile(99.5)
    scores = store.read_scores(0, view, view)
    rows, columns, tissue = store.tiles_and_tissue(0, view, view)
    presence, over = store.presence(), largest[:, None, None]
    present = presence[:, np.rint(rows).astype(int)][:, :, np.rint(columns).astype(int)] >= 0.5
    everywhere = np.where(present, over, np.inf)
    delta = np.full(CLASSES, 0.15, np.float32)
    ours = best(lambda: labels_from_scores(scores, over, delta, presence, 0.5, rows, columns, tissue), repeats)
    naive = best(lambda: naive_labels(scores, everywhere, tissue), repeats)
    settings = ThresholdSettings()
    return {
        "ms": 1e3 * ours,
        "naive ms": 1e3 * naive,
        "ratio": naive / ours,
        "ms with reading": 1e3 * best(lambda: label_region(store, settings, largest, 0, view, view), repeats),
        "largest scores, ms per block": 1e3 * counting / store.written.size,
        "write_labels, MPix/s (model pixels)": np.prod(store.scores[0].shape[1:])
        * CELL**2
        / 1e6
        / best(lambda: write_labels(store, settings), repeats),
    }


def bench_chunks(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Return write and read times by chunk and codec."""
    side = 2048
    field = smooth_field(side)[:, :side, :side].astype(np.float16)
    codecs = {
        "none": None,
        "zstd 0": ZstdCodec(level=0),
        "blosc zstd 1, shuffle": BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=2),
        "blosc lz4 1, shuffle": BloscCodec(cname="lz4", clevel=1, shuffle="shuffle", typesize=2),
    }
    rows = []
    for name, codec in codecs.items():
        for chunk in (256, 512, 1024):
            for classes in (CLASSES, 1):
                path = folder / "chunks.zarr"
                shutil.rmtree(path, ignore_errors=True)
                array = zarr.create_array(
                    path,
                    shape=field.shape,
                    chunks=(classes, chunk, chunk),
                    dtype="float16",
                    fill_value=np.nan,
                    compressors=codec,
                )

                def write(array: zarr.Array[Any] = array, chunk: int = chunk) -> None:
                    for y in range(0, side, chunk):
                        for x in range(0, side, chunk):
                            array[:, y : y + chunk, x : x + chunk] = field[:, y : y + chunk, x : x + chunk]

                def read(array: zarr.Array[Any] = array) -> None:
                    array[:, 300 : 300 + VIEW, 300 : 300 + VIEW]

                written = best(write, repeats)
                size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                rows.append(
                    {
                        "codec": name,
                        "chunk": chunk,
                        "classes in a chunk": classes,
                        "write ms per block": 1e3 * written / (side // chunk) ** 2,
                        "write Mcells/s": side**2 / 1e6 / written,
                        "read view ms": 1e3 * best(read, 3 * repeats),
                        "bytes per score": size / field.size,
                    }
                )
    return rows


def main() -> None:
    """Run all parts and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=2048, help="side of the score grid")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report: dict[str, Any] = {
            "write": bench_write(folder, arguments.cells, arguments.repeats),
            "look": bench_look(folder, arguments.cells, arguments.repeats),
            "labels": bench_labels(folder, arguments.repeats),
            "chunks": bench_chunks(folder, arguments.repeats),
        }
    for part in ("write", "look", "labels"):
        for figure, value in report[part].items():
            print(f"{part:8s} {figure:40s} {value:10.2f}")
    for row in report["chunks"]:
        print(
            "  ".join(
                f"{key} {value if isinstance(value, str | int) else f'{value:.2f}'}" for key, value in row.items()
            )
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
