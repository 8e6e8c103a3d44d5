"""Measure what users wait for in the window, in one command.

    xvfb-run -s "-screen 0 1366x768x24" python benchmarks/interaction.py [--json OUT] [--parts first slider ...]

Each part is a process of its own with a real viewer; without a screen, the processor paints, which is part of every
time. The parts:

* first: from opening the bundled slide to the frame that shows it, and to the first one in which no part of the view
  is coarser than it will be; from *Segment* to the first frame with a label, with the model loaded meanwhile. All
  libraries are imported, as after the first dock was opened. ``--slide`` and ``--model`` measure others.
* slider: from the move of a threshold to the frame that follows, for a map of 40,000 x 40,000 model pixels at four
  zooms, beside a frame without any change, and reading and computing everything again.
* live: from a label to the new picture of the live map, and from a move of the view, with 60 labelled tiles of eight
  classes on the bundled slide. The class of a tile is its position, which is as hard to fit as labels can be. *Cold*
  means that nothing was computed before; *warm*, that features of the view and of the labelled tiles are known.
* stalls: how long the window stands still when things happen for the first time in a sitting: the panel, slides, also
  one that is slow to read, each page, the sample project, and one of 300 slides with maps, whose table is sorted,
  scrolled, filtered and saved. What napari itself takes is the baseline.
* jobs: the same while the view moves ten times a second: the slide alone, PBIP trains, the slide is segmented, and the
  map alone. The first is the baseline of the second, the last of the third.

A stall is the time between two ticks of a 10 ms timer; what the main thread computed in it is given beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_pbip import samples
from napari_pbip.config import BankSettings, JobSettings, SegmentSettings, ThresholdSettings
from napari_pbip.events import RegionDone
from napari_pbip.results import LargestScores, ScoreStore, label_region, write_labels
from napari_pbip.taxonomy import BCSS
from report import finish, hardware
from score_store import STRIDE, TILE, create, smooth_field, write_store
from spawned import in_process
from training import compose

if TYPE_CHECKING:
    from napari_pbip.gui.layers.results import ResultLayer
    from napari_pbip.gui.state.session import Session
    from window import Window

ZOOMS = {"whole slide": None, "two cells a pixel": 0.5, "a cell a pixel": 1.0, "four pixels a cell": 4.0}
CELLS = 5000
ALL = slice(None)
SLOW = 2.0
"""Seconds after which the slow slide answers."""
MANY, SMALL = 300, 512
"""Slides of a large project, and cells of a side of their maps."""

# the first picture, and the first label --------------------------------------------------------------------------


def first(args: argparse.Namespace) -> dict[str, float]:
    """Return the seconds to each picture of a slide and its map."""
    from napari_pbip.gui import imports
    from napari_pbip.gui.sessions import session_of
    from window import Window

    window = Window(stacks=args.stacks)
    session = session_of(window.viewer)
    imports.begin()  # as the first dock does
    window.until(imports.finished)
    with tempfile.TemporaryDirectory() as scratch:
        session.folder = Path(scratch) / "project"
        window.until(lambda: not session.jobs)
        layers: list[Any] = []
        found = {"first picture, s": window.picture(lambda: layers.append(session.slides.open(args.slide)))}
        found["sharp after that, s"] = window.picture(lambda: None, lambda: layers[0].pyramid.pending == 0)
        window.until(lambda: not session.jobs)
        queue = session.segmenting

        def labelled() -> bool:
            return len(session.results) > 0 and bool(np.asarray(session.results[0].layer._slice.image.view).any())

        began = time.process_time()
        found["Segment to the first label, s"] = window.picture(lambda: queue.add([args.slide], args.model), labelled)
        found["Segment to the first label, processor s"] = time.process_time() - began
        began = time.perf_counter()
        window.until(lambda: queue.running is None)
        found["all of it after that, s"] = time.perf_counter() - began
        window.close()
    return found


# the slider ------------------------------------------------------------------------------------------------------


def make_store(path: Path, cells: int) -> None:
    """Write a store whose scores repeat a patch of a quarter of its side."""
    create(path, cells)
    period = cells // 4 // STRIDE * STRIDE
    patch = smooth_field(period)[:, :period, :period].astype(np.float16)
    whole = -(-(cells + TILE) // period)
    write_store(path, np.tile(patch, (1, whole, whole)))


def look(window: Window, cell_um: float, pixels: float | None) -> None:
    """Set the zoom, in screen pixels per cell; by default the whole slide is shown."""
    from napari_pbip.gui.compat import camera_of

    window.viewer.reset_view()
    if pixels:
        camera_of(window.viewer).zoom = pixels / cell_um
    window.run(1)


def moves(window: Window, result: ResultLayer, count: int, name: str) -> list[float]:
    """Return the milliseconds from each change of one threshold to its picture."""
    ms = []
    for value in np.linspace(0.05, 0.6, count).tolist():
        before = window.canvas.grabFramebuffer()
        thresholds = result.thresholds.model_copy(update={name: value})
        ms.append(1e3 * window.following(lambda new=thresholds: setattr(result.display, "thresholds", new)))
        changed = window.canvas.grabFramebuffer() != before
        assert changed or name == "presence", "the picture did not change"
    return ms


def everything(path: Path) -> float:
    """Return the milliseconds for reading all scores and computing all labels of level 0."""
    largest = LargestScores(ScoreStore.open(path)).percentile(99.5)
    began = time.perf_counter()
    label_region(ScoreStore.open(path), ThresholdSettings(), largest, 0, ALL, ALL)
    return 1e3 * (time.perf_counter() - began)


def slider(args: argparse.Namespace) -> dict[str, Any]:
    """Return the milliseconds from a move of a slider to its picture."""
    from napari_pbip.gui.sessions import session_of
    from window import Window

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "slide.ome.zarr"
        make_store(path, CELLS)
        naive = everything(path)
        window = Window(1920, 1080, args.stacks)
        result = session_of(window.viewer).results.open(path)
        window.until(lambda: result.areas.exact)
        found: dict[str, Any] = {"everything again, ms": naive}
        for zoom, pixels in ZOOMS.items():
            look(window, result.store.cell_um, pixels)
            paint = [window.following(window.canvas.update) for _ in range(args.moves)]
            found[zoom] = {"painting alone, ms": 1e3 * float(np.median(paint))}
            for name in ("delta", "presence"):
                median, late = np.percentile(moves(window, result, args.moves, name), [50, 95])
                found[zoom][name] = {"median, ms": median, "95 %, ms": late, "everything over it": naive / median}
        window.close()
    return found


# the live map ----------------------------------------------------------------------------------------------------


def live(args: argparse.Namespace, count: int = 60, classes: int = 8, high: float = 6) -> dict[str, float]:
    """Return the seconds from a label, or a move, to the picture of the live map; the view is ``high`` tiles high."""
    import platformdirs

    from napari_pbip.gui.compat import camera_of
    from napari_pbip.gui.docks.label_tiles import LabelTilesWidget
    from napari_pbip.gui.sessions import session_of
    from napari_pbip.slides import TileSize
    from window import Window

    with tempfile.TemporaryDirectory() as scratch:
        platformdirs.user_cache_path = lambda *_: Path(scratch) / "cache"  # type: ignore[assignment]
        window = Window(stacks=args.stacks)
        session = session_of(window.viewer)
        session.folder = Path(scratch) / "project"
        session.change(bank=BankSettings(encoder="efficientnet-lite0"))
        session.slides.open(samples.slide())
        window.viewer.window.add_dock_widget(LabelTilesWidget(window.viewer))
        window.run(1)
        labels, map_of_labels = session.labelling.labels, session.live_map
        labels.resize(TileSize(pixels=112, mpp=0.5))
        while len(labels.taxonomy) < classes:
            labels.add_class()
        facts = session.labelling.facts
        assert facts is not None
        places = [(column, row) for row in range(6, 26, 2) for column in range(6, 18, 2)][:count]
        for place in places[:-1]:
            labels.label(facts.identity, [place], [place[1] * classes // 26])
        camera, microns = camera_of(window.viewer), labels.size.microns

        def look_at(column: float, row: float) -> None:
            camera.center = (row * microns, column * microns)
            camera.zoom = window.canvas.height() / (high * microns)

        def picture(act: Callable[[], object]) -> tuple[float, float]:
            """Return the seconds from an action to its first picture, and to the last one."""
            drawn: list[float] = []
            map_of_labels.drawn.connect(lambda: drawn.append(time.perf_counter()))
            began = time.perf_counter()
            act()
            window.until(lambda: bool(drawn) and not map_of_labels.busy)
            map_of_labels.drawn.disconnect()
            return drawn[0] - began, time.perf_counter() - began

        look_at(10, 13)
        window.run(0.5)
        cold = picture(lambda: setattr(map_of_labels, "on", True))
        window.begin()
        warm = [picture(lambda n=n: labels.label(facts.identity, places[-1:], [n % classes])) for n in range(4)]
        move, back = picture(lambda: look_at(10, 20)), picture(lambda: look_at(10, 13))
        stalls = window.stalls()
        window.close()
    return {
        "cold, first picture, s": cold[0],
        "cold, all of the view, s": cold[1],
        "warm label, first picture, median, s": float(np.median([some for some, _ in warm])),
        "warm label, first picture, worst, s": max(some for some, _ in warm),
        "warm label, all of the view, median, s": float(np.median([every for _, every in warm])),
        "move to a new place, first picture, s": move[0],
        "move to a new place, all of the view, s": move[1],
        "move back, all of the view, s": back[1],
        "cold over warm, all of the view": cold[1] / float(np.median([every for _, every in warm])),
        "longest stall, ms": stalls.longest,
        "computed at a time, ms": stalls.computed,
    }


# stalls ----------------------------------------------------------------------------------------------------------


def slow_slide(path: Path, seconds: float) -> Path:
    """Put the sample slide where whoever opens it waits for so long, as on a network drive."""
    os.mkfifo(path)

    def come() -> None:
        writer = os.open(path, os.O_RDWR)
        shutil.copy(samples.slide(), path.with_suffix(".copy"))
        path.with_suffix(".copy").replace(path)
        os.write(writer, b"II")  # who waits goes on
        os.close(writer)

    threading.Timer(seconds, come).start()
    return path


def many_slides(folder: Path) -> Path:
    """Make a project of many small slides, each with a copy of a map of its own name, and return its folder."""
    import tifffile

    from napari_pbip.project import Project, ProjectSlide
    from napari_pbip.results.places import result_folder
    from napari_pbip.slides import open_slide

    project, store = folder / "many", folder / "map.ome.zarr"
    make_store(store, SMALL)
    write_labels(ScoreStore.open(store), ThresholdSettings())
    with open_slide(samples.slide()) as slide:
        pixels = slide.read(0, 0, slide.width, slide.height, slide.mpp or 0.5)
    project.mkdir()
    listed = []
    for n in range(MANY):
        path = folder / f"slide {n:03}.tif"
        tifffile.imwrite(
            path, pixels[4 * n : 4 * n + SMALL, 600 : 600 + SMALL], tile=(256, 256), compression="jpeg",
            photometric="rgb", resolution=(20_000, 20_000), resolutionunit="CENTIMETER",
        )  # fmt: skip
        with open_slide(path) as slide:
            listed.append(ProjectSlide.of(slide))
        copy = result_folder(project / "results", listed[-1].name, listed[-1].identity) / f"{path.stem}.ome.zarr"
        shutil.copytree(store, copy, copy_function=os.link)
        document = json.loads((store / "zarr.json").read_text(encoding="utf-8"))
        facts = {"name": listed[-1].name, "path": str(path), "identity": listed[-1].identity}
        document["attributes"]["pbip"]["slide"] |= facts
        (copy / "zarr.json").unlink()  # a link to that of all
        (copy / "zarr.json").write_text(json.dumps(document), encoding="utf-8")
    Project(slides=tuple(listed)).write(project)
    return project


def stalls(args: argparse.Namespace) -> dict[str, Any]:
    """Return the longest stall of each thing that happens for the first time."""
    from qtpy.QtCore import Qt, QTimer

    from window import Window

    window, found = Window(stacks=args.stacks), {}
    viewer = window.viewer

    def measure(name: str, act: Callable[[], object], done: Callable[[], bool] = lambda: True) -> None:
        """Do something from the event loop, and run it until that is done and has been quiet for half a second."""
        acted: list[object] = []
        window.begin()
        began = time.perf_counter()
        QTimer.singleShot(0, lambda: acted.append(act()))
        quiet: float | None = None
        while quiet is None or time.perf_counter() - quiet < 0.5:
            window.run(0.005)
            quiet = (quiet or time.perf_counter()) if acted and done() else None
        times = window.stalls()
        found[name] = {
            "stall, ms": times.longest,
            "computed, ms": times.computed,
            "took, s": time.perf_counter() - 0.5 - began,
        }

    measure("the window alone", lambda: None)
    noise = np.random.default_rng(0).integers(0, 255, (2000, 2000, 3), np.uint8)
    measure("napari adds its first image", lambda: viewer.add_image(noise, rgb=True))
    measure("napari adds an image", lambda: viewer.add_image(noise, rgb=True))
    viewer.layers.clear()
    docks: list[Any] = []
    measure(
        "the panel Workflow",
        lambda: docks.append(viewer.window.add_plugin_dock_widget("napari-pbip", "Workflow")[1]),
        lambda: docks[0].panel is not None,
    )
    panel = docks[0].panel
    from napari_pbip.gui.panels.cohort_table import AREAS  # the panel has imported it, and the session
    from napari_pbip.gui.sessions import session_of
    from napari_pbip.gui.state.steps import Step

    session = session_of(viewer)

    def idle() -> bool:
        return not session.jobs and not session.project.opening

    for slide in (samples.slide(), samples.tumour()):
        measure(f"the slide {slide.name}", lambda slide=slide: viewer.open(str(slide), plugin="napari-pbip"), idle)
    for step in Step:
        measure(f"the page {step.value}", panel.buttons[step].click, idle)
    with tempfile.TemporaryDirectory() as scratch:
        slow = slow_slide(Path(scratch) / "slow.svs", SLOW)
        measure(f"a slide that answers after {SLOW:g} s", lambda: viewer.open(slow, plugin="napari-pbip"), idle)
        measure("another project", lambda: setattr(session, "folder", Path(scratch) / "project"), idle)
        measure(
            "the sample project",
            lambda: viewer.open_sample("napari-pbip", "project"),
            lambda: idle() and len(viewer.layers) > 0,
        )
        for step in Step:
            measure(f"its page {step.value}", panel.buttons[step].click, idle)
        large = many_slides(Path(scratch))
        panel.buttons[Step.PROJECT].click()
        page = panel.pages[Step.PROJECT]
        table, search = page.table, page.search

        def read() -> bool:
            entries = table.cohort_model.entries
            return len(entries) == MANY and all(entry.known for entry in entries)

        def scroll() -> None:
            for row in range(0, MANY, MANY // 60):
                table.scrollTo(table.model().index(row, 0))
                window.run(0.05)

        many = f"{MANY} slides with maps"
        measure(f"{many}, opened", lambda: setattr(session, "folder", large), read)
        measure(f"{many}, sorted", lambda: table.sortByColumn(AREAS, Qt.SortOrder.DescendingOrder))
        measure(f"{many}, scrolled", scroll, idle)
        measure(f"{many}, filtered", lambda: search.setText("slide 29"))
        measure(f"{many}, all shown", lambda: search.setText(""))
        measure(f"{many}, all selected", table.selectAll)
        measure(f"{many}, recoloured", lambda: session.classes.recolour(BCSS.names[0], "#123456"))
        measure(f"{many}, saved", lambda: page.write(Path(scratch) / "slides.csv"))
        measure("napari adds labels", lambda: viewer.add_labels(noise[..., 0], units=("um", "um")))
        measure("napari removes them", lambda: viewer.layers.pop())
        window.close()
    return found


# while jobs run --------------------------------------------------------------------------------------------------


def jobs(args: argparse.Namespace) -> dict[str, Any]:
    """Return the stalls while the view moves and jobs run."""
    from napari_pbip.engine.inference.segment import segment
    from napari_pbip.engine.training.train import train
    from napari_pbip.gui.sessions import session_of
    from window import Window

    window = Window(stacks=args.stacks)
    session, found = session_of(window.viewer), {}
    session.slides.open(args.slide)
    window.run(3)

    def measure(phase: str) -> None:
        window.begin()
        pan(window, session, args.seconds)
        found[phase] = asdict(window.stalls()) | {"frames a second": window.frames / args.seconds}

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        measure("the slide alone")
        compose(folder / "data")
        training = {"data": {"folder": str(folder / "data"), "mpp": 0.5}, "train": {"steps": 100_000, "batch_size": 10}}
        job = session.start(lambda: train(JobSettings.parse(training), folder / "pbip"))
        window.run(20)  # imports, the image bank
        measure("PBIP trains")
        assert not job.state.ended, job.error
        job.cancel()
        job.wait(120)
        run = SegmentSettings(overlap=48)  # more tiles, so that the job takes longer
        job = session.start(lambda: segment(args.slide, args.model, folder / "out", run, ThresholdSettings()))
        regions: list[RegionDone] = []
        job.events.connect(lambda events: regions.extend(e for e in events if isinstance(e, RegionDone)))
        window.until(lambda: bool(regions))
        result = session.results.open(next((folder / "out").glob("*.ome.zarr")))
        job.events.connect(lambda events: result.update([e for e in events if isinstance(e, RegionDone)]))
        measure("the slide is segmented")
        found["the slide is segmented"]["until the end"] = not job.state.ended
        job.cancel()
        job.wait(120)
        window.run(5)
        measure("the map alone")
        window.close()
    return found


def pan(window: Window, session: Session, seconds: float) -> None:
    """Move the view ten times a second, in circles over the slide and in and out."""
    from qtpy.QtCore import QTimer

    from napari_pbip.gui.compat import camera_of

    camera = camera_of(window.viewer)
    low, high = (np.asarray(edge)[-2:] for edge in session.slides[0].layer.extent.world)
    middle, size = (low + high) / 2, (high - low) / 4
    whole = min(window.canvas.width(), window.canvas.height()) / float((high - low).max())
    steps = itertools.count()

    def move() -> None:
        angle = next(steps) / 8
        camera.center = tuple(middle + size * [math.sin(angle), math.cos(1.3 * angle)])
        # between the whole slide and a level-0 pixel on a pixel of the screen
        camera.zoom = whole * (2 / whole) ** ((1 - math.cos(angle / 5)) / 2)

    timer = QTimer()
    timer.setInterval(100)
    timer.timeout.connect(move)
    timer.start()
    window.run(seconds)
    timer.stop()


PARTS = {"first": first, "slider": slider, "live": live, "stalls": stalls, "jobs": jobs}


def main() -> None:
    """Measure the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--slide", type=Path, default=samples.slide())
    parser.add_argument("--model", type=Path, default=samples.project() / "model")
    parser.add_argument("--moves", type=int, default=40, help="changes of a threshold at each zoom")
    parser.add_argument("--seconds", type=float, default=15, help="for which the view moves beside each job")
    parser.add_argument("--stacks", type=float, help="seconds; prints the stack of a busy main thread")
    args = parser.parse_args()
    found: dict[str, Any] = {"hardware": hardware()}
    try:
        for name in args.parts:
            print(f"{name} ...", flush=True)
            found[name] = in_process(PARTS[name], args)
    finally:  # what was measured before an error counts
        finish("interaction", found, args.json)


if __name__ == "__main__":
    main()
