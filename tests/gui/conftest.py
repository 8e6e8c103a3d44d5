"""A real viewer on a (virtual) display. A test fails if it leaves threads, timers or windows behind."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import PATIENCE

SCREEN = "1600x1000x24"


@pytest.fixture(scope="session")
def display() -> Iterator[None]:
    """Provide the screen or a virtual one.

    Each of several workers has a virtual one, because windows of one screen take the focus from each other.
    """
    server = shutil.which("Xvfb")
    alone = server is None or "PYTEST_XDIST_WORKER" not in os.environ
    if sys.platform != "linux" or (os.environ.get("DISPLAY") and alone):
        yield
        return
    assert server, "the tests of the window need a screen or Xvfb: run tools/system_libraries.py"
    reading, writing = os.pipe()
    arguments = [server, "-displayfd", str(writing), "-screen", "0", SCREEN, "-nolisten", "tcp"]
    with subprocess.Popen(arguments, pass_fds=[writing], stderr=subprocess.DEVNULL) as process:
        os.close(writing)
        with os.fdopen(reading) as answer:
            number = answer.readline().strip()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DISPLAY", f":{number}")
            patch.setenv("QT_QPA_PLATFORM", "xcb")  # on a desktop that is one of Wayland, too
            yield
        process.terminate()


@pytest.fixture(scope="session")
def application(display: None) -> Iterator[Any]:
    """The one Qt application of the test run."""
    from napari.qt import get_qapp
    from qtpy.QtCore import QEvent

    application = get_qapp()
    yield application
    for _ in range(2):  # what draws must not be deleted later, without a screen
        gc.collect()
        application.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        application.processEvents()


@pytest.fixture(autouse=True)
def no_last_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project that was used last is remembered apart from the user's."""
    monkeypatch.setattr("napari_pbip.project.recent._file", lambda: tmp_path / "last-project.txt")


@pytest.fixture(autouse=True)
def no_hidden_errors() -> Iterator[None]:
    """Fail on errors in slots and event handlers, which Qt passes to ``sys.excepthook`` or aborts on."""
    raised: list[BaseException] = []
    before = sys.excepthook
    sys.excepthook = lambda kind, error, trace: raised.append(error)
    yield
    sys.excepthook = before
    if raised:
        raise raised[0]


@pytest.fixture
def stray_windows(application: Any) -> Iterator[Callable[[], None]]:
    """Finds windows of this package besides the viewer, dialogs and menus, because they would take the keyboard."""
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QDialog, QMainWindow

    found: dict[int, str] = {}

    def look() -> None:
        for window in application.topLevelWidgets():
            own = window.windowType() == Qt.WindowType.Window and not isinstance(window, (QDialog, QMainWindow))
            if own and window.isVisible():
                found[id(window)] = f"{type(window).__name__} {window.windowTitle()!r}"

    yield look
    look()
    assert not found, f"windows appeared beside the viewer: {sorted(found.values())}"


@pytest.fixture(autouse=True)
def no_stray_windows(request: pytest.FixtureRequest) -> None:
    """Check that no other window of this package opens in a test with a viewer."""
    if "viewer" in request.fixturenames:
        request.getfixturevalue("stray_windows")


@pytest.fixture
def settle(request: pytest.FixtureRequest, application: Any) -> Callable[..., None]:
    """Run the event loop until a condition holds, or for a moment; fail if that takes too long."""
    look = request.getfixturevalue("stray_windows") if "viewer" in request.fixturenames else lambda: None

    def run(until: Callable[[], Any] | None = None, seconds: float = PATIENCE) -> None:
        end = time.monotonic() + (seconds if until else 0.2)
        while True:
            application.processEvents()
            look()
            if until is not None and until():
                return
            if time.monotonic() > end:
                window, focus = application.activeWindow(), application.focusWidget()
                assert until is None, f"still not so after {seconds} s; active: {window}, with the focus: {focus}"
                return
            time.sleep(0.005)

    return run


def left_behind(application: Any) -> list[str]:
    """Return threads of this package, visible windows and running timers."""
    from qtpy.QtCore import QTimer

    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("napari-pbip")]
    windows = application.topLevelWidgets()
    timers = [timer for window in windows for timer in window.findChildren(QTimer) if timer.isActive()]
    return [
        *(f"thread {name}" for name in threads),
        *(f"window {window}" for window in windows if window.isVisible()),
        *(f"timer of {timer.parent()}" for timer in timers),
    ]


@pytest.fixture
def viewer(application: Any, settle: Callable[..., None], tmp_path: Path) -> Iterator[Any]:
    """Return a shown napari viewer, whose session has the project ``tmp_path / "project"``."""
    import napari

    from napari_pbip.gui.sessions import session_of

    # napari's own dialogs would wait for a click that nobody makes
    napari.settings.get_settings().application.confirm_close_window = False
    gc.freeze()  # modules stay: napari collects garbage for each window that closes, and need not look through them
    viewer = napari.Viewer()
    viewer.window.resize(1500, 950)
    session = session_of(viewer)
    session.folder = tmp_path / "project"
    application.processEvents()
    yield viewer
    session.close()
    viewer.close()
    application.processEvents()
    del viewer, session
    gc.collect()
    end = time.monotonic() + PATIENCE  # a thread ends when the block that it decodes is there
    while (left := left_behind(application)) and time.monotonic() < end:
        application.processEvents()
        time.sleep(0.005)
    assert not left, f"left behind: {left}"


@pytest.fixture
def bare_viewer(application: Any, settle: Callable[..., None]) -> Iterator[Any]:
    """Return a viewer as napari opens it, before anything of this package is opened."""
    import napari

    from napari_pbip.gui.sessions import session_of

    viewer = napari.Viewer()
    viewer.window.resize(1200, 800)
    settle()
    yield viewer
    session_of(viewer).close()
    viewer.close()
    settle()
    del viewer
    gc.collect()


MAP_SHAPE = (400, 700)
"""Number of cells of the map that ``result`` shows, (height, width)."""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.results.stores import create, network, segment, smooth_field

    store = create(tmp_path_factory.mktemp("tune") / "slide.ome.zarr", MAP_SHAPE)
    segment(store, network(smooth_field(MAP_SHAPE)))
    return store.path


@pytest.fixture
def store(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "result" / "slide.ome.zarr")


@pytest.fixture
def result(viewer, settle, store):
    from napari_pbip.gui.sessions import session_of

    result = session_of(viewer).results.open(store)
    viewer.reset_view()
    settle(lambda: result.areas.exact)
    return result


@pytest.fixture
def tune(viewer, settle):
    from napari_pbip.gui.docks.tune import TuneWidget

    widget = TuneWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Tune")
    settle()
    return widget
