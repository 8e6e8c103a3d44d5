"""Time, peak memory and size of each export, for the result of a slide and for one that repeats it on a larger slide.

``python benchmarks/exports.py STORE --side 40000`` takes the score store of a real slide. Each export is a process of
its own, so that its peak memory is known. The columns are seconds, seconds of the processor, peak memory and size. The
thresholds differ from the saved ones, so that labels are computed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from napari_pbip.config import ThresholdSettings
from napari_pbip.engine.outputs.export import FORMATS, export
from napari_pbip.results import Region, ScoreStore
from napari_pbip.results.lattice import BLOCK


def repeated(store: ScoreStore, path: Path, side: int) -> ScoreStore:
    """Return a store of a slide of this many level-0 pixels, whose cells repeat those of a store."""
    facts = store.facts
    cells = -(-side // round(store.cell_um / facts.slide.mpp))
    lattice = store.lattice
    tiles = -(-(cells - lattice.tile) // lattice.stride) + 1
    height, width = store.scores[0].shape[1:]
    large = ScoreStore.create(
        path,
        taxonomy=store.taxonomy,
        slide={**facts.slide.model_dump(), "width": side, "height": side},
        model=facts.model.model_dump(),
        settings=facts.settings,
        grid={**facts.grid.model_dump(), "rows": tiles, "columns": tiles},
        score_shape=(cells, cells),
        tissue=np.ones((64, 64), bool),
        planned=np.ones((tiles, tiles), bool),
    )
    scores, presence, peak = store.scores[0][:], store.presence(), store.peak()
    with large:
        for y in range(0, cells, BLOCK):
            for x in range(0, cells, BLOCK):
                rows, columns = np.arange(y, min(y + BLOCK, cells)), np.arange(x, min(x + BLOCK, cells))
                touching = large.lattice.touching_block(y // BLOCK, x // BLOCK, BLOCK)
                places = np.stack(np.meshgrid(*touching, indexing="ij"), -1).reshape(-1, 2)
                known = tuple((places % presence.shape[1:]).T)
                large.write_region(
                    Region(
                        y,
                        x,
                        scores[:, (rows % height)[:, None], columns % width],
                        places,
                        presence[:, *known].T.astype(np.float32),
                        peak[:, *known].T.astype(np.float32),
                    )
                )
    return ScoreStore.open(path)


def measure(store: Path, target: Path, name: str) -> None:
    """Export, and print a row of a table."""
    began = time.perf_counter()
    for _ in export(store, target, name, ThresholdSettings(delta=0.3)):
        pass
    seconds, worked = time.perf_counter() - began, time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    files = [target] if target.is_file() else [file for file in target.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files) / 1e6
    print(f"| {name} | {seconds:.1f} s | {worked:.1f} s | {peak:.0f} MB | {size:.1f} MB |", flush=True)


def main() -> None:
    """Measure all exports but those that need a slide of another kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--side", type=int, default=40_000, help="of the larger slide, in level-0 pixels")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        store = ScoreStore.open(options.store)
        for one in (store, repeated(store, Path(folder, "large.ome.zarr"), options.side)):
            print(f"{one.facts.slide.width} px, {' x '.join(map(str, one.scores[0].shape))} scores")
            for name, chosen in FORMATS.items():
                if name == "dicom-seg":
                    continue
                target = Path(folder, f"{one.path.name}{chosen.ending}")
                process = spawn.Process(target=measure, args=(one.path, target, name))
                process.start()
                process.join()


if __name__ == "__main__":
    main()
