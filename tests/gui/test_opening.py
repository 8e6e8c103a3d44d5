"""Opening slides that are slow to read, as on a network drive: the window goes on meanwhile, and says what it does."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest
import tifffile
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QEventLoop, QTimer

from napari_pbip import samples
from napari_pbip.gui.docks.project import ProjectWidget
from napari_pbip.gui.docks.slides import SlidesWidget
from napari_pbip.gui.sessions import session_of
from tests.gui.qt_helpers import drop_on_viewer

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="files that are slow to read are FIFOs")
_PATIENCE = 20.0
"""Seconds after which a slow file comes in any case, so that a window that waits for it fails instead of hanging."""

_AT_ONCE = 16_384
"""Bytes that a FIFO holds without a reader."""


class SlowFile:
    """A FIFO in the place of a file: who opens it waits until the file comes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock, self._there = threading.Lock(), False
        self._content = path.with_name(f"content of {path.name}")
        path.rename(self._content)
        os.mkfifo(path)
        self._late = threading.Timer(_PATIENCE, self.come)
        self._late.daemon = True
        self._late.start()

    def come(self) -> None:
        """Let those that wait go on with the file."""
        self._late.cancel()
        with self._lock:
            if not self._there:
                self._there = True
                writer = os.open(self.path, os.O_RDWR)  # which does not wait
                beginning = self._content.read_bytes()[:_AT_ONCE]
                self._content.replace(self.path)
                os.write(writer, beginning)
                os.close(writer)


@pytest.fixture
def slow(tmp_path):
    """Return a function that copies the sample slide to a path, from where it is slow to read."""
    files = []

    def make(name: str) -> SlowFile:
        (tmp_path / "drive").mkdir(exist_ok=True)
        files.append(SlowFile(Path(shutil.copy(samples.slide(), tmp_path / "drive" / name))))
        return files[-1]

    yield make
    for file in files:
        file.come()


@pytest.fixture
def session(viewer, tmp_path):
    session = session_of(viewer)
    session.folder = tmp_path / "project"
    return session


@pytest.fixture
def widget(viewer, settle) -> SlidesWidget:
    widget = SlidesWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Slides")
    settle()
    return widget


def in_event_loop(act) -> None:
    """Call a function from an event loop, as in a window that runs."""
    loop = QEventLoop()

    def act_and_end() -> None:
        try:
            act()
        finally:
            loop.quit()

    QTimer.singleShot(0, act_and_end)
    loop.exec()


@pytest.mark.parametrize("way", ["page", "canvas", "project", "queue"])
def test_the_window_goes_on_while_a_slide_is_read(viewer, session, widget, settle, slow, tmp_path, way):
    if way in ("project", "queue"):
        path = Path(shutil.copy(samples.slide(), tmp_path / "slow.svs"))
        session.slides.open(path)
        settle()
        viewer.layers.clear()
        if way == "queue":
            session.segmenting.add([path], tmp_path / "no model")
            settle(lambda: not session.jobs)
        file = SlowFile(path)
    else:
        file = slow("slow.svs")
    acts = {
        "page": lambda: widget.take([file.path]),
        "canvas": lambda: drop_on_viewer(viewer, settle, file.path),
        "project": lambda: session.project.show(file.path),
        "queue": lambda: session.segmenting.show(session.segmenting.slides[0]),
    }
    in_event_loop(acts[way])
    settle(widget.opening.isVisible)
    assert widget.opening.text() == "Opening slow.svs…"
    assert not viewer.layers
    file.come()
    settle(lambda: not session.opening and not session.project.opening)
    settle()
    (slide,) = session.slides
    assert (slide.slide.path, slide.layer.visible) == (file.path, True)
    assert session.current_slide is slide
    assert not widget.opening.isVisible()


def test_slides_come_once_each_in_their_order_and_errors_are_told(viewer, session, widget, settle, slow, tmp_path):
    first, second = slow("b.svs"), Path(shutil.copy(samples.slide(), tmp_path / "a.svs"))
    project = ProjectWidget(viewer)
    viewer.window.add_dock_widget(project, name="Project")
    widget.take([first.path, tmp_path / "gone.svs", second])
    widget.take([first.path])
    settle(widget.opening.isVisible)
    assert widget.opening.text() == "Opening b.svs and 3 more…"
    assert project.opening.text() == widget.opening.text()
    first.come()
    settle(lambda: not session.opening)
    settle()
    assert [slide.slide.path for slide in session.slides] == [first.path, second]
    assert session.current_slide is session.slides[0]  # which was asked for last
    assert widget.notice.text() == f"✖  There is no slide at {tmp_path / 'gone.svs'}; check the path."


def test_what_is_being_opened_does_not_come_into_another_project(
    viewer, session, widget, settle, slow, store, tmp_path
):
    file, of_store, called = slow("slow.svs"), SlowFile(store / "zarr.json"), []
    session.open_slide(file.path, called.append, called.append)
    session.open_slide(samples.slide(), called.append, called.append)
    session.open_result(store, called.append, called.append)
    settle(lambda: len(session.opening) == 3)
    session.folder = tmp_path / "another"
    assert session.opening == ()
    file.come()
    of_store.come()
    settle(lambda: not session.jobs)
    settle()
    assert (called, list(viewer.layers), session.project.slides) == ([], [], ())
    session.open_slide(samples.slide(), called.append)  # which waits for nothing of before
    settle(lambda: called)
    assert called == list(session.slides)


def test_a_window_closes_while_a_slide_is_read(viewer, session, settle, slow):
    file = slow("slow.svs")
    session.open_slide(file.path)
    settle()
    threading.Timer(0.3, file.come).start()
    session.close()
    assert not viewer.layers
    assert not session.jobs


def test_in_a_running_window_a_thread_tells_slides_from_other_files(viewer, session, settle, tmp_path, sample_pixels):
    slide, picture, damaged = (tmp_path / name for name in ("slide.tif", "picture.tif", "damaged.svs"))
    tifffile.imwrite(slide, sample_pixels[:1024, :1024], tile=(256, 256), photometric="rgb")
    tifffile.imwrite(picture, sample_pixels[:64, :64])
    damaged.write_bytes(samples.slide().read_bytes()[:300_000])
    notification_manager.records.clear()
    in_event_loop(lambda: viewer.open([slide, picture, damaged], plugin="napari-pbip"))
    assert session.opening == (slide, picture, damaged)
    settle(lambda: not session.opening)
    settle()
    assert [(layer.name, layer.multiscale) for layer in viewer.layers] == [("slide", True), ("picture", False)]
    told = [one.message for one in notification_manager.records if str(one.severity) == "error"]
    assert told == ["damaged.svs is incomplete: its end is missing; copy or export it again."]
