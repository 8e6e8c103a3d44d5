"""Measure how soon there is something to see: a slide after it is opened, and labels after *Segment*.

    python benchmarks/first_picture.py [--slides SLIDE ...] [--model RUN] [--json OUT.json]

Each slide opens in a viewer of its own, with the libraries of the networks imported, in a window of
1920 x 1080 pixels. The seconds from the call to a frame on the screen are printed: the first one with the slide, the
first one in which no part of the view is coarser than it will be, and, after the slide was added to the queue of
*Segment*, the first one with labels, before which the model is loaded. By default the bundled slide is mapped by its
model.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
import torch  # noqa: F401 - as after the first dock was opened
from napari.qt import get_qapp

from canvas import canvas_of_window
from napari_pbip import samples
from napari_pbip.gui.sessions import session_of

LIMIT_S = 600


def seconds_until(done: Callable[[], bool], began: float) -> float:
    """Run the event loop until something is so, and until the next frame is on the screen."""
    frames: list[float] = []
    while time.perf_counter() - began < LIMIT_S:
        get_qapp().processEvents()
        if done():
            break
        time.sleep(0.001)
    else:
        raise TimeoutError(f"not within {LIMIT_S} s")
    canvas = canvas_of_window()
    connection = canvas.frameSwapped.connect(lambda: frames.append(time.perf_counter()))
    canvas.update()
    while not frames:
        get_qapp().processEvents()
    canvas.disconnect(connection)
    return round(frames[0] - began, 2)


def measure(slide: Path, model: Path) -> dict[str, float]:
    """Return the seconds to each picture of one slide."""
    viewer = napari.Viewer()
    viewer.window.resize(1920, 1080)
    session = session_of(viewer)
    with tempfile.TemporaryDirectory() as scratch:
        session.folder = Path(scratch) / "project"
        while session.jobs:
            get_qapp().processEvents()
        began = time.perf_counter()
        layer = session.slides.open(slide)
        found = {
            "first picture": seconds_until(lambda: True, began),
            "sharp": seconds_until(lambda: layer.pyramid.pending == 0, began),
        }
        began = time.perf_counter()
        session.segmenting.add([slide], model)
        found["first labels"] = seconds_until(
            lambda: len(session.results) > 0 and session.results[0].store.progress[0] > 0, began
        )
        session.close()
        viewer.close()
    return found


def main() -> None:
    """Measure each slide and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=Path, nargs="+", default=[samples.slide()])
    parser.add_argument("--model", type=Path, default=samples.project() / "model")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print("| slide | first picture, s | sharp, s | first labels, s |\n|---|---|---|---|")
    table = {}
    for slide in args.slides:
        table[slide.name] = found = measure(slide, args.model)
        print(f"| {slide.name} | {' | '.join(map(str, found.values()))} |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
