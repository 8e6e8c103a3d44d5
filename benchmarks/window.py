"""Code that the benchmarks of the window share: a viewer, the times of its frames, and how long it stands still."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import napari
import numpy as np
from napari.qt import get_qapp
from qtpy.QtCore import QEventLoop, QTimer
from qtpy.QtOpenGLWidgets import QOpenGLWidget

TICK_MS = 10
LIMIT_S = 900


@dataclass(frozen=True, slots=True)
class Stalls:
    """Times between two ticks of a timer of 10 ms on the main thread, in ms."""

    median: float
    late: float
    """99th percentile."""
    longest: float
    computed: float
    """Longest time that the main thread computed between two ticks, which other programs change less."""


class Window:
    """A viewer of some pixels, whose event loop runs only in these methods.

    Parameters
    ----------
    width, height
        Pixels.
    stacks
        The main thread's stack is printed whenever it was busy for so many seconds.
    """

    def __init__(self, width: int = 1366, height: int = 768, stacks: float | None = None) -> None:
        self.viewer = napari.Viewer()
        self.viewer.window.resize(width, height)
        self._application = get_qapp()
        self._wall: list[float] = []
        self._computed: list[float] = []
        self._frames: list[float] = []
        self._canvas: QOpenGLWidget | None = None
        self._timer = QTimer()
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self._tick)
        self._timer.start()
        if stacks is not None:
            threading.Thread(target=self._watch, args=(threading.get_ident(), stacks), daemon=True).start()
        self.run(0.5)

    @property
    def canvas(self) -> QOpenGLWidget:
        """The widget on which napari draws, which emits a signal when a frame is swapped."""
        if self._canvas is None:
            found = [one for top in self._application.topLevelWidgets() for one in top.findChildren(QOpenGLWidget)]
            [self._canvas] = found
            self._canvas.frameSwapped.connect(lambda: self._frames.append(time.perf_counter()))
        return self._canvas

    def run(self, seconds: float) -> None:
        """Run the event loop for some seconds."""
        loop = QEventLoop()
        QTimer.singleShot(round(1e3 * seconds), loop.quit)
        loop.exec()

    def until(self, done: Callable[[], bool]) -> None:
        """Run the event loop until something is so."""
        end = time.perf_counter() + LIMIT_S
        while not done():
            if time.perf_counter() > end:
                raise TimeoutError(f"not within {LIMIT_S} s")
            self._application.processEvents()
            time.sleep(0.001)

    def picture(self, act: Callable[[], object], done: Callable[[], bool] = lambda: True) -> float:
        """Do something; return the seconds until it is done and the next frame is on the screen."""
        _ = self.canvas
        began = time.perf_counter()
        act()
        self.until(done)
        return self.frame() - began

    def frame(self) -> float:
        """Return the time of the next frame on the screen."""
        canvas = self.canvas
        self._frames.clear()
        canvas.update()
        self.until(lambda: bool(self._frames))
        return self._frames[0]

    def following(self, change: Callable[[], object]) -> float:
        """Return the seconds from a change to the frame that it causes."""
        self.run(0.05)
        _ = self.canvas
        self._frames.clear()
        began = time.perf_counter()
        change()
        while not self._frames:
            self._application.processEvents()
        return self._frames[0] - began

    def begin(self) -> None:
        """Forget ticks and frames until now."""
        self._wall, self._computed, self._frames = [time.perf_counter()], [time.thread_time()], []

    def stalls(self) -> Stalls:
        """Return how long the window stood still since :meth:`begin`."""
        self._tick()
        wall, computed = 1e3 * np.diff(self._wall), 1e3 * np.diff(self._computed)
        figures = np.median(wall), np.percentile(wall, 99), wall.max(), computed.max()
        return Stalls(*(round(float(figure), 1) for figure in figures))

    @property
    def frames(self) -> int:
        """Number of frames since :meth:`begin`."""
        return len(self._frames)

    def close(self) -> None:
        """Close the viewer and its session."""
        from napari_pbip.gui.sessions import session_of

        self._timer.stop()
        session_of(self.viewer).close()
        self.viewer.close()
        self._application.processEvents()

    def _tick(self) -> None:
        self._wall.append(time.perf_counter())
        self._computed.append(time.thread_time())

    def _watch(self, main: int, limit: float) -> None:
        while True:
            time.sleep(limit / 3)
            if self._wall and (busy := time.perf_counter() - self._wall[-1]) > limit:
                frames = traceback.extract_stack(sys._current_frames()[main])
                ours = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames]
                print(f"    busy for {busy:.2f} s: {' > '.join(ours[-14:])}", flush=True)
