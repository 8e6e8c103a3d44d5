"""Slides as layers, the reader that napari calls, and the dock widget that opens them."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import napari
import numpy as np
import pytest
import tifffile
from napari.errors import NoAvailableReaderError
from napari.layers import Labels
from napari.utils.notifications import notification_manager
from npe2 import PluginManager
from PIL import Image
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_pbip import samples
from napari_pbip.gui.compat import camera_of, overlays, scale_bar
from napari_pbip.gui.docks.slides import SlidesWidget
from napari_pbip.gui.layers.magnification import OVERLAY
from napari_pbip.gui.layers.slides import SlidePyramid
from napari_pbip.gui.reader import get_reader
from napari_pbip.gui.sessions import session_of
from napari_pbip.slides import Slide, TissueMask, open_slide
from tests.gui.napari_privates import canvas_of, duplicate, pixels_shown, qt_viewer
from tests.gui.qt_helpers import click, drop_on_viewer, dropped, open_slides


def shows_scale_bar(viewer: napari.Viewer) -> bool:
    bar = scale_bar(viewer)
    return bool(bar.visible and bar.opacity > 0)


def magnification(viewer: napari.Viewer) -> str:
    """Return the magnification that is shown, or an empty text."""
    shown = overlays(viewer).get(OVERLAY)
    return shown.text if shown is not None and shown.visible and shown.opacity > 0 else ""


@pytest.fixture
def widget(viewer) -> SlidesWidget:
    widget = SlidesWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Slides")
    return widget


@pytest.fixture
def slide_without_mpp(tmp_path: Path, sample_pixels: np.ndarray) -> Path:
    path = tmp_path / "no mpp.png"
    Image.fromarray(sample_pixels[500:1500, 500:1300]).save(path)
    return path


def drop(widget, *paths: Path) -> None:
    """Drop files on a widget that accepts them."""
    assert dropped(widget, *paths).isAccepted()


def mask_layer(viewer) -> Labels | None:
    """Return the layer of the tissue mask of the current slide."""
    session = session_of(viewer)
    mask = session.tissue.mask(session.current_slide)
    return None if mask is None else mask.layer


def test_a_dropped_slide_is_a_layer_in_micrometres(viewer, widget, settle):
    drop(widget, samples.slide())
    settle(lambda: len(viewer.layers) and not session_of(viewer).opening.paths)
    (layer,) = viewer.layers
    assert layer.rgb
    assert layer.multiscale
    assert [str(unit) for unit in layer.units] == ["micrometer"] * 2
    np.testing.assert_allclose(layer.extent.world[1], [2967 * 0.499, 2220 * 0.499], atol=1)
    assert "2,220 x 2,967 pixels, 1.11 x 1.48 mm" in widget.facts.text()
    assert widget.mpp.known.text() == "0.499 µm per pixel, as the slide says"


def test_pixels_come_sharp_wherever_the_view_is(viewer, settle, sample_pixels):
    slide = session_of(viewer).slides.open(samples.slide())
    for scale, top, left in ((1, 1000, 700), (1, 0, 0), (2, 300, 100), (4, 0, 0)):
        level = next(one for one in slide.pyramid.levels if one.scale == scale)
        window = np.s_[top : top + 300, left : left + 400]
        level[window]  # the first look may be blurred
        settle(lambda: slide.pyramid.pending == 0)
        with open_slide(samples.slide()) as again:
            expected = again.read_scaled(left * scale, top * scale, 400, 300, scale)
        np.testing.assert_array_equal(level[window], expected)
    np.testing.assert_array_equal(slide.pyramid.levels[0][1000:1300, 700:1100], sample_pixels[1000:1300, 700:1100])


def test_the_canvas_shows_the_slide(viewer, settle, sample_pixels):
    slide = session_of(viewer).slides.open(samples.slide())
    camera_of(viewer).zoom = 2 / 0.499  # canvas pixels per micrometre: two for each pixel of the slide
    camera_of(viewer).center = (1000 * 0.499, 900 * 0.499)
    settle()
    settle(lambda: slide.pyramid.pending == 0)
    settle()
    shown = viewer.screenshot(canvas_only=True)[..., :3]
    middle = shown[shown.shape[0] // 2 - 100 : shown.shape[0] // 2 + 100, shown.shape[1] // 2 - 100 :][:, :200]
    there = sample_pixels[950:1050, 850:950].astype(float).mean((0, 1))
    np.testing.assert_allclose(middle.mean((0, 1)), there, atol=4)


def test_no_pixel_of_a_slide_is_decoded_by_the_window(viewer, settle, monkeypatch, huge_slide):
    threads = set()
    read_scaled = Slide.read_scaled

    def noting(self, *place):
        threads.add(threading.current_thread())
        return read_scaled(self, *place)

    monkeypatch.setattr(Slide, "read_scaled", noting)
    slide = session_of(viewer).slides.open(huge_slide)
    camera_of(viewer).zoom = 1
    settle(lambda: slide.pyramid.pending == 0)
    assert threads
    assert threading.main_thread() not in threads


def test_a_slide_without_a_pyramid_appears_piece_by_piece(application, settle, tmp_path, sample_pixels):
    flat = tmp_path / "flat.tif"
    pixels = np.tile(sample_pixels, (2, 3, 1))[:5120, :6144]
    tifffile.imwrite(flat, pixels, tile=(512, 512), photometric="rgb", compression="zlib")
    pyramid = SlidePyramid(open_slide(flat))
    coarsest = np.asarray(pyramid.levels[-1])  # as napari does: once
    drawn = []
    pyramid.arrived.connect(lambda: drawn.append((coarsest == 220).all(-1).mean()))
    settle(lambda: pyramid.pending == 0)
    settle(lambda: drawn and drawn[-1] == 0)
    with open_slide(flat) as again:
        scale = pyramid.levels[-1].scale
        whole = again.read_scaled(0, 0, coarsest.shape[1], coarsest.shape[0], scale)
    np.testing.assert_allclose(coarsest.astype(int), whole.astype(int), atol=1)
    pyramid.close()


@pytest.fixture
def damaged_slide(tmp_path: Path, sample_pixels: np.ndarray) -> Path:
    """Write a tiled TIFF of 2560 x 2048 pixels, one level; the tile of rows and columns 1024 to 1535 is no JPEG."""
    path = tmp_path / "damaged.tif"
    tifffile.imwrite(path, sample_pixels[:2560, :2048], tile=(512, 512), photometric="rgb", compression="jpeg")
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, length = page.dataoffsets[2 * 4 + 2], page.databytecounts[2 * 4 + 2]
    data = bytearray(path.read_bytes())
    data[offset : offset + length] = b"\xff" * length
    path.write_bytes(data)
    return path


def test_a_damaged_tile_is_told_once_and_the_rest_of_the_slide_is_shown(
    viewer, settle, damaged_slide, sample_pixels, monkeypatch
):
    told = []
    notification_manager.notification_ready.connect(told.append)
    slide = session_of(viewer).slides.open(damaged_slide)
    level = slide.pyramid.levels[0]
    drawn, decoded = [], []
    slide.layer.events.set_data.connect(drawn.append)
    read_scaled = slide.slide.read_scaled
    monkeypatch.setattr(slide.slide, "read_scaled", lambda *p: decoded.append(p) or read_scaled(*p))
    level[:2560, :2048]
    settle(lambda: slide.pyramid.pending == 0 and told)
    settle()
    intact = np.asarray(level[:2560, :2048])
    intact[1024:2048, 1024:2048] = 0  # about a megapixel is decoded at once
    expected = sample_pixels[:2560, :2048].astype(int).copy()
    expected[1024:2048, 1024:2048] = 0
    assert np.abs(intact.astype(int) - expected).mean() < 6  # JPEG
    count, pictures = len(decoded), len(drawn)
    level[1024:1536, 1024:1536]
    settle()
    settle()
    assert (len(decoded), len(drawn)) == (count, pictures)  # neither decoded nor drawn again
    assert len(told) == 1
    assert "damaged.tif is damaged" in told[0].message
    notification_manager.notification_ready.disconnect(told.append)


def test_indices_of_all_kinds(application, sample_slide, sample_pixels):
    pyramid = SlidePyramid(open_slide(sample_slide))
    coarsest = pyramid.levels[-1]
    whole = np.asarray(coarsest)
    assert whole.shape == coarsest.shape
    np.testing.assert_array_equal(coarsest[5], whole[5])
    np.testing.assert_array_equal(coarsest[-1, ::2, 1], whole[-1, ::2, 1])
    np.testing.assert_array_equal(coarsest[np.array([3, 1, 2])], whole[[3, 1, 2]])
    assert coarsest[4:4].shape == (0, *coarsest.shape[1:])
    pyramid.close()


def test_a_slide_opens_once_and_closes_with_its_layer(viewer, settle):
    slides = session_of(viewer).slides
    first = slides.open(samples.slide())
    assert slides.open(samples.slide()) is first
    assert len(viewer.layers) == 1
    viewer.layers.remove(first.layer)
    assert len(slides) == 0
    settle(lambda: not [t for t in threading.enumerate() if t.name.startswith("napari-pbip-view")])


def test_one_slide_is_shown_at_a_time(viewer, widget, slide_without_mpp, settle):
    open_slides(viewer, widget, settle, samples.slide(), slide_without_mpp)
    first, second = viewer.layers
    assert not first.visible
    assert second.visible
    QTest.mouseClick(
        widget.list.viewport(), Qt.MouseButton.LeftButton, pos=widget.list.visualItemRect(widget.list.item(0)).center()
    )
    assert first.visible
    assert not second.visible
    assert viewer.layers.selection.active is first


def test_what_the_user_has_hidden_stays_hidden_from_slide_to_slide(viewer, settle, slide_without_mpp):
    session = session_of(viewer)
    first = session.slides.open(samples.slide())
    session.tissue.find(first)
    settle(lambda: session.tissue.mask(first) is not None and not session.jobs)
    mask = session.tissue.mask(first).layer
    second = session.slides.open(slide_without_mpp)
    for hidden in (False, True):
        assert not mask.visible
        session.slides.show(first)
        assert mask.visible is not hidden
        mask.visible = False
        session.slides.show(first)
        assert not mask.visible
        session.slides.show(second)
    first.layer.visible = False
    session.slides.show(first)
    assert first.layer.visible


def test_missing_mpp_is_asked_for_and_remembered(viewer, widget, slide_without_mpp, settle):
    open_slides(viewer, widget, settle, slide_without_mpp)
    layer = viewer.layers[0]
    assert [str(unit) for unit in layer.units] == ["slide_pixel"] * 2
    settle()
    assert widget.mpp.isVisible()
    assert not widget.mpp.button.isEnabled()  # nothing is guessed
    assert not widget.tissue.isEnabled()
    widget.mpp.value.selectAll()
    QTest.keyClicks(widget.mpp.value.lineEdit(), "0.4")
    QTest.mouseClick(widget.mpp.button, Qt.MouseButton.LeftButton)
    assert json.loads(Path(f"{slide_without_mpp}.mpp.json").read_text()) == {"mpp": 0.4}
    assert tuple(layer.scale) == (0.4, 0.4)
    assert [str(unit) for unit in layer.units] == ["micrometer"] * 2
    assert not widget.mpp.value.isVisible()
    assert widget.mpp.known.text() == "0.4 µm per pixel, given by you"
    assert widget.tissue.isEnabled()
    with open_slide(slide_without_mpp) as again:
        assert again.mpp == 0.4


@pytest.mark.parametrize(("key", "bar"), [("slide", True), ("frozen section", False), ("tumour", False)])
def test_a_sample_comes_sharp_in_a_bare_viewer_and_is_closed_with_its_layer(bare_viewer, settle, key, bar):
    (layer,) = bare_viewer.open_sample("napari-pbip", key)
    settle()
    settle(lambda: shows_scale_bar(bare_viewer) == bar)  # one that is true, or none
    level = layer.data[0]
    drawn = []
    layer.events.set_data.connect(lambda: drawn.append(level))
    camera_of(bare_viewer).zoom = 1 / layer.scale[0]
    settle()
    corner = [slice(*span) for span in np.clip(layer.corner_pixels, 0, None).T]
    pyramid = level.pyramid
    settle(lambda: drawn and not pyramid.pending)
    settle()
    seen = pixels_shown(layer)
    with open_slide(pyramid.slide.path) as again:
        (y0, x0), (height, width) = (corner[0].start, corner[1].start), seen.shape[:2]
        np.testing.assert_array_equal(seen, again.read_scaled(x0, y0, width, height, 1))
    bare_viewer.layers.remove(layer)
    settle(lambda: not [t for t in threading.enumerate() if t.name.startswith("napari-pbip-view")])


def test_microns_per_pixel_of_a_sample_are_the_users_own(viewer, widget, settle, tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_path", lambda *_, **__: tmp_path / "data")
    before = set(samples.FOLDER.rglob("*"))
    open_slides(viewer, widget, settle, samples.frozen_section())
    widget.mpp.given.emit(0.25)
    assert set(samples.FOLDER.rglob("*")) - before == set()
    with open_slide(samples.frozen_section()) as again:
        assert again.mpp == 0.25


def test_a_header_with_an_unlikely_size_is_told_and_can_be_corrected(viewer, widget, settle, tmp_path):
    path = tmp_path / "odd.tif"
    pixels = np.full((600, 800, 3), 240, np.uint8)
    scale = {"resolution": (4000, 4000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", metadata=None, **scale)
    open_slides(viewer, widget, settle, path)
    assert widget.slide_notice.isVisible()
    assert "2.5 microns per pixel, which makes it 2 x 1.5 mm large" in widget.slide_notice.text()
    widget.mpp.given.emit(0.5)
    settle()
    assert widget.slide_notice.isHidden()
    assert "0.40 x 0.30 mm" in widget.facts.text()


def test_slides_with_and_without_mpp_in_one_window(viewer, widget, slide_without_mpp, settle):
    told = []
    notification_manager.notification_ready.connect(told.append)
    open_slides(viewer, widget, settle, samples.slide(), slide_without_mpp)
    first, second = session_of(viewer).slides
    assert not shows_scale_bar(viewer)  # nobody knows how long it would be
    assert not told
    session_of(viewer).slides.show(first)
    settle(lambda: shows_scale_bar(viewer))
    assert {str(unit) for unit in first.layer.units} == {"micrometer"}
    second.layer.visible = True
    settle(lambda: not shows_scale_bar(viewer))
    assert not magnification(viewer)
    assert not told
    notification_manager.notification_ready.disconnect(told.append)


def test_the_magnification_follows_the_zoom_while_microns_are_known(viewer, widget, slide_without_mpp, settle):
    own = overlays(viewer)["text"]  # a text of the user stays as it is
    own.visible, own.text, own.position = True, "case 7", "bottom_right"
    open_slides(viewer, widget, settle, slide_without_mpp)
    assert not magnification(viewer)
    widget.mpp.given.emit(0.5)
    settle(lambda: magnification(viewer))
    camera, canvas = camera_of(viewer), canvas_of(viewer)
    for zoom, said in ((4, "40x"), (1 / 0.5, "20x"), (0.1, "1x"), (0.0625, "0.62x"), (1.04, "10x")):
        camera.zoom = zoom
        assert magnification(viewer) == said
    before = camera.zoom
    wheel = QWheelEvent(
        QPointF(canvas.rect().center()),
        canvas.mapToGlobal(QPointF(canvas.rect().center())),
        QPoint(),
        QPoint(0, 480),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(canvas, wheel)
    settle(lambda: camera.zoom > before)
    settle()
    assert magnification(viewer) == f"{10 * camera.zoom:.0f}x"
    with_it = viewer.screenshot(flash=False)
    overlays(viewer)[OVERLAY].opacity = 0
    assert (with_it != viewer.screenshot(flash=False)).any()  # it is drawn
    viewer.layers.clear()
    settle()
    assert not magnification(viewer)
    assert (own.visible, own.text, own.position) == (True, "case 7", "bottom_right")


def test_when_the_slide_in_view_is_removed_another_one_is_shown(viewer, widget, slide_without_mpp, settle):
    open_slides(viewer, widget, settle, samples.slide(), slide_without_mpp)
    first, second = viewer.layers
    viewer.layers.remove(second)
    settle()
    assert first.visible
    assert viewer.layers.selection.active is first
    assert widget.facts.text().startswith("2,220")
    again = session_of(viewer).slides.open(slide_without_mpp)
    viewer.layers.remove(first)  # one that is hidden: the view stays
    settle()
    assert again.layer.visible
    viewer.layers.clear()
    settle()
    assert not len(viewer.layers)


def test_a_duplicated_slide_outlives_the_first_layer(viewer, settle, sample_pixels):
    slides = session_of(viewer).slides
    slides.open(samples.slide())
    viewer.layers.selection.active = viewer.layers[0]
    duplicate(viewer.layers)
    assert len(slides) == 2
    slides.give_mpp(slides[1], 0.25)  # both show the same slide
    assert [tuple(one.layer.scale) for one in slides] == [(0.25, 0.25)] * 2
    viewer.layers.remove(viewer.layers[0])
    level = viewer.layers[0].data[0]
    level[1000:1300, 700:1100]
    settle(lambda: not slides[0].pyramid.pending)
    np.testing.assert_array_equal(level[1000:1300, 700:1100], sample_pixels[1000:1300, 700:1100])


@pytest.mark.parametrize("key", ["frozen section", "tumour"])
def test_sample_slides_that_do_not_say_their_mpp_ask_for_it(viewer, widget, settle, key):
    viewer.open_sample("napari-pbip", key)
    settle()
    (slide,) = session_of(viewer).slides
    assert (slide.slide.mpp_xy, widget.mpp.value.isVisible()) == (None, True)
    assert not widget.tissue.button.isEnabled()


def test_what_is_no_slide_is_told_and_the_others_open(viewer, widget, settle, tmp_path):
    (tmp_path / "notes.txt").write_text("no slide")
    cut_off = tmp_path / "cut off.svs"
    cut_off.write_bytes(samples.slide().read_bytes()[:300_000])
    open_slides(viewer, widget, settle, tmp_path / "notes.txt", cut_off, tmp_path / "nowhere.svs", samples.slide())
    assert len(viewer.layers) == 1
    assert not widget.notice.isHidden()
    for name in ("notes.txt", "cut off.svs", "nowhere.svs"):
        assert name in widget.notice.text()


def test_a_folder_opens_the_slides_in_it(viewer, widget, settle, tmp_path, dicom_folder):
    shutil.copy(samples.slide(), tmp_path / "a.svs")
    (tmp_path / "readme.txt").write_text("not a slide")
    drop(widget, tmp_path, dicom_folder)
    settle(lambda: not session_of(viewer).jobs)
    assert [layer.name for layer in viewer.layers] == ["a", "dicom_CMU-1-Small-Region"]


def test_what_is_dropped_while_a_folder_is_looked_through_opens_too(viewer, widget, settle, tmp_path, dicom_folder):
    shutil.copy(samples.slide(), tmp_path / "a.svs")
    drop(widget, tmp_path)
    drop(widget, dicom_folder)
    settle(lambda: not session_of(viewer).jobs)
    assert {layer.name for layer in viewer.layers} == {"a", "dicom_CMU-1-Small-Region"}
    drop(widget, tmp_path)
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    settle(lambda: not session_of(viewer).jobs)  # and nobody is told


def test_tissue_is_found_thresholded_and_painted(viewer, widget, settle):
    open_slides(viewer, widget, settle, samples.slide())
    slide = session_of(viewer).slides[0]
    file = session_of(viewer).tissue_file(slide.slide)
    QTest.mouseClick(widget.tissue.button, Qt.MouseButton.LeftButton)
    settle(lambda: mask_layer(viewer) is not None)
    layer = mask_layer(viewer)
    assert isinstance(layer, Labels)
    found = TissueMask.read(file, slide.slide)
    np.testing.assert_array_equal(np.asarray(layer.data) > 0, found.array)
    settle(lambda: f"{found.area_mm2:.2f} mm²" in widget.tissue.text.text())

    widget.tissue.slider.slider.setValue(300)  # darker tissue only
    settle(lambda: TissueMask.read(file, slide.slide).area_mm2 < 0.8 * found.area_mm2)
    settle(lambda: not session_of(viewer).jobs)
    settle()
    assert session_of(viewer).settings.segment.tissue.threshold == pytest.approx(0.3)
    assert mask_layer(viewer) is layer

    before = np.asarray(layer.data).copy()
    assert before[10, 10] == 0
    viewer.layers.selection.active = layer
    layer.mode = "paint"
    layer.selected_label = 1
    canvas = qt_viewer(viewer).canvas
    y, x = layer.data_to_world((10, 10))
    visual = qt_viewer(viewer).canvas.view.scene.transform
    place = visual.map([x, y, 0, 1])
    point = QPoint(round(place[0] / place[3]), round(place[1] / place[3]))
    settle()
    QTest.mousePress(canvas.native, Qt.MouseButton.LeftButton, pos=point)
    QTest.mouseRelease(canvas.native, Qt.MouseButton.LeftButton, pos=point)
    settle(lambda: "corrected by hand" in widget.tissue.text.text())
    painted = TissueMask.read(file, slide.slide).array
    assert painted[10, 10]
    np.testing.assert_array_equal(painted, np.asarray(layer.data) > 0)


def test_a_reopened_dock_shows_what_was_there(viewer, widget, settle):
    open_slides(viewer, widget, settle, samples.slide())
    viewer.window.remove_dock_widget(widget)
    again = SlidesWidget(viewer)
    viewer.window.add_dock_widget(again, name="Slides")
    assert again.list.count() == 1
    assert "2,220" in again.facts.text()


@pytest.fixture
def others(tmp_path, sample_pixels) -> dict[str, Path]:
    """Return files that are not slides: pictures, a stack, notes, a folder of pictures."""
    folder = tmp_path / "others"
    (folder / "pictures").mkdir(parents=True)
    files = {name: folder / name for name in ("cells.tif", "plain.tif", "picture.png", "photo.jpg", "notes.txt")}
    tifffile.imwrite(files["cells.tif"], np.zeros((5, 512, 512), np.uint16), tile=(256, 256))
    tifffile.imwrite(files["plain.tif"], sample_pixels[:512, :512])
    for file in (files["picture.png"], files["photo.jpg"], folder / "pictures" / "one.png"):
        Image.fromarray(sample_pixels[:64, :64]).save(file)
    files["notes.txt"].write_text("no picture")
    return {**files, "pictures": folder / "pictures"}


def test_pictures_open_as_without_the_plugin(viewer, settle, others):
    for name in ("picture.png", "photo.jpg"):
        assert drop_on_viewer(viewer, settle, others[name]) == ""  # nothing is asked
        layer = viewer.layers.pop()
        assert layer.data.shape == (64, 64, 3)
        assert not layer.multiscale
        assert not viewer.layers


def test_our_reader_opens_what_is_no_slide_as_napari_does(viewer, settle, others):
    for name, shape in {"cells.tif": (5, 512, 512), "plain.tif": (512, 512, 3), "pictures": (64, 64, 3)}.items():
        # it is the first that napari offers, so it is what OK takes
        assert drop_on_viewer(viewer, settle, others[name]).startswith("PBIP"), name
        layer = viewer.layers.pop()
        assert tuple(layer.data.shape)[-len(shape) :] == shape
        assert not layer.multiscale
        assert not viewer.layers


def test_files_of_other_kinds_are_not_ours(viewer, others):
    with pytest.raises(NoAvailableReaderError):
        viewer.open(others["notes.txt"], plugin=None)


def test_dropped_slides_are_slides(viewer, settle, tmp_path, dicom_folder, sample_pixels):
    tiled = tmp_path / "tiled.tif"
    tifffile.imwrite(tiled, sample_pixels[:1024, :1024], tile=(256, 256), photometric="rgb")
    for path in (samples.slide(), tiled, dicom_folder):
        drop_on_viewer(viewer, settle, path)
        layer = viewer.layers.pop()
        assert layer.multiscale
        assert layer.rgb
        assert not viewer.layers


def test_a_broken_slide_is_told_in_one_sentence(viewer, settle, tmp_path):
    cut_off = tmp_path / "cut off.svs"
    cut_off.write_bytes(samples.slide().read_bytes()[:300_000])
    told = []
    notification_manager.notification_ready.connect(told.append)
    try:
        drop_on_viewer(viewer, settle, cut_off)
    finally:
        notification_manager.notification_ready.disconnect(told.append)
    assert [(str(one.severity), "incomplete" in one.message) for one in told] == [("error", True)]
    assert not viewer.layers


def test_nothing_is_opened_to_tell_whose_it_is(tmp_path):
    missing = str(tmp_path / "missing.svs")
    assert get_reader(missing) is get_reader(str(samples.slide()))
    assert get_reader([str(samples.slide()), missing]) is get_reader(missing)


def test_a_slide_that_napari_opened_comes_sharp_without_any_widget(application, settle, sample_pixels):
    viewer = napari.Viewer()
    try:
        viewer.open(samples.slide(), plugin="napari-pbip")
        level = viewer.layers[0].data[0]
        drawn = []
        viewer.layers[0].events.set_data.connect(lambda: drawn.append(level))
        first = level[:2967, :2220]  # more than is decoded while the window waits, unless it was asked for before
        if not np.array_equal(first, sample_pixels):
            settle(lambda: drawn)
        settle(lambda: np.array_equal(level[:2967, :2220], sample_pixels))
        assert len(session_of(viewer).slides) == 1
    finally:
        session_of(viewer).close()
        viewer.close()


def test_every_dock_of_the_menu_opens_on_one_session(viewer, settle):
    manifest = PluginManager.instance().get_manifest("napari-pbip")
    manifest.validate_imports()
    docks = [
        viewer.window.add_plugin_dock_widget("napari-pbip", w.display_name) for w in manifest.contributions.widgets
    ]
    settle()
    assert len(docks) == 10
    settle(lambda: not session_of(viewer).jobs)
    viewer.open_sample("napari-pbip", "slide")
    settle()
    slides = next(widget for _, widget in docks if isinstance(widget, SlidesWidget))
    assert slides.list.count() == 1
    assert len(session_of(viewer).slides) == 1


# tissue that was painted ----------------------------------------------------------------------------------------


class Painter:
    """A slide with found tissue, and methods that use napari's brush."""

    def __init__(self, viewer, settle) -> None:
        self.viewer, self.settle, self.session = viewer, settle, session_of(viewer)
        self.slide = self.session.slides.open(samples.slide())
        self.file = self.session.tissue_file(self.slide.slide)
        self.open_dock()
        click(self.widget.tissue.button)
        settle(lambda: self.mask is not None and not self.session.jobs)
        viewer.layers.selection.active = self.layer

    @property
    def mask(self):
        return self.session.tissue.mask(self.slide)

    @property
    def layer(self) -> Labels:
        return self.mask.layer

    @property
    def saved(self) -> np.ndarray:
        return np.asarray(Image.open(self.file)) > 0

    def open_dock(self) -> None:
        self.widget = SlidesWidget(self.viewer)
        self.dock = self.viewer.window.add_dock_widget(self.widget, name="Slides")
        self.settle()

    def close_dock(self) -> None:
        self.dock.destroyOnClose()  # the × of a dock
        self.settle()

    def stroke(self, row: int, column: int, mode: str = "paint") -> None:
        """Click once with the brush or bucket on the canvas."""
        layer, canvas = self.layer, qt_viewer(self.viewer).canvas
        layer.mode, layer.selected_label = mode, 1
        self.settle()
        y, x = layer.data_to_world((row, column))
        place = canvas.view.scene.transform.map([x, y, 0, 1])
        point = QPoint(round(place[0] / place[3]), round(place[1] / place[3]))
        QTest.mousePress(canvas.native, Qt.MouseButton.LeftButton, pos=point)
        QTest.mouseRelease(canvas.native, Qt.MouseButton.LeftButton, pos=point)

    def key(self, key, modifiers) -> None:
        QTest.keyClick(canvas_of(self.viewer), key, modifiers)

    def wait_until_saved(self) -> None:
        self.settle(lambda: np.array_equal(self.saved, np.asarray(self.layer.data) > 0))


@pytest.fixture
def painter(viewer, settle) -> Painter:
    return Painter(viewer, settle)


def test_painted_tissue_is_saved_whichever_docks_are_open(painter):
    before = painter.saved
    painter.close_dock()
    painter.stroke(10, 10)
    painter.wait_until_saved()
    assert painter.saved.sum() > before.sum()
    painter.open_dock()
    painter.viewer.layers.selection.active = painter.layer
    assert "corrected by hand" in painter.widget.tissue.text.text()
    painter.stroke(10, 100)
    painter.wait_until_saved()


def test_undo_redo_and_bucket_are_saved(painter):
    found = painter.saved
    painter.stroke(10, 10)
    painter.wait_until_saved()
    painted = painter.saved
    assert not np.array_equal(painted, found)
    control, shift = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
    for modifiers, expected in ((control, found), (control | shift, painted)):
        painter.key(Qt.Key.Key_Z, modifiers)
        painter.settle(lambda expected=expected: np.array_equal(painter.saved, expected))
    painter.stroke(5, 130, "fill")
    painter.wait_until_saved()
    assert painter.saved.sum() > painted.sum()
    area = TissueMask(painter.saved, painter.mask.scale, painter.mask.mpp).area_mm2
    assert f"{area:.2f} mm²" in painter.widget.tissue.text.text()


def test_painted_tissue_is_replaced_only_after_a_question(painter):
    panel = painter.widget.tissue
    painter.stroke(10, 10)
    painter.wait_until_saved()
    painted = painter.saved
    click(panel.button)
    painter.settle()
    assert panel.question.isVisible()
    click(panel.keep_button)
    panel.slider.slider.setFocus()
    QTest.keyClick(panel.slider.slider, Qt.Key.Key_Right)
    painter.settle(panel.question.isVisible)
    click(panel.keep_button)
    assert not painter.session.jobs
    np.testing.assert_array_equal(painter.saved, painted)
    click(panel.button)
    click(panel.replace_button)
    painter.settle(lambda: not painter.mask.by_hand)
    assert not panel.question.isVisible()
    assert painter.saved.sum() < painted.sum()


def test_area_and_threshold_are_there_after_a_restart(painter, settle, tmp_path):
    panel = painter.widget.tissue
    assert 0.05 <= panel.slider.value() <= 0.08  # where Otsu's threshold is kept
    painter.stroke(10, 10)
    painter.wait_until_saved()
    shown = panel.text.text(), panel.slider.value()
    assert "corrected by hand" in shown[0]
    again = napari.Viewer()
    session = session_of(again)
    session.folder = painter.session.folder
    try:
        session.slides.open(samples.slide())
        widget = SlidesWidget(again)
        again.window.add_dock_widget(widget)
        settle(lambda: widget.tissue.text.text())
        assert (widget.tissue.text.text(), widget.tissue.slider.value()) == shown
        assert widget.tissue.slider.isEnabled()
    finally:
        session.close()
        again.close()


def test_a_stroke_is_saved_though_the_slide_project_or_layer_changes_at_once(painter, tmp_path):
    def stroke(column: int) -> np.ndarray:
        painter.viewer.layers.selection.active = painter.layer
        painter.stroke(10, column)
        return np.asarray(painter.layer.data) > 0

    painted, file = stroke(10), painter.file
    painter.viewer.layers.selection.active = painter.slide.layer
    painter.wait_until_saved()
    np.testing.assert_array_equal(painter.saved, painted)
    painted = stroke(60)
    painter.viewer.layers.remove(painter.layer)
    np.testing.assert_array_equal(painter.saved, painted)
    painter.session.tissue.show(painter.slide)
    painter.settle(lambda: painter.mask is not None)
    painted = stroke(110)
    painter.session.folder = tmp_path / "another"
    assert painter.mask is None
    np.testing.assert_array_equal(np.asarray(Image.open(file)) > 0, painted)


def test_masks_follow_corrected_microns_per_pixel(painter):
    area = painter.mask.area_mm2
    painter.slide.slide.give_mpp(0.25)
    painter.slide.place()
    painter.session.slides.changed.emit()
    assert painter.mask.area_mm2 == pytest.approx(area * (0.25 / 0.499) ** 2, rel=1e-3)
    np.testing.assert_allclose(painter.layer.extent.world[1], painter.slide.layer.extent.world[1], atol=8)


def test_a_project_folder_that_cannot_be_written_is_refused_when_it_is_chosen(viewer, widget, tmp_path):
    session = session_of(viewer)
    before = session.folder
    (tmp_path / "file").write_text("no folder")
    widget.project.choose_folder(tmp_path / "file" / "project")
    assert f"Nothing can be saved in {tmp_path / 'file' / 'project'} (" in widget.project.notice.text()
    assert widget.project.notice.text().endswith("choose another folder.")
    assert session.folder == before
    assert widget.project.folder.text() == str(before)
    widget.project.choose_folder(tmp_path / "project")
    assert widget.project.notice.isHidden()
    assert session.folder == tmp_path / "project"


@pytest.mark.parametrize("what", ["slide", "folder"])
def test_what_was_said_of_a_file_goes_with_the_next_choice(viewer, widget, settle, tmp_path, dicom_folder, what):
    (tmp_path / "lung").mkdir()
    (tmp_path / "lung" / "notes.txt").write_text("no slide")
    drop(widget, tmp_path / "lung")
    settle(lambda: not session_of(viewer).jobs)
    assert "lung" in widget.notice.text()
    drop(widget, samples.slide() if what == "slide" else dicom_folder)
    settle(lambda: not session_of(viewer).jobs)
    assert len(viewer.layers) == 1
    assert widget.notice.isHidden()
