"""Measure how long the window stands still when things happen for the first time in a sitting.

    python benchmarks/stalls.py [--slides SLIDE ...] [--stacks 0.15] [--json OUT.json]

In a fresh process a viewer opens, then the panel *Workflow*, the slides, each page of the panel, and the sample
project, which replaces the slides. A timer ticks every 10 ms, and the longest time between two ticks of each phase is
printed in ms, with how much of it the main thread computed, which other programs on the machine change less, and the
time that the phase took. The aim is below 200 ms everywhere. What napari itself takes is the baseline: for its first
image, and for further layers of pictures and labels. With `--stacks`, the main thread's stack is printed whenever it
has been busy for so many seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import napari
import numpy as np
from napari.qt import get_qapp
from qtpy.QtCore import QTimer

from napari_pbip import samples

if TYPE_CHECKING:
    from napari_pbip.gui.workflow import WorkflowWidget

TICK_MS = 10


class Ticks:
    """A timer of the main thread that records the longest time between two ticks."""

    def __init__(self, stacks: float | None) -> None:
        self.begin()
        self._timer = QTimer()
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self._tick)
        self._timer.start()
        if stacks is not None:
            threading.Thread(target=self._watch, args=(threading.get_ident(), stacks), daemon=True).start()

    def begin(self) -> None:
        """Forget the ticks until now."""
        self.longest = self.computed = 0.0
        self.last, self._last_computed = time.perf_counter(), time.thread_time()

    def _tick(self) -> None:
        now, computed = time.perf_counter(), time.thread_time()
        self.longest = max(self.longest, now - self.last)
        self.computed = max(self.computed, computed - self._last_computed)
        self.last, self._last_computed = now, computed

    def _watch(self, main: int, limit: float) -> None:
        while True:
            time.sleep(limit / 3)
            if (busy := time.perf_counter() - self.last) > limit:
                frames = traceback.extract_stack(sys._current_frames()[main])
                ours = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames]
                print(f"    busy for {busy:.2f} s: {' > '.join(ours[-14:])}", flush=True)

    def phase(self, name: str, act: Callable[[], object], done: Callable[[], bool] = lambda: True) -> dict[str, float]:
        """Do something from the event loop, and run it until that is done and has been quiet for half a second."""
        self.begin()
        began = time.perf_counter()
        acted: list[object] = []
        QTimer.singleShot(0, lambda: acted.append(act()))
        application, quiet = get_qapp(), None
        while quiet is None or time.perf_counter() - quiet < 0.5:
            application.processEvents()
            time.sleep(0.001)
            quiet = (quiet or time.perf_counter()) if acted and done() else None
        figures = {
            "stall": round(1e3 * self.longest),
            "computed": round(1e3 * self.computed),
            "took": round(1e3 * (quiet - began)),
        }
        print(f"| {name} | {' | '.join(map(str, figures.values()))} |", flush=True)
        return figures


def main() -> None:
    """Go through the phases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=Path, nargs="+", default=[samples.slide(), samples.tumour()])
    parser.add_argument("--stacks", type=float, help="seconds")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    viewer = napari.Viewer()
    viewer.window.resize(1366, 768)
    ticks, table = Ticks(args.stacks), {}
    print("| phase | longest stall, ms | computed, ms | took, ms |\n|---|---|---|---|")

    def measure(name: str, act: Callable[[], object], done: Callable[[], bool] = lambda: True) -> None:
        table[name] = ticks.phase(name, act, done)

    measure("the window alone", lambda: None)
    noise = np.random.default_rng(0).integers(0, 255, (2000, 2000, 3), np.uint8)
    measure("napari adds its first image", lambda: viewer.add_image(noise, rgb=True))
    measure("napari adds an image", lambda: viewer.add_image(noise, rgb=True))
    viewer.layers.clear()
    docks: list[WorkflowWidget] = []
    measure(
        "the panel Workflow",
        lambda: docks.append(viewer.window.add_plugin_dock_widget("napari-pbip", "Workflow")[1]),
        lambda: docks[0].panel is not None,
    )
    panel = docks[0].panel
    from napari_pbip.gui.sessions import session_of  # the panel has imported it
    from napari_pbip.gui.state.steps import Step

    session = session_of(viewer)

    def idle() -> bool:
        return not session.jobs and not session.project.opening

    for slide in args.slides:
        measure(f"the slide {slide.name}", lambda slide=slide: viewer.open(str(slide), plugin="napari-pbip"), idle)
    for step in Step:
        measure(f"the page {step.value}", panel.buttons[step].click, idle)
    with tempfile.TemporaryDirectory() as scratch:
        measure("another project", lambda: setattr(session, "folder", Path(scratch) / "project"), idle)
        measure(
            "the sample project",
            lambda: viewer.open_sample("napari-pbip", "project"),
            lambda: idle() and len(viewer.layers) > 0,
        )
        for step in Step:
            measure(f"its page {step.value}", panel.buttons[step].click, idle)
        measure("napari adds labels", lambda: viewer.add_labels(noise[..., 0], units=("um", "um")))
        measure("napari removes them", lambda: viewer.layers.pop())
        session.close()
        viewer.close()
    if args.json:
        args.json.write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
