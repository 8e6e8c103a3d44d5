"""Opening slides that are slow to read, as on a network drive: the window goes on meanwhile, and says what it does."""

from __future__ import annotations

import gc
import os
import shutil
import threading
import time
from functools import partial
from pathlib import Path

import napari
import numpy as np
import pytest
import shapely
import tifffile
from napari.utils.notifications import notification_manager
from PIL import Image
from qtpy.QtCore import QEventLoop, Qt, QTimer
from qtpy.QtTest import QTest

from napari_pbip import samples
from napari_pbip.gui.docks.project import ProjectWidget
from napari_pbip.gui.docks.slides import SlidesWidget
from napari_pbip.gui.docks.tune import TuneWidget
from napari_pbip.gui.sessions import session_begun, session_of
from napari_pbip.project import Project, ProjectSlide
from napari_pbip.results.places import regions_file
from napari_pbip.slides import Slide, TissueMask, open_slide
from napari_pbip.slides.regions import Kind, Region, Regions
from tests.gui.napari_privates import canvas_of, duplicate, main_window
from tests.gui.qt_helpers import click, drop_on_viewer, save_as
from tests.gui.state.project_process import make_store
from tests.waiting import PATIENCE

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="files that are slow to read are FIFOs")
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
        self._late = threading.Timer(PATIENCE, self.come)
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
    settle(lambda: not session.opening.paths and not session.project.opening)
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
    settle(lambda: not session.opening.paths)
    settle()
    assert [slide.slide.path for slide in session.slides] == [first.path, second]
    assert session.current_slide is session.slides[0]  # which was asked for last
    assert widget.notice.text() == f"✖  There is no slide at {tmp_path / 'gone.svs'}; check the path."


def test_what_is_being_opened_does_not_come_into_another_project(
    viewer, session, widget, settle, slow, store, tmp_path
):
    file, of_store, called = slow("slow.svs"), SlowFile(store / "zarr.json"), []
    session.opening.slide(file.path, called.append, called.append)
    session.opening.slide(samples.slide(), called.append, called.append)
    session.opening.result(store, called.append, called.append)
    settle(lambda: len(session.opening.paths) == 3)
    session.folder = tmp_path / "another"
    assert session.opening.paths == ()
    file.come()
    of_store.come()
    settle(lambda: not session.jobs)
    settle()
    assert (called, list(viewer.layers), session.project.slides) == ([], [], ())
    session.opening.slide(samples.slide(), called.append)  # which waits for nothing of before
    settle(lambda: called)
    assert called == list(session.slides)


def test_a_window_closes_while_a_slide_is_read(viewer, session, settle, slow):
    file = slow("slow.svs")
    session.opening.slide(file.path)
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
    assert session.opening.paths == (slide, picture, damaged)
    settle(lambda: not session.opening.paths)
    settle()
    assert [(layer.name, layer.multiscale) for layer in viewer.layers] == [("slide", True), ("picture", False)]
    told = [one.message for one in notification_manager.records if str(one.severity) == "error"]
    assert told == ["damaged.svs is incomplete: its end is missing; copy or export it again."]


@pytest.fixture
def mapped(tmp_path) -> tuple[Path, Path]:
    """Return a slide and a result of it that is in no project."""
    (tmp_path / "slides").mkdir()
    slide = Path(shutil.copy(samples.slide(), tmp_path / "slides" / "skin.svs"))
    return slide, make_result(slide, tmp_path / "result" / "skin.ome.zarr")


def make_result(path: Path, store: Path) -> Path:
    store.parent.mkdir(parents=True)
    with open_slide(path) as slide:
        if slide.mpp is None:
            slide.give_mpp(0.5)
        make_store(slide, store)
    return store


def warnings() -> list[str]:
    return [one.message for one in notification_manager.records if str(one.severity) in ("warning", "error")]


def all_open(session) -> bool:
    return not session.jobs and not session.opening.paths and not session.project.opening


def names(viewer) -> list[str]:
    return [layer.name for layer in viewer.layers if layer.visible]


@pytest.mark.parametrize("way", ["canvas", "button"])
def test_a_result_opens_with_its_slide(viewer, session, settle, mapped, way):
    slide, store = mapped
    other = session.slides.open(samples.frozen_section())
    notification_manager.records.clear()
    tune = TuneWidget(viewer)
    viewer.window.add_dock_widget(tune, name="Tune")
    settle()
    for opened in ("first", "again"):
        if way == "canvas":
            in_event_loop(lambda: drop_on_viewer(viewer, settle, store))
        elif opened == "first":
            click(tune.open_button)
            save_as(tune, settle, store)
        else:
            tune.open(store)
        settle(lambda: len(session.results) and all_open(session))
        settle()
        assert [one.slide.path for one in session.slides] == [other.slide.path, slide]
        assert names(viewer) == ["skin", "skin tissue map"]
        assert session.current_slide.slide.path == slide
        assert tune.title.text() == "<b>skin</b>"
        assert not tune.notice.isVisible()
        session.slides.show(other)
        settle()
        assert names(viewer) == [other.layer.name]
    assert len(session.results) == 1
    assert warnings() == []


def test_a_result_comes_once_with_a_slide_that_is_being_opened_elsewhere(viewer, session, settle, mapped):
    slide, store = mapped
    moved = slide.rename(slide.with_name("moved.svs"))
    slow = SlowFile(moved)
    notification_manager.records.clear()
    session.opening.slide(moved)
    in_event_loop(lambda: drop_on_viewer(viewer, settle, store))
    in_event_loop(lambda: drop_on_viewer(viewer, settle, store))
    settle()
    assert not viewer.layers
    slow.come()
    settle(lambda: len(session.results) and all_open(session))
    settle()
    assert names(viewer) == ["moved", "skin tissue map"]
    assert len(viewer.layers) == 2
    assert warnings() == []


def test_results_come_once_with_a_project_that_is_opened_as_it_was_left(viewer, session, settle, mapped, tmp_path):
    slide, store = mapped
    second = make_result(samples.frozen_section(), tmp_path / "second" / "frozen.ome.zarr")
    in_event_loop(lambda: viewer.open([store, second], plugin="napari-pbip"))
    settle(lambda: len(session.results) == 2 and all_open(session))
    settle()
    shown = [samples.frozen_section().stem, f"{samples.frozen_section().stem} tissue map"]
    assert names(viewer) == shown  # all slides lie at the same place
    session.folder.mkdir()
    folder, session.folder = session.folder, tmp_path / "another"
    assert not viewer.layers
    session.folder = folder
    in_event_loop(lambda: drop_on_viewer(viewer, settle, store))
    settle(lambda: len(session.results) == 2 and all_open(session))
    settle()
    assert {one.slide.path for one in session.slides} == {slide, samples.frozen_section()}
    assert len(viewer.layers) == 4


def test_a_result_is_shown_without_its_slide_until_that_is_found(viewer, session, settle, mapped, tmp_path):
    slide, store = mapped
    elsewhere = slide.rename(tmp_path / "skin.svs")
    project, tune = ProjectWidget(viewer), TuneWidget(viewer)
    viewer.window.add_dock_widget(project, name="Project")
    viewer.window.add_dock_widget(tune, name="Tune", tabify=True)
    settle()
    where = f"skin.svs, the slide of this map, is not at {slide.parent}"
    said = f"{where}; Find them… in Project looks for it where you say."
    notification_manager.records.clear()
    in_event_loop(lambda: drop_on_viewer(viewer, settle, store))
    settle(lambda: len(session.results) and all_open(session))
    assert warnings() == [said]
    tune.open(store)
    settle(lambda: tune.notice.text() == f"⚠  {said}")
    assert names(viewer) == ["skin tissue map"]
    assert "skin.svs" in project.project.missing.text()
    session.project.find_missing(tmp_path)
    settle(lambda: len(session.slides) and all_open(session))
    settle()
    assert session.slides[0].slide.path == elsewhere
    assert names(viewer) == ["skin", "skin tissue map"]
    assert session.results.current is session.results[0]
    assert session.project.missing == ()
    assert len(viewer.layers) == 2


def test_another_slide_in_the_place_of_that_of_a_result_is_not_shown_below_it(viewer, session, settle, mapped):
    slide, store = mapped
    shutil.copy(samples.tumour(), slide)
    notification_manager.records.clear()
    for way in ("read", "open"):
        if way == "open":
            session.slides.open(slide)
            settle()
        session.opening.result_with_slide(store)
        settle(lambda: warnings() and all_open(session))
        assert warnings() == [f"{slide} is another slide than the one of this map, which is shown without its slide."]
        assert len(session.slides) == (way == "open")
        (result,) = session.results
        viewer.layers.remove(result.layer)
        notification_manager.records.clear()


def test_a_result_of_another_project_opens_with_its_slide_as_that_project_knows_it(viewer, session, settle, tmp_path):
    path = Path(shutil.copy(samples.tumour(), tmp_path / "tumour.tif"))
    study, store = tmp_path / "study", tmp_path / "study" / "results" / "tumour" / "tumour.ome.zarr"
    store.parent.mkdir(parents=True)
    with open_slide(path, 0.5) as slide:
        make_store(slide, store)
        known = ProjectSlide.of(slide)
    moved = path.rename(tmp_path / "moved.tif")
    Project(slides=(known.model_copy(update={"path": moved}),)).write(study)
    notification_manager.records.clear()
    in_event_loop(lambda: drop_on_viewer(viewer, settle, store))
    settle(lambda: len(session.results) and all_open(session))
    settle()
    assert names(viewer) == ["moved", "tumour tissue map"]
    assert session.current_slide.slide.mpp == 0.5
    assert session.project.of_path(moved).mpp_from == "user"
    assert warnings() == []


def write_tiled(path: Path, pixels: np.ndarray) -> Path:
    """Write a TIFF of which only its content tells that it is a slide."""
    tifffile.imwrite(path, pixels[:1024, :1024], tile=(256, 256), photometric="rgb")
    return path


@pytest.mark.parametrize("last", ["slide", "picture"])
def test_a_thread_tells_whether_files_opened_as_a_stack_are_slides(
    viewer, session, settle, tmp_path, sample_pixels, last
):
    first, second = write_tiled(tmp_path / "a.tif", sample_pixels), tmp_path / "b.tif"
    if last == "slide":
        write_tiled(second, sample_pixels)
    else:
        tifffile.imwrite(second, sample_pixels[:1024, :1024], photometric="rgb")
    slow = SlowFile(second)
    in_event_loop(lambda: viewer.open([first, second], stack=True, plugin="napari-pbip"))
    settle()
    assert session.jobs
    assert not viewer.layers
    slow.come()
    settle(lambda: not session.jobs and viewer.layers)
    settle()
    assert [layer.multiscale for layer in viewer.layers] == ([True, True] if last == "slide" else [False])
    if last == "picture":
        assert viewer.layers[0].data.shape == (2, 1024, 1024, 3)


@pytest.mark.parametrize("kind", ["slide", "picture"])
def test_a_bare_window_goes_on_while_a_thread_tells_whether_a_file_is_a_slide(
    bare_viewer, settle, tmp_path, sample_pixels, kind
):
    path = write_tiled(tmp_path / "slow.tif", sample_pixels)
    if kind == "picture":
        tifffile.imwrite(path, sample_pixels[:64, :64])
    slow = SlowFile(path)
    in_event_loop(lambda: bare_viewer.open(path, plugin="napari-pbip"))
    settle()
    assert not bare_viewer.layers
    slow.come()
    settle(lambda: bare_viewer.layers)
    assert bare_viewer.layers[0].multiscale is (kind == "slide")
    assert (session_begun() is not None) is (kind == "slide")


def test_a_bare_window_closes_while_a_thread_looks_at_a_file(application, settle, tmp_path, sample_pixels):
    slow = SlowFile(write_tiled(tmp_path / "slow.tif", sample_pixels))
    viewer = napari.Viewer()
    in_event_loop(partial(viewer.open, slow.path, plugin="napari-pbip"))
    viewer.close()
    del viewer
    gc.collect()
    slow.come()
    settle()


def test_the_key_for_the_next_slide_goes_on_from_the_one_that_is_being_opened(viewer, session, settle, tmp_path):
    window, canvas = main_window(viewer), canvas_of(viewer)
    window.activateWindow()
    canvas.setFocus()
    settle(lambda: window.isActiveWindow() and canvas.hasFocus())

    def press(modifiers=Qt.KeyboardModifier.NoModifier) -> None:
        QTest.keyClick(canvas, Qt.Key.Key_N, modifiers)
        settle()

    paths = [Path(shutil.copy(samples.slide(), tmp_path / f"{name}.svs")) for name in "abcdef"]
    session.project.add(paths)
    settle(lambda: len(session.project.slides) == 6 and not session.jobs)
    paths[4].write_bytes(paths[4].read_bytes()[:300_000])
    press()
    settle(lambda: not session.project.opening)
    slow = SlowFile(paths[1])
    for _ in "bcd":
        press()
    assert session.opening.paths == (paths[1],)
    press(Qt.KeyboardModifier.ShiftModifier)
    slow.come()
    settle(lambda: not session.project.opening and not session.jobs)
    settle()
    assert [slide.slide.path.stem for slide in session.slides] == ["a", "b", "c"]  # not d, which was passed over
    assert session.current_slide.slide.path == paths[2]
    assert [slide.layer.visible for slide in session.slides] == [False, False, True]
    press()
    settle(lambda: not session.project.opening)
    press()  # damaged: the view stays, and the key goes on
    settle(lambda: session.project.faults)
    assert session.current_slide.slide.path == paths[3]
    press()
    settle(lambda: session.current_slide.slide.path == paths[5])
    settle(lambda: not session.jobs)


def test_a_layer_is_removed_without_waiting_for_its_pixels(viewer, session, settle, monkeypatch):
    gate, reading, closed = threading.Event(), threading.Event(), threading.Event()
    read, close = Slide.read_scaled, Slide.close

    def slowly(self, *args):
        reading.set()
        gate.wait(PATIENCE)
        assert not closed.is_set()
        return read(self, *args)

    def closing(self):
        closed.set()
        close(self)

    monkeypatch.setattr(Slide, "read_scaled", slowly)
    monkeypatch.setattr(Slide, "close", closing)
    slide = session.slides.open(samples.slide())
    settle(reading.is_set)
    viewer.layers.selection.active = slide.layer
    duplicate(viewer.layers)
    began = time.monotonic()
    viewer.layers.clear()
    assert time.monotonic() - began < PATIENCE / 2
    settle()
    assert not len(session.slides)
    assert not closed.is_set()
    gate.set()
    settle(closed.is_set)
    assert not slide.pyramid.error


def test_regions_and_tissue_are_read_while_the_window_goes_on(viewer, session, widget, settle, tmp_path, monkeypatch):
    path = Path(shutil.copy(samples.slide(), tmp_path / "slide.svs"))
    slide = session.slides.open(path).slide
    regions = regions_file(session.result_folder(slide))
    Regions((Region("bed", Kind.ANALYSE, shapely.box(100, 100, 900, 900)),)).write(regions)
    drawn = Image.new("1", (222, 297))
    drawn.paste(1, (0, 0, 222, 100))
    drawn.save(session.tissue_file(slide))
    viewer.layers.clear()
    session.folder = tmp_path / "another"
    gate, read = threading.Event(), TissueMask.read.__func__

    def slowly(cls, *args):
        assert threading.current_thread() is not threading.main_thread()
        gate.wait(PATIENCE)
        return read(cls, *args)

    monkeypatch.setattr(TissueMask, "read", classmethod(slowly))
    session.folder = tmp_path / "project"
    slow = SlowFile(regions)
    in_event_loop(lambda: widget.take([path]))
    settle(widget.opening.isVisible)
    settle()
    assert not viewer.layers
    slow.come()
    settle(lambda: not session.opening.paths)
    settle()
    opened = session.current_slide
    assert [one.name for one in session.regions.of(opened)] == ["bed"]
    assert session.tissue.mask(opened) is None
    click(widget.tissue.button)  # the mask by hand, which is being read, is not replaced without a question
    settle()
    gate.set()
    settle(lambda: session.tissue.mask(opened) is not None)
    assert widget.tissue.question.isVisible()
    assert session.tissue.mask(opened).by_hand
    assert not session.tissue.is_searched(opened)
    settle(lambda: not session.jobs)
