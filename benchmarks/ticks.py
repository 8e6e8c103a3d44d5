"""Measure whether the window stays responsive: how late a timer of 10 ms is while jobs run and the user pans.

    python benchmarks/ticks.py DATA [--slide SLIDE] [--seconds 30] [--window 1920 1080] [--json OUT.json]

It uses a real viewer (under Xvfb without a screen; then the processor paints, which is most of the time). There are
four phases with the same panning and zooming: the slide alone, PBIP trains on DATA, the slide is segmented and its map
grows, and the map alone. The first is the baseline of the second, the last that of the third. For each, the median,
99th percentile and maximum of the time between two ticks are printed in ms. The aim is a p99 below 50 ms and no tick
above 200 ms. napari takes long to create a labels layer, whatever it contains, so the layer of the map is created
before its phase, and its time compared with that of an empty one. The time from opening the slide to its first picture
is printed too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import tempfile
import time
from pathlib import Path

import napari
import numpy as np
from napari.qt import get_qapp
from qtpy.QtCore import QTimer

from canvas import canvas_of_window
from napari_pbip import samples
from napari_pbip.config import JobSettings, SegmentSettings, ThresholdSettings
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.training.train import train
from napari_pbip.events import RegionDone
from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.session import Session

TICK_MS = 10


def settings(data: Path, **method: str) -> JobSettings:
    """Return settings of a training as a user would start it, which takes long enough to be cancelled."""
    return JobSettings.parse(
        {"data": {"folder": str(data), "mpp": 0.5}, "method": method, "train": {"steps": 100_000, "batch_size": 10}}
    )


def ticks(session: Session, seconds: float) -> np.ndarray:
    """Return the milliseconds between ticks while the view moves ten times a second."""
    viewer, times = session.viewer, []
    camera = camera_of(viewer)
    low, high = session.slides[0].layer.extent.world
    middle, size = (low + high) / 2, (high - low) / 4
    steps = itertools.count()

    def move() -> None:
        angle = next(steps) / 8
        camera.center = tuple(middle + size * [math.sin(angle), math.cos(1.3 * angle)])
        camera.zoom = 1.5 * 2 ** math.sin(angle / 5)

    tick, pan = QTimer(), QTimer()
    tick.setInterval(TICK_MS)
    pan.setInterval(100)
    tick.timeout.connect(lambda: times.append(time.perf_counter()))
    pan.timeout.connect(move)
    tick.start()
    pan.start()
    work_until(time.monotonic() + seconds)
    tick.stop()
    pan.stop()
    return 1e3 * np.diff(times)


def first_picture(session: Session, slide: Path) -> float:
    """Return the seconds from dropping a slide to the frame that shows it."""
    canvas = canvas_of_window()
    frames: list[float] = []
    began = time.perf_counter()
    session.slides.open(slide)
    canvas.frameSwapped.connect(lambda: frames.append(time.perf_counter()))
    while not frames:
        work_until(0)
    return frames[0] - began


def work_until(end: float) -> None:
    """Run the event loop until a time."""
    application = get_qapp()
    while True:
        application.processEvents()
        if time.monotonic() > end:
            return
        time.sleep(0.001)


def main() -> None:
    """Measure the phases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--slide", type=Path, default=samples.slide())
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--window", type=int, nargs=2, default=(1920, 1080), help="width and height, pixels")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    viewer = napari.Viewer()
    viewer.window.resize(*args.window)
    session = session_of(viewer)
    work_until(time.monotonic() + 1)
    print(f"first picture of the slide after {1e3 * first_picture(session, args.slide):.0f} ms")
    results: dict[str, dict[str, float]] = {}

    def measure(phase: str) -> None:
        late = ticks(session, args.seconds)
        figures = {"median": np.median(late), "p99": np.percentile(late, 99), "max": late.max()}
        results[phase] = {name: round(float(value), 1) for name, value in figures.items()}
        print(
            f"| {phase} | {results[phase]['median']} | {results[phase]['p99']} | {results[phase]['max']} |", flush=True
        )

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        work_until(time.monotonic() + 3)
        measure("the slide alone")
        job = session.start(lambda: train(settings(args.data, name="pbip"), folder / "pbip"))
        work_until(time.monotonic() + 20)  # imports, the image bank
        measure("PBIP trains")
        job.cancel()
        job.wait(120)
        short = settings(args.data, name="cam")
        short = short.model_copy(update={"train": short.train.model_copy(update={"steps": 1})})
        session.start(lambda: train(short, folder / "cam")).wait(600)
        run = SegmentSettings(overlap=96)  # more tiles, so that the job takes longer
        job = session.start(lambda: segment(args.slide, folder / "cam", folder / "out", run, ThresholdSettings()))
        regions: list[RegionDone] = []
        job.events.connect(lambda events: regions.extend(e for e in events if isinstance(e, RegionDone)))
        while not regions:
            work_until(time.monotonic() + 0.1)
        began = time.perf_counter()
        viewer.layers.remove(viewer.add_labels(np.zeros((64, 64), np.uint8)))
        made = time.perf_counter()
        result = session.results.open(next((folder / "out").glob("*.ome.zarr")))
        print(
            f"an empty labels layer {1e3 * (made - began):.0f} ms, that of the map "
            f"{1e3 * (time.perf_counter() - made):.0f} ms"
        )
        job.events.connect(lambda events: result.update([e for e in events if isinstance(e, RegionDone)]))
        measure("the slide is segmented")
        running = not job.state.ended
        job.cancel()
        job.wait(120)
        work_until(time.monotonic() + 5)
        measure("the map alone")
        if not running:
            print("(the slide was finished before its phase was over; take a larger one)")
        session.close()
        viewer.close()
    if args.json:
        args.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
