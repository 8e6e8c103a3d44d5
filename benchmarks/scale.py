"""Measure a very large slide: memory, linear time, resuming after a kill, exports, and the map in napari.

    xvfb-run -s "-screen 0 1366x768x24" python benchmarks/scale.py [--json OUT] [--shares 0.025 0.05 0.1]

The slide has this side at 0.5 microns per pixel, and a share of it are round sections, spread over the whole extent,
which repeat a piece of the bundled slide. It is a BigTIFF with a pyramid whose tiles are JPEG pictures; equal tiles are
stored once, so that it is made in seconds, and it is read as any other slide. Every step is a process of its own, so
that its peak memory is known. Parts:

* tissue: finding the tissue of the largest slide.
* segment: slides with several shares of tissue, and one on a quarter of the area with as much tissue as the first, so
  that both what grows with the tissue and what grows with the glass are seen. Memory is the peak of the process above
  what it needed after the network had computed a first batch.
* kill: SIGKILL in the middle, and resuming: seconds until it goes on, tiles that were computed twice, and the files
  that differ from those of the run that was not killed.
* export: every format, with the area of each class in the file compared with that in the table.
* napari: the map while the view moves, beside that of a slide of a tenth of the side.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import os
import queue
import signal
import struct
import tempfile
import time
from collections.abc import Callable, Mapping
from csv import DictReader
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from exports import areas_in, measure
from napari_pbip import samples
from napari_pbip.config import SegmentSettings, TissueSettings
from napari_pbip.engine.outputs.export import FORMATS
from napari_pbip.events import Finished, RegionDone, Started, Step
from napari_pbip.results import ScoreStore
from napari_pbip.results.places import stores_in
from napari_pbip.slides import find_tissue, open_slide
from pbip_alone import pbip_alone
from report import finish, hardware
from spawned import SPAWN, forget_peak, in_process, memory

MPP = 0.5
TILE = 256
PIECE = (550, 1900, 1024)
"""Left edge, top edge and side of the piece of the bundled slide, nearly all tissue: whole tiles at two levels."""
SECTIONS = 4
"""Sections along each side of the slide."""
GLASS = 244
RUN = pbip_alone()

# the slide -------------------------------------------------------------------------------------------------------


class Sections:
    """Where there is tissue: discs in the middles of equal squares."""

    def __init__(self, side: int, share: float) -> None:
        self.square = side / SECTIONS
        self.radius = self.square * math.sqrt(share / math.pi)
        if self.radius > self.square / 2:
            raise ValueError(f"discs cannot cover {share:.0%}")

    def distances(self, first: int, count: int, downsample: int) -> np.ndarray:
        """Return the squared distance along one axis from each pixel of a level to the middle of its square."""
        places = (np.arange(first, first + count) + 0.5) * downsample
        return (places % self.square - self.square / 2) ** 2


def write_slide(path: Path, side: int, share: float) -> None:
    """Write a slide as a BigTIFF in which equal tiles have the same offset."""
    sections = Sections(side, share)
    left, top, length = PIECE
    with open_slide(samples.slide()) as source:
        piece = source.read_level(0, left, top, length, length)
    levels = []
    with path.open("wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        for level in range(32):
            pixels = -(-side // 2**level)
            levels.append((pixels, *_write_tiles(file, sections, piece, level, pixels)))
            if pixels <= 2 * TILE:
                break
            piece = piece.reshape(len(piece) // 2, 2, -1, 2, 3).mean((1, 3)).round().astype(np.uint8)
        at = 8
        for level, (pixels, offsets, counts) in enumerate(levels):
            at = _write_page(file, at, level, pixels, offsets, counts)


def _write_tiles(file: Any, sections: Sections, piece: np.ndarray, level: int, pixels: int) -> tuple[np.ndarray, ...]:
    """Write the different tiles of a level; return the offset and length of every tile."""
    across = -(-pixels // TILE)
    period = max(1, len(piece) // TILE)
    whole = np.tile(piece, (-(-TILE // len(piece)),) * 2 + (1,))
    distances = sections.distances(0, across * TILE, 2**level).reshape(across, TILE)
    nearest, furthest = distances.min(1), distances.max(1)
    glass = np.full((TILE, TILE, 3), GLASS, np.uint8)
    places: dict[tuple[int, ...], tuple[int, int]] = {}

    def stored(key: tuple[int, ...], picture: Callable[[], np.ndarray]) -> tuple[int, int]:
        if key not in places:
            data = imagecodecs.jpeg8_encode(picture(), 80, colorspace="RGB", outcolorspace="YCBCR", subsampling="420")
            places[key] = file.tell(), len(data)
            file.write(data)
        return places[key]

    found = np.empty((across, across, 2), np.uint64)
    for row in range(across):
        for column in range(across):
            y, x = row % period, column % period
            if nearest[row] + nearest[column] >= sections.radius**2:
                found[row, column] = stored((), lambda: glass)
                continue
            tissue = whole[y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE]
            if furthest[row] + furthest[column] < sections.radius**2:
                found[row, column] = stored((y, x), lambda tissue=tissue: tissue)
                continue
            inside = distances[row][:, None] + distances[column] < sections.radius**2
            found[row, column] = stored(
                (row, column, 0), lambda inside=inside, tissue=tissue: np.where(inside[..., None], tissue, glass)
            )
    return found[..., 0].ravel(), found[..., 1].ravel()


def _write_page(file: Any, at: int, level: int, pixels: int, offsets: np.ndarray, counts: np.ndarray) -> int:
    """Write the header of a level; put its place at an offset of the file, and return where the next one's goes."""
    arrays = {}
    for code, values in ((324, offsets), (325, counts)):
        arrays[code] = file.tell()
        file.write(values.astype("<u8").tobytes())
    start = file.tell()
    resolution = struct.pack("<II", round(1e4 / MPP / 2**level), 1)
    short, long, long8, rational = 3, 4, 16, 5
    tags = [
        (254, long, 1, struct.pack("<I", level > 0)),
        (256, long, 1, struct.pack("<I", pixels)),
        (257, long, 1, struct.pack("<I", pixels)),
        (258, short, 3, struct.pack("<3H", 8, 8, 8)),
        (259, short, 1, struct.pack("<H", 7)),
        (262, short, 1, struct.pack("<H", 6)),
        (277, short, 1, struct.pack("<H", 3)),
        (282, rational, 1, resolution),
        (283, rational, 1, resolution),
        (284, short, 1, struct.pack("<H", 1)),
        (296, short, 1, struct.pack("<H", 3)),
        (322, long, 1, struct.pack("<I", TILE)),
        (323, long, 1, struct.pack("<I", TILE)),
        *((code, long8, len(offsets), struct.pack("<Q", arrays[code])) for code in arrays),
        (530, short, 2, struct.pack("<2H", 2, 2)),
    ]
    file.write(struct.pack("<Q", len(tags)))
    for code, kind, count, value in tags:
        if len(offsets) == 1 and code in arrays:
            value = struct.pack("<Q", int((offsets if code == 324 else counts)[0]))
        file.write(struct.pack("<HHQ8s", code, kind, count, value))
    following = file.tell()
    file.write(struct.pack("<Q", 0))
    file.seek(at)
    file.write(struct.pack("<Q", start))
    file.seek(0, os.SEEK_END)
    return following


# processes -------------------------------------------------------------------------------------------------------


def tissue_of(path: Path) -> dict[str, float]:
    """Find the tissue of a slide."""
    with open_slide(path) as slide:
        slide.thumbnail(64)
        before = memory("VmRSS")
        forget_peak()
        began = time.perf_counter(), time.process_time()
        mask = find_tissue(slide, TissueSettings())
        return {
            "wall s": time.perf_counter() - began[0],
            "processor s": time.process_time() - began[1],
            "MB": memory() - before,
            "mm2": mask.area_mm2,
            "share": mask.area_mm2 / (slide.width * slide.height * (MPP / 1000) ** 2),
        }


def segmented(path: Path, out: Path, resume: bool = False, report: Any = None) -> dict[str, Any]:
    """Segment a slide; the peak memory is that above what a first batch of the network needed.

    ``report`` is a queue that gets the number of tiles done.
    """
    import torch

    from napari_pbip.engine.inference.predict import fused_scores
    from napari_pbip.engine.inference.segment import segment
    from napari_pbip.engine.network import WORTH_CONVERTING, Network
    from napari_pbip.engine.runs import load_model

    settings = SegmentSettings(device="cpu")
    model = load_model(RUN)
    side = model.facts.tile_size
    network = Network(model.method, fused_scores, torch.device("cpu"), settings.precision, expected=WORTH_CONVERTING)
    network(torch.zeros(settings.batch_size, 3, side, side, dtype=torch.uint8))
    forget_peak()
    of_model = memory("VmRSS")
    del network, model
    found: dict[str, Any] = {}
    wall, processor = time.perf_counter(), time.process_time()
    for event in segment(path, RUN, out, settings, resume=resume):
        if isinstance(event, Started) and event.unit == "tiles":
            found |= {"began with": event.done, "until it begins, wall s": time.perf_counter() - wall}
        elif isinstance(event, Step):
            found.setdefault("first batch, wall s", time.perf_counter() - wall)
            last = time.perf_counter(), time.process_time()
            if report is not None:
                report.put(event.done)
        elif isinstance(event, RegionDone):
            found.setdefault("first label, wall s", time.perf_counter() - wall)
        elif isinstance(event, Finished):
            found |= {"tiles": event.summary["tiles"], "tissue mm2": event.summary["tissue_mm2"]}
    found |= {
        "wall s": time.perf_counter() - wall,
        "processor s": time.process_time() - processor,
        "after the last tile, processor s": time.process_time() - last[1],
        "model MB": of_model,
        "above the model MB": memory() - of_model,
    }
    return found


def killed_and_resumed(path: Path, out: Path, whole: Path, tiles: int) -> dict[str, Any]:
    """Kill a run in the middle, resume it, and compare its files with those of a whole run."""
    report = SPAWN.Queue()
    process = SPAWN.Process(target=segmented, args=(path, out, False, report))
    process.start()
    done = 0
    while done < tiles / 2:
        done = report.get()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    while True:
        try:
            done = max(done, report.get(timeout=0.2))
        except queue.Empty:
            break
    found = in_process(segmented, path, out, True)
    same, apart = compared(whole, out)
    return {
        "tiles done at the kill": done,
        "tiles computed twice": done - found["began with"],
        "until it begins, wall s": found["until it begins, wall s"],
        "until the next batch, wall s": found["first batch, wall s"],
        "above the model MB": found["above the model MB"],
        "files with the same bytes": same,
        "files that differ": ", ".join(apart) or "none",
    }


def compared(one: Path, other: Path) -> tuple[int, list[str]]:
    """Return how many files of two folders are equal, and the names of those that are not, dates left out."""
    first, second = hashes(one), hashes(other)
    apart = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    return len(first.keys() & second.keys()) - len([name for name in apart if name in first and name in second]), apart


def hashes(folder: Path) -> Mapping[str, str]:
    """Return a hash of each file; of tables and JSON without dates, and of pictures the pixels, for the same reason."""
    found = {}
    for file in sorted(one for one in folder.rglob("*") if one.is_file() and not one.name.startswith(".")):
        data = file.read_bytes()
        if file.suffix == ".json":
            data = json.dumps(_without_dates(json.loads(data)), sort_keys=True).encode()
        elif file.suffix == ".csv":
            rows = [
                {key: one for key, one in row.items() if not key.endswith("_made")}
                for row in DictReader(io.StringIO(data.decode()))
            ]
            data = json.dumps(rows).encode()
        elif file.suffix == ".png":
            data = imagecodecs.imread(data).tobytes()
        found[str(file.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found


def _without_dates(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_dates(one) for key, one in value.items() if key != "made"}
    return [_without_dates(one) for one in value] if isinstance(value, list) else value


def exported(store: Path, folder: Path) -> dict[str, Any]:
    """Export in every format but that of DICOM slides; compare areas."""
    one = ScoreStore.open(store)
    found: dict[str, Any] = {}
    expected: dict[str, float] = {}
    for name, chosen in FORMATS.items():
        if name == "dicom-seg":
            continue
        target = folder / f"export{chosen.ending}"
        wall, processor, peak = in_process(measure, store, target, name)
        areas = areas_in(target, name, one)
        expected = expected or areas
        errors = [abs(areas[key] - area) / area for key, area in expected.items() if key in areas and area]
        found[name] = {
            "wall s": wall,
            "processor s": processor,
            "MB of the process": peak,
            "largest error of an area, %": 100 * max(errors) if errors else None,
        }
        print(f"  {name}: {found[name]}", flush=True)
    return found


def in_napari(slide: Path, store: Path, seconds: float) -> dict[str, float]:
    """Open a map on its slide and move the view; return stalls of the main thread, frames, and growth of memory."""
    import torch  # noqa: F401 - as after the first dock was opened

    from interaction import pan
    from napari_pbip.gui.sessions import session_of
    from window import Window

    window = Window()
    session, viewer = session_of(window.viewer), window.viewer
    viewer.layers.remove(viewer.add_labels(np.zeros((64, 64), np.uint8)))  # napari's own first layer
    window.run(1)
    before = memory("VmRSS")
    session.slides.open(slide)
    window.run(3)
    found = {"MB of the slide": memory("VmRSS") - before}
    before = memory("VmRSS")
    window.begin()
    began = time.perf_counter()
    result = session.results.open(store)
    found["opening the map, s"] = time.perf_counter() - began
    window.until(lambda: result.areas.exact)
    found["all cells counted, s"] = time.perf_counter() - began
    stalls = window.stalls()
    found |= {"opening, longest stall, ms": stalls.longest, "opening, computed at a time, ms": stalls.computed}
    window.begin()
    pan(window, session, seconds)
    stalls = window.stalls()
    found |= {
        "moving, longest stall, ms": stalls.longest,
        "moving, 99 % of stalls, ms": stalls.late,
        "moving, computed at a time, ms": stalls.computed,
        "moving, frames a second": window.frames / seconds,
        "MB of the map": memory("VmRSS") - before,
    }
    window.close()
    return found


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", type=int, default=100_000, help="level-0 pixels")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.025, 0.05, 0.1], help="sections, increasing")
    parser.add_argument("--seconds", type=float, default=20, help="for which the view moves")
    parser.add_argument("--parts", nargs="+", default=["tissue", "segment", "kill", "export", "napari"])
    parser.add_argument("--work", type=Path, help="folder where slides and results are kept, and used again")
    args = parser.parse_args()
    found: dict[str, Any] = {"hardware": hardware()}
    print(found["hardware"], flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.work or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        shares = args.shares

        def slide(side: int, share: float) -> Path:
            path = folder / f"{side}-{share:g}.tif"
            if not path.exists():
                began = time.perf_counter()
                write_slide(path, side, share)
                print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB in {time.perf_counter() - began:.1f} s")
            return path

        def result(path: Path) -> tuple[Path, dict[str, Any]]:
            out, facts = folder / path.stem, folder / f"{path.stem}.json"
            if not facts.exists():
                facts.write_text(json.dumps(in_process(segmented, path, out)))
            return out, json.loads(facts.read_text())

        largest = slide(args.side, shares[-1])
        if "tissue" in args.parts:
            found["tissue"] = in_process(tissue_of, largest)
            print(found["tissue"], flush=True)
        if "segment" in args.parts:
            wanted = {f"{share:g} of {args.side:,} px": slide(args.side, share) for share in shares}
            half = args.side // 2
            wanted[f"{4 * shares[0]:g} of {half:,} px"] = slide(half, 4 * shares[0])
            found["segment"] = {}
            for name, path in wanted.items():
                _, one = result(path)
                one["processor s per mm2"] = one["processor s"] / one["tissue mm2"]
                found["segment"][name] = one
                print(f"{name}: {one}", flush=True)
        if "kill" in args.parts:
            path = slide(args.side, shares[0])
            out, whole = result(path)
            found["kill"] = killed_and_resumed(path, folder / f"{path.stem} killed", out, whole["tiles"])
            print(found["kill"], flush=True)
        out, _ = result(largest)
        [store] = stores_in(out)
        if "export" in args.parts:
            found["export"] = exported(store, folder)
        if "napari" in args.parts:
            small = slide(args.side // 10, shares[-1])
            [of_small] = stores_in(result(small)[0])
            found["napari"] = {
                path.stem: in_process(in_napari, path, one, args.seconds)
                for path, one in ((small, of_small), (largest, store))
            }
            print(found["napari"], flush=True)
    finish("scale", found, args.json)


if __name__ == "__main__":
    main()
