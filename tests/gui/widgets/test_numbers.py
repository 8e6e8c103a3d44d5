"""Numbers with point and comma mean the same in every language of the computer; typed with real keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import tifffile
from PIL import Image
from qtpy.QtCore import QEvent, QLocale, Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractSpinBox, QApplication

from napari_pbip import samples
from napari_pbip.config import DataSettings
from napari_pbip.gui.docks.label_tiles import LabelTilesWidget
from napari_pbip.gui.docks.slides import SlidesWidget
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.widgets.number_box import NumberBox, read_number
from napari_pbip.gui.widgets.number_slider import NumberSlider
from napari_pbip.gui.widgets.settings_form import SettingsForm
from tests.gui.qt_helpers import click, open_slides

LOCALES = ["C", "de_DE", "fr_FR", "ar_EG"]
"""A point; a comma; digits of another script."""


@pytest.fixture(params=LOCALES)
def locale(request) -> Iterator[str]:
    before = QLocale()
    QLocale.setDefault(QLocale(request.param))
    yield request.param
    QLocale.setDefault(before)


@pytest.fixture
def in_window(application, settle):
    """Show a widget in a separate window."""
    shown = []

    def show(widget):
        shown.append(widget)
        widget.show()
        widget.activateWindow()
        settle(widget.isActiveWindow)
        return widget

    yield show
    for widget in shown:
        widget.close()
        widget.deleteLater()
    application.processEvents()


def enter(box, text: str, *, paste: bool = False) -> None:
    """Replace the text of a box by typing or pasting, and press Return."""
    box.setFocus()
    box.selectAll()
    if paste:
        QApplication.clipboard().setText(text)
        QTest.keyClick(box, Qt.Key.Key_V, Qt.KeyboardModifier.ControlModifier)
    for character in "" if paste else text:
        if character.isascii():
            QTest.keyClicks(box, character)
        else:  # QTest knows ASCII only
            press = QKeyEvent(QEvent.Type.KeyPress, 0, Qt.KeyboardModifier.NoModifier, character)
            QApplication.sendEvent(box, press)
    if not text:
        QTest.keyClick(box, Qt.Key.Key_Delete)
    QTest.keyClick(box, Qt.Key.Key_Return)


@pytest.mark.parametrize(
    ("text", "number"),
    {
        "0.25": 0.25, "0,25": 0.25, ",5": 0.5, ".5": 0.5, "1.": 1, "1.000": 1, "1,000": 1, " 0.5 ": 0.5, "2.5e-1": 0.25,
        "\u0660\u066b\u0662\u0665": 0.25, "\u06f0.\u06f5": 0.5, "-1": -1, "\u00a00.5": 0.5,
        "1.000,5": None, "1,000.5": None, "1 000": None, "0,2,5": None, "1'000": None, "1_0": None, "nan": None,
        "inf": None, "1e999": None, "0x1": None, "0.25 mm": None, "": None, ",": None, "½": None,
    }.items(),
)  # fmt: skip
def test_a_text_is_the_right_number_or_none(text, number):
    assert read_number(text) == number


@pytest.mark.parametrize("paste", [False, True])
def test_what_is_typed_is_the_right_number_or_refused(in_window, locale, paste):
    box = in_window(NumberBox(0.05, 20, decimals=4))
    told = []
    box.problem.connect(told.append)
    for text, number in [("0.25", 0.25), ("0,5", 0.5), ("\u0660\u066b\u0662\u0665", 0.25), ("1e1", 10), ("1.0", 1)]:
        enter(box, text, paste=paste)
        assert (box.value(), told.pop()) == (number, ""), text
    for text in ("250", "0..5", "1.000,5", "25 x", "1 2", "0.12345", "-1", "5e", ""):
        enter(box, text, paste=paste)
        assert box.value() == 1, text
        assert box.text() == "1"
        assert told.pop().endswith("1 is kept."), text


def test_whole_numbers_have_no_mark_for_thousands(in_window, locale):
    box = in_window(NumberBox(0, 4096))
    enter(box, "1024")
    assert (box.value(), box.text()) == (1024, "1024")
    for text in ("1.000", "1,000", "2.5", "1 000", "1e3"):
        enter(box, text)
        assert box.value() == 1024, text
    QTest.keyClick(box, Qt.Key.Key_Up)
    assert box.text() == "1025"


@pytest.mark.parametrize("text", ["0.3", "0,3"])
def test_sliders_take_both(in_window, locale, text):
    slider = in_window(NumberSlider("threshold", "a threshold"))
    moved = []
    slider.value_changed.connect(moved.append)
    enter(slider.number, text)
    assert moved == [0.3]
    assert slider.number.text() == "0.3"
    enter(slider.number, "3")
    assert moved == [0.3]
    assert slider.notice.text() == "✖  3 is not between 0 and 1; 0.3 is kept."
    enter(slider.number, "0.3")
    assert slider.notice.isHidden()


@pytest.mark.parametrize("text", ["0.3", "0,3"])
def test_settings_forms_take_both(in_window, locale, text):
    form = in_window(SettingsForm(DataSettings()))
    enter(form.editor("white_fraction"), text)
    assert form.value().white_fraction == 0.3
    enter(form.editor("mpp"), text)
    assert form.value().mpp == 0.3


def test_whole_numbers_of_settings_forms_have_no_mark_for_thousands(in_window):
    from napari_pbip.config import TrainSettings

    form = in_window(SettingsForm(TrainSettings()))
    for text in ("1.000", "1,000"):
        enter(form.editor("steps"), text)
        assert form.value().steps is None
        assert "whole number" in form.problem("steps").text() or "valid integer" in form.problem("steps").text()
    enter(form.editor("steps"), "1000")
    assert form.value().steps == 1000


@pytest.fixture
def picture(tmp_path, sample_pixels) -> Path:
    """Write a slide that does not say its microns per pixel."""
    path = tmp_path / "picture.png"
    Image.fromarray(sample_pixels[500:1500, 500:1300]).save(path)
    return path


@pytest.mark.parametrize("locale", ["de_DE"], indirect=True)  # all boxes are of the class that is tested in four
def test_microns_per_pixel_of_every_dock(viewer, settle, locale, picture):
    slides, teach = SlidesWidget(viewer), LabelTilesWidget(viewer)
    for dock in (slides, teach):
        viewer.window.add_dock_widget(dock)
    open_slides(viewer, slides, settle, picture)
    for text, mpp in (("0.25", 0.25), ("0,5", 0.5)):
        if slides.mpp.change_button.isVisible():
            click(slides.mpp.change_button)
        enter(slides.mpp.value, text)
        click(slides.mpp.button)
        settle()
        assert session_of(viewer).slides[0].slide.mpp == mpp
        assert json.loads(Path(f"{picture}.mpp.json").read_text()) == {"mpp": mpp}
        assert slides.mpp.known.text() == f"{mpp} µm per pixel, given by you"
        teach.tabs.setCurrentWidget(teach.slide_labels)
        enter(teach.slide_labels.tile_size.mpp, text)
        assert session_of(viewer).labelling.labels.size.mpp == mpp
        assert teach.slide_labels.tile_size.mpp.text() == str(mpp)
        teach.tabs.setCurrentWidget(teach.folder)
        enter(teach.folder.mpp, text)
        assert teach.folder.mpp.value() == mpp


def test_all_number_boxes_of_all_docks_are_of_one_class(viewer, settle):
    from npe2 import PluginManager

    docks = PluginManager.instance().get_manifest("napari-pbip").contributions.widgets
    widgets = [viewer.window.add_plugin_dock_widget("napari-pbip", dock.display_name)[1] for dock in docks]
    settle(lambda: not session_of(viewer).jobs)
    boxes = [box for widget in widgets for box in widget.findChildren(QAbstractSpinBox)]
    assert len(boxes) >= 5
    assert {type(box) for box in boxes if not isinstance(box, NumberBox)} == set()


def test_unusual_microns_are_asked_about_and_can_be_corrected(viewer, settle, picture):
    slides = SlidesWidget(viewer)
    viewer.window.add_dock_widget(slides)
    open_slides(viewer, slides, settle, picture)
    panel, slide = slides.mpp, session_of(viewer).slides[0].slide
    enter(panel.value, "25")
    click(panel.button)
    assert slide.mpp is None
    assert "20 x 25 mm" in panel.notice.text()
    enter(panel.value, "24")
    click(panel.button)
    assert slide.mpp is None  # another number is another question
    click(panel.button)
    assert slide.mpp == 24
    settle()
    click(panel.change_button)
    enter(panel.value, "0,25")
    click(panel.button)
    assert slide.mpp == 0.25
    assert tuple(viewer.layers[0].scale) == (0.25, 0.25)
    settle()
    click(panel.change_button)
    click(panel.cancel_button)
    assert panel.known.isVisible()
    assert not panel.value.isVisible()


def test_what_is_no_number_is_never_remembered(viewer, settle, picture):
    slides = SlidesWidget(viewer)
    viewer.window.add_dock_widget(slides)
    open_slides(viewer, slides, settle, picture)
    panel = slides.mpp
    panel.value.setFocus()
    QTest.keyClicks(panel.value, "25x")
    click(panel.button)
    assert session_of(viewer).slides[0].slide.mpp is None
    assert panel.notice.text() == "✖  “25x” is not a number; no number is kept."


def test_microns_of_a_slide_that_says_them_can_be_changed(viewer, settle, tmp_path):
    path = tmp_path / "slide.svs"
    path.write_bytes(samples.slide().read_bytes())
    slides = SlidesWidget(viewer)
    viewer.window.add_dock_widget(slides)
    open_slides(viewer, slides, settle, path)
    assert slides.mpp.known.text() == "0.499 µm per pixel, as the slide says"
    click(slides.mpp.change_button)
    enter(slides.mpp.value, "0.25")
    click(slides.mpp.button)
    assert slides.mpp.known.text() == "0.25 µm per pixel, given by you"
    assert tuple(viewer.layers[0].scale) == (0.25, 0.25)


def test_pixels_that_are_not_square_can_be_corrected(viewer, settle, tmp_path, sample_pixels):
    path = tmp_path / "flat.tif"
    tifffile.imwrite(
        path, sample_pixels[:1024, :1024], tile=(256, 256), photometric="rgb", metadata=None,
        resolution=(20_000, 40_000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    slides = SlidesWidget(viewer)
    viewer.window.add_dock_widget(slides)
    open_slides(viewer, slides, settle, path)
    assert "not square (0.5 x 0.25 µm)" in slides.mpp.note.text()
    assert not slides.tissue.button.isEnabled()
    assert "Looking" not in slides.tissue.text.text()
    enter(slides.mpp.value, "0.5")
    click(slides.mpp.button)
    settle()
    assert session_of(viewer).slides[0].slide.require_mpp() == 0.5
    assert slides.tissue.button.isEnabled()
