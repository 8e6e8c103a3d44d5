"""Time, peak memory, size and area error of each export, for a slide and a larger one.

``python benchmarks/exports.py STORE --side 40000`` takes the score store of a real slide. Each export is a process of
its own, so that its peak memory is known. The columns are seconds, seconds of the processor, peak memory, size, and
the largest difference between the area of a class in the file and that of the table of areas. Times and memory
are the least and the largest of several runs. The thresholds differ from the saved ones, so that labels are computed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import shapely
import tifffile
import zarr

from napari_pbip.config import ThresholdSettings
from napari_pbip.engine.outputs.export import FORMATS, export
from napari_pbip.results import Region, ScoreStore
from napari_pbip.results.lattice import BLOCK
from napari_pbip.taxonomy import UNASSIGNED, UNASSIGNED_NAME
from spawned import in_process, memory


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


THRESHOLDS = ThresholdSettings(delta=0.3)


def measure(store: Path, target: Path, name: str) -> tuple[float, float, float]:
    """Export; return seconds, seconds of the processor, and peak memory in MB."""
    began = time.perf_counter()
    for _ in export(store, target, name, THRESHOLDS, overwrite=True):
        pass
    seconds, worked = time.perf_counter() - began, time.process_time()
    return seconds, worked, memory()


def areas_in(target: Path, name: str, store: ScoreStore) -> dict[str, float]:
    """Return the area of each class in mm² in an export, as other libraries read it; nothing if it has no areas."""
    import pandas as pd  # here, because the processes that are measured do not need it

    classes = (*store.taxonomy.names, UNASSIGNED_NAME)
    cell = (store.cell_um / 1000) ** 2
    if name == "csv":
        table = pd.read_csv(target).set_index("name")["area_mm2"]
    elif name == "statistics":
        table = pd.read_csv(target).query("quantity == 'area'").set_index("class")["value"]
    elif name == "geojson":
        pixel, found = (store.facts.slide.mpp / 1000) ** 2, dict.fromkeys(classes, 0.0)
        with target.open(encoding="utf-8") as file:  # a feature is a line
            for line in file:
                if line.startswith('{"type": "Feature"'):
                    feature = json.loads(line.rstrip().rstrip(","))
                    area = shapely.from_geojson(json.dumps(feature["geometry"])).area
                    found[feature["properties"]["classification"]["name"]] += area * pixel
        return found
    elif name in ("ome-tiff", "ome-zarr"):
        labels = tifffile.imread(target) if name == "ome-tiff" else zarr.open_group(target, mode="r")["0"][:]
        counts = np.bincount(labels.ravel(), minlength=256)
        values = (*range(1, len(store.taxonomy) + 1), UNASSIGNED)
        return {one: float(counts[value]) * cell for one, value in zip(classes, values, strict=True)}
    else:
        return {}
    return {one: float(table[one]) for one in classes}


def main() -> None:
    """Measure all exports but those that need a slide of another kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--side", type=int, default=40_000, help="of the larger slide, in level-0 pixels")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = ScoreStore.open(options.store)
        for one in (store, repeated(store, Path(folder, "large.ome.zarr"), options.side)):
            print(f"{one.facts.slide.width} px, {' x '.join(map(str, one.scores[0].shape))} scores", flush=True)
            expected: dict[str, float] = {}
            for name, chosen in FORMATS.items():
                if name == "dicom-seg":
                    continue
                target = Path(folder, f"{one.path.name}{chosen.ending}")
                runs = [in_process(measure, one.path, target, name) for _ in range(options.runs)]
                files = [target] if target.is_file() else [file for file in target.rglob("*") if file.is_file()]
                size = sum(file.stat().st_size for file in files) / 1e6
                found = areas_in(target, name, one)
                expected = expected or found
                errors = [abs(found[key] - area) / area for key, area in expected.items() if key in found and area]
                error = f"{100 * max(errors):.4f} %" if errors else "-"
                spans = (f"{min(values):.1f}-{max(values):.1f}" for values in zip(*runs, strict=True))
                print(f"| {name} | {' | '.join(spans)} | {size:.1f} | {error} |", flush=True)


if __name__ == "__main__":
    main()
