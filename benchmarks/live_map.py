"""Measure how soon the live map is updated: seconds from a label, or from a move of the view, to the new picture.

    python benchmarks/live_map.py [--encoder NAME] [--labels 60] [--classes 8] [--tiles 6] [--json OUT.json]

A real viewer shows the bundled slide (under Xvfb without a screen) with the given numbers of labelled tiles and
classes. The class of a tile is its position on the slide, which is as hard to fit as labels can be. The view is --tiles
tiles high. *Cold* means that nothing was computed before and the encoder has to be loaded; *warm* means that the
features of the view and of the labelled tiles are known. For each, the seconds to the first picture and to the complete
one are printed; for warm labels, the median and the worst of four. The ratio of cold and warm times is comparable
between machines. The longest time in ms for which the window was blocked is printed too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
import platformdirs
from napari.qt import get_qapp

from napari_pbip import samples
from napari_pbip.config import BankSettings
from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.docks.label_tiles import LabelTilesWidget
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.session import Session
from napari_pbip.slides import TileSize


class Clock:
    """Waits for pictures of the live map."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.longest = 0.0
        """Seconds between two rounds of the event loop, at most."""

    def picture(self, act: Callable[[], object]) -> tuple[float, float]:
        """Return the seconds from an action to its first picture, and to the last one."""
        live = self._session.live_map
        drawn: list[float] = []
        live.drawn.connect(lambda: drawn.append(time.perf_counter()))
        began = before = time.perf_counter()
        act()
        while live.busy or not drawn:
            get_qapp().processEvents()
            now = time.perf_counter()
            self.longest, before = max(self.longest, now - before), now
            time.sleep(0.002)  # lets the threads of jobs run, which have a lower priority
        live.drawn.disconnect()
        return drawn[0] - began, time.perf_counter() - began


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="efficientnet-lite0")
    parser.add_argument("--labels", type=int, default=60)
    parser.add_argument("--classes", type=int, default=8)
    parser.add_argument("--tiles", type=float, default=6)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        platformdirs.user_cache_path = lambda *_: Path(scratch) / "cache"  # type: ignore[assignment]
        viewer = napari.Viewer()
        viewer.window.resize(1366, 768)
        session = session_of(viewer)
        session.folder = Path(scratch) / "project"
        session.change(bank=BankSettings(encoder=args.encoder))
        session.slides.open(samples.slide())
        viewer.window.add_dock_widget(LabelTilesWidget(viewer))
        get_qapp().processEvents()
        figures = measure(session, args.labels, args.classes, args.tiles)
        session.close()
        viewer.close()
    for name, value in figures.items():
        print(f"| {name} | {value:.3g} |")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2))


def measure(session: Session, count: int, classes: int, high: float) -> dict[str, float]:
    """Return the figures by name."""
    labels, live, clock = session.labelling.labels, session.live_map, Clock(session)
    labels.resize(TileSize(pixels=112, mpp=0.5))
    while len(labels.taxonomy) < classes:
        labels.add_class()
    facts, grid = session.labelling.facts, session.labelling.grid
    assert facts is not None
    assert grid is not None
    places = [(column, row) for row in range(6, 26, 2) for column in range(6, 18, 2)][:count]
    for place in places[:-1]:
        labels.label(facts.identity, [place], [place[1] * classes // 26])
    camera, microns = camera_of(session.viewer), labels.size.microns
    canvas = session.viewer.window._qt_viewer.canvas.native

    def look(column: float, row: float) -> None:
        camera.center = (row * microns, column * microns)
        camera.zoom = canvas.height() / (high * microns)

    look(10, 13)
    get_qapp().processEvents()
    cold_first, cold_all = clock.picture(lambda: setattr(live, "on", True))
    clock.longest = 0.0
    warm = [clock.picture(lambda n=n: labels.label(facts.identity, places[-1:], [n % classes])) for n in range(4)]
    move = clock.picture(lambda: look(10, 20))
    back = clock.picture(lambda: look(10, 13))
    firsts = [first for first, _ in warm]
    return {
        "cold, first picture, s": cold_first,
        "cold, all of the view, s": cold_all,
        "warm label, first picture, median, s": float(np.median(firsts)),
        "warm label, first picture, worst, s": max(firsts),
        "warm label, all of the view, median, s": float(np.median([last for _, last in warm])),
        "move to a new place, first picture, s": move[0],
        "move to a new place, all of the view, s": move[1],
        "move back, all of the view, s": back[1],
        "cold over warm, all of the view": cold_all / float(np.median([last for _, last in warm])),
        "longest wait of the window, ms": 1e3 * clock.longest,
    }


if __name__ == "__main__":
    main()
