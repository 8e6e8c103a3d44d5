"""Labelling tiles with mouse and keys on the real canvas, and folders of labelled tiles."""

from __future__ import annotations

import gc
import itertools
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import qtpy
from PIL import Image
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QKeyEvent, QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QColorDialog

from napari_pbip import samples
from napari_pbip.bank import Origin, load_tiles
from napari_pbip.bank.labelled_slides import LABELS, LabelledSlides, Labels
from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.docks.label_tiles import LabelTilesWidget, SlideLabelling
from napari_pbip.gui.panels.label_tool import digit
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.widgets.class_table import COLOUR, NAME, TILES
from napari_pbip.slides import Position
from tests.gui.napari_privates import as_plugins_get_it, canvas_of
from tests.gui.state.project_process import make_store

LEFT, NO, SHIFT = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ShiftModifier
CONTROL = Qt.KeyboardModifier.ControlModifier


class Bench:
    """A viewer with a slide and the widget, and methods that use mouse and keys."""

    def __init__(self, viewer, settle: Callable[..., None], slide: Path | None = None) -> None:
        self.viewer, self.settle = viewer, settle
        self.session = session_of(viewer)
        if slide is not None:
            self.session.slides.open(slide)
        self.widget = LabelTilesWidget(as_plugins_get_it(viewer))  # as napari makes it from its menu
        self.dock = viewer.window.add_dock_widget(self.widget, name="Label tiles")
        self.canvas = canvas_of(viewer)
        settle()

    @property
    def part(self) -> SlideLabelling:
        return self.widget.slide_labels

    @property
    def labels(self):
        return self.session.labelling.labels

    @property
    def tiles(self) -> dict[Position, Labels]:
        return dict(self.labels.tiles(self.session.labelling.slide.slide.identity))

    def switch_on(self) -> None:
        QTest.mouseClick(self.part.tool_button, LEFT)
        self.settle()
        assert self.part.tool.on

    def at(self, column: float, row: float) -> QPoint:
        """Return the position of the middle of a tile on the canvas."""
        camera = camera_of(self.viewer)
        microns = np.array([row + 0.5, column + 0.5]) * self.labels.size.microns
        y, x = (microns - np.array(camera.center)[-2:]) * camera.zoom
        return QPoint(round(self.canvas.width() / 2 + x), round(self.canvas.height() / 2 + y))

    def click(self, column: float, row: float, modifiers=NO) -> None:
        QTest.mouseMove(self.canvas, self.at(column, row))
        QTest.mouseClick(self.canvas, LEFT, modifiers, self.at(column, row))

    def drag(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        modifiers=NO,
        meanwhile: Callable[[], None] = lambda: None,
        quick: bool = False,
    ) -> None:
        a, b = self.at(*start), self.at(*end)
        QTest.mousePress(self.canvas, LEFT, modifiers, a)
        for share in (0.1, 0.5, 1.0):
            self.move(QPointF(a + (b - a) * share), modifiers)
            if not quick:
                self.settle()
                meanwhile()
        QTest.mouseRelease(self.canvas, LEFT, modifiers, b)
        self.settle()

    def move(self, place: QPointF, modifiers=NO) -> None:
        """Move the mouse with the button down, which QTest.mouseMove does not do."""
        everywhere = QPointF(self.canvas.mapToGlobal(place.toPoint()))
        move = QMouseEvent(QEvent.Type.MouseMove, place, everywhere, Qt.MouseButton.NoButton, LEFT, modifiers)
        QApplication.sendEvent(self.canvas, move)

    def draw(self, *corners: tuple[float, float]) -> None:
        """Draw around a region, straight from corner to corner."""
        places = [QPointF(self.at(*corner)) for corner in (*corners, corners[0])]
        QTest.mousePress(self.canvas, LEFT, NO, places[0].toPoint())
        for before, after in itertools.pairwise(places):
            for step in range(1, 6):
                QTest.qWait(20)  # napari reports no two moves in quick succession
                self.move(before + (after - before) * step / 5)
        QTest.mouseRelease(self.canvas, LEFT, NO, places[-1].toPoint())
        self.settle()

    def key(self, key, column: float, row: float, modifiers=NO) -> None:
        QTest.mouseMove(self.canvas, self.at(column, row))
        self.settle()
        QTest.keyClick(self.canvas, key, modifiers)

    def saved(self) -> None:
        """Wait until the folder contains the present labels."""
        labelling = self.session.labelling
        self.settle(lambda: not labelling.saving)


@pytest.fixture
def bench(viewer, settle) -> Bench:
    bench = Bench(viewer, settle, samples.slide())
    QTest.mouseMove(bench.canvas, QPoint(1, 1))  # beside the slide; it is where the last test has left it
    bench.switch_on()
    return bench


def names(widget: SlideLabelling) -> list[str]:
    return [widget.table.item(row, NAME).text() for row in range(widget.table.rowCount())]


def counts(widget: SlideLabelling) -> list[str]:
    return [widget.table.item(row, TILES).text() for row in range(widget.table.rowCount())]


def test_clicks_and_keys_label_tiles_that_training_reads(bench, sample_pixels):
    bench.click(2, 3)
    bench.key(Qt.Key.Key_2, 3, 3)
    bench.click(2, 3, SHIFT)  # the key chose class 2; Shift keeps class 1
    bench.key(Qt.Key.Key_1, 5, 6)
    assert bench.tiles == {(2, 3): {0, 1}, (3, 3): {1}, (5, 6): {0}}
    assert counts(bench.part) == ["2", "2"]
    assert bench.part.table.currentRow() == 0
    bench.saved()
    data = bench.session.settings.data
    assert (data.folder, data.mpp) == (bench.session.tiles_folder, 0.5)
    tiles = load_tiles(data.folder, settings=data)
    assert tiles.taxonomy.names == ("tumour", "stroma")
    side = 112 / 0.499
    found = {(t.origin, t.labels) for t in tiles}
    assert found == {
        (Origin("CMU-1-Small-Region", round(c * side), round(r * side)), labels)
        for (c, r), labels in bench.tiles.items()
    }
    tile = next(t for t in tiles if t.labels == {0, 1})
    truth = sample_pixels[tile.origin.y :, tile.origin.x :][:224, :224]
    assert np.abs(tile.read().astype(int) - truth).mean() < 6  # resampled from 0.499 to 0.5
    assert "labelled on slides" in bench.widget.used.text()


def test_the_picture_over_the_slide_has_the_colours_of_the_classes_at_their_places(bench):
    bench.click(2, 3)
    bench.click(4, 3)
    bench.key(Qt.Key.Key_2, 4, 3, SHIFT)
    layer = bench.viewer.layers["Labelled tiles"]
    middle = np.array([3.5, 2.5]) * 112
    assert layer.get_value(middle, world=True) == 1
    corner = np.array([3, 4]) * 112 + 20
    assert layer.get_value(corner, world=True) == 1
    assert layer.get_value(corner + np.array([0, 28]), world=True) == 2  # stripes
    assert layer.get_value(np.array([3.5, 3.5]) * 112, world=True) == 0
    edges = [layer.get_value(np.array([3.5 * 112, x]), world=True) for x in (2 * 112 - 2, 2 * 112 + 2)]
    assert edges == [0, 255]  # an outline
    np.testing.assert_allclose(layer.colormap.map(1)[:3], np.array([0xD5, 0x5E, 0]) / 255, atol=0.01)
    assert {str(unit) for layer in bench.viewer.layers for unit in layer.units} == {"micrometer"}
    assert not layer.editable
    assert bench.session.current_slide is not None
    shot = bench.viewer.screenshot(flash=False)
    scale = shot.shape[1] / bench.canvas.width()
    seen, beside = (bench.at(*place) * scale for place in ((2, 3), (2, 4)))
    red = shot[seen.y(), seen.x()].astype(int), shot[beside.y(), beside.x()].astype(int)
    assert red[0][0] - red[0][2] > red[1][0] - red[1][2] + 40  # half vermilion


def test_labelled_tiles_are_outlined_on_top_of_a_map(bench, tmp_path):
    bench.click(2, 3)
    make_store(bench.session.slides[0].slide, tmp_path / "skin.ome.zarr")
    bench.session.results.open(tmp_path / "skin.ome.zarr")
    bench.settle(lambda: [layer.name for layer in bench.viewer.layers][-2:] == ["Labelled tiles", "Tile grid"])
    assert len(bench.viewer.layers) == 4
    bench.settle(lambda: not bench.session.jobs)
    bench.settle()
    shot = bench.viewer.screenshot(flash=False)[..., :3].astype(int)
    scale = shot.shape[1] / bench.canvas.width()
    outline, inside = (bench.at(*place) * scale for place in ((2 - 0.45, 3), (2, 3)))
    assert shot[outline.y(), outline.x()].sum() < shot[inside.y(), inside.x()].sum() - 100


def test_the_grid_is_drawn_at_every_border_and_left_out_where_it_would_be_a_veil(bench):
    lines = bench.viewer.layers["Tile grid"].data
    finest, sixteen, eight = lines[0], lines[5], lines[6]
    assert finest.shape == (13 * 512, 9 * 512)
    np.testing.assert_array_equal(np.flatnonzero(finest[100, 500:530]) + 500, [511, 512])
    assert sixteen[:].shape == (13 * 16, 9 * 16)
    assert sixteen[15:17, 5].tolist() == [1, 1]
    assert sixteen[17, 14:34].tolist() == [0, 1, 1, *[0] * 14, 1, 1, 0]
    assert not eight[:].any()
    shot = bench.viewer.screenshot(flash=False).astype(int)
    scale = shot.shape[1] / bench.canvas.width()
    row = round(bench.at(0, 0.3).y() * scale)  # glass
    for border in (0.5, 1.5, 2.5):
        x = round(bench.at(border, 0).x() * scale)
        assert shot[row, x - 2 : x + 3, 0].min() < 200
        assert shot[row, x + 10 : x + 20, 0].min() > 200


def test_the_tile_under_the_mouse_is_outlined_in_the_colour_that_a_click_would_give(bench, tmp_path):
    grid = bench.viewer.layers["Tile grid"]
    drawn = []
    grid.events.set_data.connect(lambda: drawn.append(1))

    def at_edge(column: float, row: float) -> int:
        """Return the value just right of the left border of a tile."""
        return int(grid.get_value(np.array([row + 0.5, column + 0.02]) * 112, world=True)[1])

    def point(column: float, row: float) -> None:
        QTest.mouseMove(bench.canvas, bench.at(column, row))
        bench.settle()

    make_store(bench.session.slides[0].slide, tmp_path / "skin.ome.zarr")
    bench.session.results.open(tmp_path / "skin.ome.zarr")  # above its map, too
    bench.settle(lambda: not bench.session.jobs and bench.viewer.layers[-1] is grid)
    point(2, 3)
    first = at_edge(2, 3)
    np.testing.assert_allclose(grid.colormap.map(first)[:3], np.array([0xD5, 0x5E, 0]) / 255, atol=0.01)
    shot = bench.viewer.screenshot(flash=False)[..., :3].astype(int)
    place = bench.at(2 - 0.5, 3) * (shot.shape[1] / bench.canvas.width())
    around = shot[place.y(), place.x() - 2 : place.x() + 6]
    assert np.abs(around - (0xD5, 0x5E, 0)).sum(1).min() < 20  # not blended with the map
    before = len(drawn)
    point(2.2, 3.1)  # within the tile, so that nothing is drawn
    assert len(drawn) == before
    point(3, 3)
    assert (at_edge(2, 3), at_edge(3, 3)) == (0, first)
    bench.key(Qt.Key.Key_2, 3, 3)  # chooses the class, too
    assert at_edge(3, 3) == first + 1
    assert len(bench.viewer.layers) == 4
    point(-1, 3)  # beside the slide
    assert not np.isin(grid.data[4][:], (first, first + 1)).any()
    point(3, 3)
    assert at_edge(3, 3) == first + 1
    QTest.mouseMove(bench.part.help)
    bench.settle()
    assert at_edge(3, 3) == 0
    point(3, 4)
    QTest.mouseClick(bench.part.tool_button, LEFT)
    assert not grid.visible


def test_a_drag_moves_the_view_and_labels_nothing(bench):
    before = camera_of(bench.viewer).center
    bench.drag((2, 3), (4, 5))
    assert bench.tiles == {}
    assert not np.allclose(camera_of(bench.viewer).center, before)


def test_rectangles_label_every_tile_that_they_touch(bench):
    before = camera_of(bench.viewer).center
    bench.drag((2, 3), (4, 4), SHIFT)
    assert bench.tiles == {(c, r): {0} for c in (2, 3, 4) for r in (3, 4)}
    QTest.mouseClick(bench.part.rectangle_button, LEFT)
    bench.part.table.choose(1)
    bench.drag((4.4, 4.4), (4, 3))
    assert bench.tiles[4, 4] == bench.tiles[4, 3] == {1}
    bench.drag((3, 3), (4, 3), SHIFT)
    assert bench.tiles[3, 3] == {0, 1}
    assert np.allclose(camera_of(bench.viewer).center, before)
    assert counts(bench.part) == ["4", "3"]
    bench.drag((-3, 12), (0, 30))  # it ends beside the slide
    assert bench.tiles.keys() >= {(0, 12)}
    assert max(row for _, row in bench.tiles) == 12


def test_a_quick_hand_labels_the_whole_rectangle(bench):
    bench.drag((2, 3), (4, 4), SHIFT, quick=True)
    assert len(bench.tiles) == 6


def test_a_rectangle_shows_what_it_will_label(bench):
    picture = bench.viewer.layers["Labelled tiles"]
    seen: list[int] = []

    def look() -> None:
        seen.append(picture.get_value((4.5 * 112, 3.5 * 112), world=True))

    bench.drag((2, 3), (4, 5), SHIFT, meanwhile=look)
    assert seen == [0, 1, 1]  # the second of three moves reaches it
    QTest.mouseClick(bench.part.undo.undo_button, LEFT)
    look()
    assert seen[-1] == 0


def test_all_tiles_with_their_centre_in_a_drawn_region_get_the_class_in_one_step(bench):
    bench.click(0, 1)
    before = camera_of(bench.viewer).center
    QTest.mouseClick(bench.part.region_button, LEFT)
    bench.settle()
    QTest.mouseMove(bench.canvas, bench.at(4, 4))
    bench.settle()
    assert not (np.asarray(bench.viewer.layers["Tile grid"].data[4]) > 1).any()  # a click would label no single tile
    bench.draw((1.6, 1.6), (5.4, 1.6), (5.4, 4.4), (3.4, 4.4), (3.4, 3.4), (1.6, 3.4))
    drawn = {(c, r) for c in (2, 3, 4, 5) for r in (2, 3)} | {(4, 4), (5, 4)}
    assert bench.tiles == {(0, 1): {0}, **{place: {0} for place in drawn}}
    assert bench.part.region_notice.text() == "10 tiles in the region."
    bench.key(Qt.Key.Key_2, 7, 7)  # wherever the mouse is
    assert bench.tiles == {(0, 1): {0}, **{place: {1} for place in drawn}}
    bench.key(Qt.Key.Key_1, 7, 7, SHIFT)
    assert bench.tiles == {(0, 1): {0}, **{place: {0, 1} for place in drawn}}
    bench.key(Qt.Key.Key_Delete, 7, 7)
    assert bench.tiles == {(0, 1): {0}}
    for expected in ({0, 1}, {1}, {0}):
        QTest.keyClick(bench.canvas, Qt.Key.Key_Z, CONTROL)
        assert bench.tiles == {(0, 1): {0}, **dict.fromkeys(drawn, expected)}
    QTest.mouseClick(bench.part.undo.undo_button, LEFT)
    assert bench.tiles == {(0, 1): {0}}
    bench.draw((1.6, 9.6), (3.4, 9.6), (3.4, 10.4), (1.6, 10.4))
    assert bench.tiles.keys() == {(0, 1), (2, 10), (3, 10)}
    assert bench.viewer.layers[-1].nshapes == 1
    bench.draw((5.1, 9.1), (5.4, 9.1), (5.4, 9.4))
    assert "No tile has its centre in the region" in bench.part.region_notice.text()
    assert len(bench.tiles) == 3
    assert np.allclose(camera_of(bench.viewer).center, before)
    QTest.mouseClick(bench.part.region_button, LEFT)
    bench.settle()
    assert "Region to label" not in bench.viewer.layers
    bench.click(7, 2)
    assert bench.tiles[7, 2] == {0}


def test_a_region_may_cross_its_own_beginning(bench):
    QTest.mouseClick(bench.part.region_button, LEFT)
    line = (
        *((8, 6), (8.2, 7), (7.4, 7.7), (6.4, 7.7), (5.7, 7.6), (4.8, 7.7), (3.9, 7.2), (3.9, 6.1), (4.5, 5.4)),
        *((4.8, 4.7), (5.3, 3.9), (6.3, 3.6), (7, 4.3), (7.3, 5.1), (7.8, 5.8), (8.2, 6.7), (7.7, 7.6), (6.7, 7.7)),
    )
    grid, layer = bench.session.labelling.grid, bench.viewer.layers["Region to label"]
    layer.add_polygons((np.array(line) + np.array((0.4, 1))) * grid.side)
    bench.settle()
    # what the line encloses twice lies in the region, too
    assert bench.tiles.keys() == {*itertools.product((5, 6, 7, 8), (5, 6)), (7, 4), (6, 7), (7, 7), (8, 7), (7, 8)}


def test_other_shapes_of_napari_are_regions_too_and_another_layer_ends_drawing(bench):
    QTest.mouseClick(bench.part.region_button, LEFT)
    layer = bench.viewer.layers["Region to label"]
    layer.mode = "add_rectangle"
    bench.drag((1.6, 2.6), (3.4, 4.4))
    assert bench.tiles.keys() == {(c, r) for c in (2, 3) for r in (3, 4)}
    layer.mode = "add_polygon"
    for corner in ((5.6, 2.6), (7.4, 2.6), (7.4, 4.4), (5.6, 4.4)):
        QTest.mouseMove(bench.canvas, bench.at(*corner))
        bench.settle()
        bench.click(*corner)
    QTest.mouseDClick(bench.canvas, LEFT, NO, bench.at(5.6, 4.4))
    bench.settle()
    assert bench.tiles.keys() >= {(c, r) for c in (6, 7) for r in (3, 4)}
    layer.mode = "select"
    layer.selected_data = {0}
    layer.remove_selected()
    layer.mode = "add_ellipse"
    bench.drag((1.2, 8.2), (3.8, 10.8))
    assert (2, 9) in bench.tiles
    bench.viewer.layers.selection.active = bench.session.slides[0].layer
    bench.settle()
    assert not bench.part.region_button.isChecked()
    assert "Region to label" not in bench.viewer.layers
    QTest.mouseClick(bench.part.region_button, LEFT)
    QTest.mouseClick(bench.part.rectangle_button, LEFT)
    assert not bench.part.region_button.isChecked()
    QTest.mouseClick(bench.part.region_button, LEFT)
    assert not bench.part.rectangle_button.isChecked()
    bench.part.tile_size.pixels.setValue(96)  # refused while tiles are labelled
    assert bench.part.region_button.isChecked()
    QTest.mouseClick(bench.part.clear_button, LEFT)
    bench.part.tile_size.pixels.setValue(96)  # another grid
    bench.settle()
    assert not bench.part.region_button.isChecked()
    bench.viewer.layers.remove(bench.session.slides[0].layer)
    bench.settle()
    assert not len(bench.viewer.layers)


@pytest.mark.parametrize("key", [Qt.Key.Key_Delete, Qt.Key.Key_Backspace, Qt.Key.Key_0])
def test_labels_are_removed_and_undone_exactly(bench, key):
    bench.click(2, 3)
    bench.key(Qt.Key.Key_2, 2, 3, SHIFT)
    full = bench.tiles
    bench.key(key, 2, 3)
    assert bench.tiles == {}
    QTest.keyClick(bench.canvas, Qt.Key.Key_Z, CONTROL)
    assert bench.tiles == full
    QTest.keyClick(bench.canvas, Qt.Key.Key_Z, CONTROL)
    assert bench.tiles == {(2, 3): {0}}
    QTest.keyClick(bench.canvas, Qt.Key.Key_Z, CONTROL | SHIFT)
    assert bench.tiles == full
    QTest.mouseClick(bench.part.undo.undo_button, LEFT)
    QTest.mouseClick(bench.part.undo.redo_button, LEFT)
    assert bench.tiles == full


def test_two_quick_clicks_do_not_zoom(bench):
    zoom = camera_of(bench.viewer).zoom
    bench.click(2, 3)
    QTest.mouseDClick(bench.canvas, LEFT, NO, bench.at(2, 3))
    bench.settle()
    assert bench.tiles == {(2, 3): {0}}
    assert camera_of(bench.viewer).zoom == zoom


def test_the_tool_leaves_the_canvas_alone_when_it_is_off(bench):
    QTest.mouseClick(bench.part.tool_button, LEFT)
    bench.click(2, 3)
    bench.key(Qt.Key.Key_1, 2, 3)
    assert bench.tiles == {}
    assert not any(layer.name == "Tile grid" and layer.visible for layer in bench.viewer.layers)
    bench.switch_on()
    bench.click(2, 3)
    assert bench.tiles == {(2, 3): {0}}


def test_digits_by_the_place_of_the_key_when_it_makes_another_sign():
    def press(key, native_code: int, modifiers=NO) -> QKeyEvent:
        return QKeyEvent(QEvent.Type.KeyPress, key, modifiers, native_code, native_code, 0, "")

    assert digit(press(Qt.Key.Key_3, 0)) == 3
    assert digit(press(Qt.Key.Key_A, 0)) is None
    if qtpy.QtCore.QSysInfo.kernelType() == "linux":
        assert digit(press(Qt.Key.Key_Exclam, 10, SHIFT)) == 1
        assert digit(press(Qt.Key.Key_Agrave, 19)) == 0
        assert digit(press(Qt.Key.Key_Minus, 20)) is None


# classes --------------------------------------------------------------------------------------------------------


def rename(bench: Bench, row: int, name: str) -> None:
    table = bench.part.table
    table.choose(row)
    table.edit_name()
    editor = bench.settle() or table.viewport().findChild(type(bench.widget.folder.path))
    editor.selectAll()
    QTest.keyClicks(editor, name)
    QTest.keyClick(editor, Qt.Key.Key_Return)
    bench.settle()


def test_classes_are_added_renamed_recoloured_and_removed_in_the_middle(bench, application):
    bench.click(2, 3)
    rename(bench, 0, "carcinoma")
    QTest.mouseClick(bench.part.add_button, LEFT)
    bench.settle()
    rename(bench, 2, "necrosis")
    bench.key(Qt.Key.Key_3, 3, 3)
    bench.key(Qt.Key.Key_2, 4, 3)
    assert names(bench.part) == ["carcinoma", "stroma", "necrosis"]
    bench.part.table.choose(2)
    QTest.mouseClick(bench.part.colour_button, LEFT)
    dialog = bench.part.table.findChild(QColorDialog)
    dialog.setCurrentColor(Qt.GlobalColor.black)
    dialog.accept()
    bench.settle()
    assert bench.labels.taxonomy.classes[2].colour == "#000000"
    bench.saved()
    tiles = load_tiles(bench.session.tiles_folder)
    assert tiles.taxonomy == bench.labels.taxonomy
    assert tiles.counts == (1, 1, 1)
    bench.part.table.choose(1)
    QTest.mouseClick(bench.part.remove_button, LEFT)
    assert bench.tiles == {(2, 3): {0}, (3, 3): {1}}
    assert "1 tile lost the class stroma" in bench.part.class_notice.text()
    bench.saved()
    assert load_tiles(bench.session.tiles_folder).taxonomy.names == ("carcinoma", "necrosis")
    QTest.mouseClick(bench.part.undo.undo_button, LEFT)
    assert names(bench.part) == ["carcinoma", "stroma", "necrosis"]
    assert bench.tiles == {(2, 3): {0}, (3, 3): {2}, (4, 3): {1}}


def test_a_name_that_cannot_be_is_told_at_the_table(bench):
    for name in ("stroma", "path", " ", "a,b"):
        rename(bench, 0, name)
        assert bench.part.class_notice.isVisible(), name
        assert names(bench.part) == ["tumour", "stroma"]
        rename(bench, 0, "cancer")
        assert not bench.part.class_notice.isVisible()
        rename(bench, 0, "tumour")


def test_colours_start_out_safe_for_the_colour_blind(bench):
    for _ in range(3):
        QTest.mouseClick(bench.part.add_button, LEFT)
    icons = {
        bench.part.table.item(r, COLOUR).icon().pixmap(16).toImage().pixelColor(5, 5).name().upper() for r in range(5)
    }
    assert icons == {"#D55E00", "#009E73", "#0072B2", "#CC79A7", "#E69F00"}


def test_keys_reach_the_tiles_while_tiles_are_cut(bench):
    """Labels are given faster than they are saved, so that a job runs nearly all the time; it must not take keys."""
    jobs, shown = [], []
    bench.session.labelling.cutting.connect(jobs.append)
    bench.session.labelling.cutting.connect(lambda _: shown.append(bench.part.bar.progress.isVisible()))
    for column in range(6):
        before = len(jobs)
        QTest.mouseMove(bench.canvas, bench.at(column, 2))
        bench.settle()
        # whoever has the keyboard; without a window manager nobody has
        QTest.keyClick(QApplication.focusWidget() or bench.canvas, Qt.Key.Key_2)
        bench.session.labelling.use()
        bench.settle(lambda before=before: len(jobs) > before)
    assert all(shown)
    assert bench.tiles == {(column, 2): frozenset({1}) for column in range(6)}
    bench.saved()


def test_a_dock_that_is_opened_again_leaves_no_second_widgets(bench):
    kinds = []
    for _ in range(3):
        bench.dock.destroyOnClose()  # what the × of a dock does
        bench.settle()
        bench.widget = LabelTilesWidget(bench.viewer)
        bench.dock = bench.viewer.window.add_dock_widget(bench.widget, name="Label tiles")
        bench.settle()
        gc.collect()
        bench.settle()
        kinds.append(sorted(f"{type(one).__name__} {one.objectName()}" for one in QApplication.topLevelWidgets()))
    assert kinds[0] == kinds[2]


# sizes, slides, disk --------------------------------------------------------------------------------------------


def test_the_size_of_a_tile_is_said_and_stays_while_tiles_are_labelled(bench):
    assert bench.part.tile_size.side.text() == "224 px at 0.5 µm = 112 µm"
    bench.click(2, 3)
    bench.part.tile_size.pixels.setValue(96)
    assert "1 tiles are labelled" in bench.part.tile_size.notice.text()
    assert bench.part.tile_size.pixels.value() == 224
    QTest.mouseClick(bench.part.clear_button, LEFT)
    bench.part.tile_size.pixels.setValue(96)
    bench.part.tile_size.mpp.setValue(1)
    assert bench.part.tile_size.side.text() == "96 px at 1 µm = 96 µm"
    bench.click(0, 0)
    bench.saved()
    (tile,) = load_tiles(bench.session.tiles_folder)
    assert tile.read().shape == (96, 96, 3)
    assert bench.session.settings.data.mpp == 1


def test_a_size_that_suits_the_slide_is_proposed_with_an_example_from_its_tissue(bench):
    panel = bench.part.tile_size
    bench.settle(lambda: panel.example.isVisible())
    assert panel.room.text() == "The tissue has room for about 49 tiles. Smaller tiles show a single class more often."
    assert panel.propose_button.text() == "Use 112 px at 0.5 µm = 56 µm"
    QTest.mouseClick(panel.propose_button, LEFT)
    assert bench.labels.size.pixels == 112
    bench.settle(lambda: panel.room.text().startswith("The tissue has room for about 19"))  # four times as many
    assert not panel.propose_button.isVisible()
    picture = panel.example.pixmap().toImage()
    assert picture.width() == picture.height() == 84
    colours = [picture.pixelColor(x, y).getRgb()[:3] for x in range(84) for y in range(84)]
    assert np.mean(colours) < 200  # of tissue, not of glass
    QTest.mouseClick(bench.part.undo.undo_button, LEFT)
    bench.settle(lambda: panel.propose_button.isVisible())
    bench.click(2, 3)  # the size stays from now on
    assert not panel.propose_button.isVisible()
    assert panel.example.isVisible()


def test_tiles_larger_than_the_slide_are_refused(bench):
    bench.part.tile_size.pixels.setValue(2048)
    bench.part.tile_size.mpp.setValue(2)
    assert "smaller than one tile" in bench.part.slide_notice.text()
    assert not bench.part.tool.on
    bench.part.tile_size.pixels.setValue(224)
    assert not bench.part.slide_notice.isVisible()
    assert bench.part.tool.on


def test_without_a_slide_the_way_to_one_is_told(viewer, settle):
    bench = Bench(viewer, settle)
    assert bench.part.slide_notice.text().endswith("Drop a slide on the window, or open one in Slides.")
    assert not bench.part.tool_button.isEnabled()
    bench.session.slides.open(samples.slide())
    settle()
    assert bench.part.tool_button.isEnabled()


def test_a_slide_without_microns_is_refused_until_it_has_them(viewer, settle, tmp_path, sample_pixels):
    path = tmp_path / "plain.png"
    Image.fromarray(sample_pixels[:1000, :1000]).save(path)
    bench = Bench(viewer, settle, path)
    assert "does not say its microns per pixel; set its microns" in bench.part.slide_notice.text()
    assert not bench.part.tool_button.isEnabled()
    slide = bench.session.current_slide
    slide.slide.mpp_xy = (0.5, 0.5)
    slide.place()
    settle()
    assert not bench.part.slide_notice.isVisible()
    bench.switch_on()
    bench.click(1, 1)
    bench.saved()
    assert len(load_tiles(bench.session.tiles_folder)) == 1
    slide.slide.mpp_xy = (0.25, 0.25)  # corrected after labels were given
    slide.place()
    settle()
    assert "was labelled at 0.5 microns per pixel and has 0.25 now" in bench.part.slide_notice.text()
    assert not bench.part.tool.on
    QTest.mouseClick(bench.part.restart_button, LEFT)
    assert bench.tiles == {}
    assert bench.part.tool.on
    QTest.mouseClick(bench.part.undo.undo_button, LEFT)
    assert bench.tiles == {(1, 1): {0}}
    assert bench.part.slide_notice.isVisible()


def test_closing_the_dock_loses_nothing(bench):
    bench.click(2, 3)
    rename(bench, 1, "fat")
    before = bench.tiles
    bench.viewer.window.remove_dock_widget(bench.dock)
    bench.settle()
    QTest.mouseClick(bench.canvas, LEFT, NO, bench.at(4, 4))
    assert bench.tiles == before
    assert not bench.viewer.layers["Labelled tiles"].visible  # they would cover the tissue map
    again = Bench(bench.viewer, bench.settle)
    assert again.tiles == before
    assert bench.viewer.layers["Labelled tiles"].visible
    assert bench.viewer.layers["Labelled tiles"].get_value((3.5 * 112, 2.5 * 112), world=True) == 1
    assert names(again.part) == ["tumour", "fat"]
    again.switch_on()
    again.click(3, 3)
    assert len(again.tiles) == 2
    again.part.undo.undo_button.click()
    again.part.undo.undo_button.click()
    assert names(again.part) == ["tumour", "stroma"]


def test_removing_the_slide_keeps_its_labels(bench):
    bench.click(2, 3)
    bench.viewer.layers.remove(bench.session.slides[0].layer)
    bench.settle()
    assert not bench.viewer.layers
    assert not bench.part.tool.on
    bench.saved()
    assert len(load_tiles(bench.session.tiles_folder)) == 1  # cut from the file
    bench.session.slides.open(samples.slide())
    bench.settle()
    assert bench.tiles == {(2, 3): {0}}
    assert bench.viewer.layers["Labelled tiles"].get_value((3.5 * 112, 2.5 * 112), world=True) == 1


def test_a_removed_picture_comes_back_with_the_next_label(bench):
    bench.click(2, 3)
    bench.viewer.layers.remove(bench.viewer.layers["Labelled tiles"])
    bench.settle()
    bench.click(3, 3)
    layer = bench.viewer.layers["Labelled tiles"]
    assert layer.get_value((3.5 * 112, 2.5 * 112), world=True) == 1


def test_each_slide_has_labels_of_its_own(bench, tmp_path, sample_pixels):
    bench.click(2, 3)
    other = tmp_path / "other.png"
    Image.fromarray(sample_pixels[1000:2200, 600:1800]).save(other)
    second = bench.session.slides.open(other, mpp=0.5)
    bench.settle()
    assert bench.tiles == {}
    bench.click(1, 1)
    bench.viewer.layers.selection.active = bench.session.slides[0].layer
    bench.settle()
    assert bench.tiles == {(2, 3): {0}}
    assert bench.part.total.text().startswith("2 labelled tiles on 2 slides")
    assert second.slide.name == "other"
    bench.saved()
    assert {t.origin.slide for t in load_tiles(bench.session.tiles_folder)} == {"CMU-1-Small-Region", "other"}


def test_labels_come_back_in_another_session(bench, tmp_path):
    bench.click(2, 3)
    bench.saved()
    project = bench.session.folder
    bench.click(3, 3)
    bench.session.folder = tmp_path / "elsewhere"  # saves what is not saved
    bench.settle()
    assert bench.session.labelling.slide is None
    assert len(bench.labels) == 0
    bench.session.folder = project
    bench.settle(lambda: bench.session.labelling.slide is not None)  # it is opened as it was
    assert bench.tiles == {(2, 3): {0}, (3, 3): {0}}
    assert not bench.labels.can_undo
    bench.saved()
    assert len(load_tiles(bench.session.tiles_folder)) == 2


def test_labels_are_kept_where_the_project_is_left_and_taken_up_again_while_tiles_are_cut(bench, tmp_path):
    session, project = bench.session, bench.session.folder
    bench.click(2, 3)
    bench.settle(lambda: session.jobs)  # its tile is being cut
    bench.click(3, 3)
    session.folder = tmp_path / "elsewhere"
    session.folder = project
    session.folder = tmp_path / "elsewhere"
    bench.settle(lambda: not session.jobs)
    assert sum(map(len, LabelledSlides.read(project / "tiles").tiles)) == 2
    session.folder = project
    bench.settle(lambda: session.labelling.slide is not None)
    assert bench.tiles == {(2, 3): {0}, (3, 3): {0}}


def test_the_last_label_is_saved_when_the_window_closes(bench):
    bench.click(2, 3)
    bench.session.close()
    assert len(LabelledSlides.read(bench.session.tiles_folder)) == 1


def test_damaged_labels_are_told_and_left_alone(viewer, settle):
    folder = session_of(viewer).tiles_folder
    folder.mkdir(parents=True)
    (folder / LABELS).write_text("{", encoding="utf-8")
    bench = Bench(viewer, settle, samples.slide())
    assert "cannot be read; restore" in bench.part.slide_notice.text()
    assert not bench.part.tool_button.isEnabled()
    assert bench.session.labelling.grid is None
    bench.session.close()
    assert (folder / LABELS).read_text(encoding="utf-8") == "{"


def test_a_vanished_slide_is_told_and_its_cut_tiles_stay(viewer, settle, tmp_path):
    path = Path(shutil.copy(samples.slide(), tmp_path / "stick.svs"))
    bench = Bench(viewer, settle, path)
    bench.switch_on()
    bench.click(2, 3)
    bench.saved()
    path.unlink()
    bench.click(3, 3)
    bench.saved()
    assert "1 tiles of stick are left out until it can be read" in bench.part.bar.notice.text()
    assert len(load_tiles(bench.session.tiles_folder)) == 1
    assert len(bench.tiles) == 2


def test_thousands_of_labels_on_a_huge_slide_stay_quick(viewer, settle, huge_slide):
    bench = Bench(viewer, settle, huge_slide)
    identity = bench.session.current_slide.slide.identity
    grid = bench.session.labelling.grid
    bench.labels.label(identity, [(c, r) for c in range(100) for r in range(50)], {0})
    bench.part.tool_button.setChecked(True)
    settle()
    took = []
    for n in range(20):
        began = time.thread_time()
        bench.labels.label(identity, [(200 + n, 200)], {1})
        took.append(time.thread_time() - began)
    assert np.median(took) < 0.05, took
    assert len(bench.tiles) == 5020
    QTest.mouseClick(bench.part.region_button, LEFT)
    settle()
    bench.draw((20.6, 100.6), (400.4, 100.6), (400.4, 400.4), (20.6, 400.4))
    began = time.thread_time()
    bench.key(Qt.Key.Key_1, 0, 0)
    assert time.thread_time() - began < 2
    assert len(bench.tiles) > 100_000
    assert (grid.columns, grid.rows) == (445, 445)


# folders --------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(viewer, settle) -> Bench:
    bench = Bench(viewer, settle)
    bench.widget.tabs.setCurrentWidget(bench.widget.folder)
    settle()
    return bench


def enter(bench: Bench, text: object) -> None:
    field = bench.widget.folder.path
    field.selectAll()
    QTest.keyClicks(field, str(text))
    QTest.keyClick(field, Qt.Key.Key_Return)
    bench.settle(lambda: not bench.session.jobs)


def test_a_folder_of_tiles_is_shown_and_used(folder):
    enter(folder, samples.tiles())
    part = folder.widget.folder
    assert part.found.text().startswith("Found 41 tiles for training: a folder for each class (ADI 5, BACK 1, DEB 5,")
    rows = [(part.table.item(r, NAME).text(), part.table.item(r, TILES).text()) for r in range(9)]
    assert rows[:3] == [("ADI", "5"), ("BACK", "1"), ("DEB", "5")]
    assert folder.session.settings.data.folder == samples.tiles()
    assert "crc" in folder.widget.used.text()
    part.mpp.setValue(0.5)
    assert folder.session.settings.data.mpp == 0.5


def test_what_was_left_out_and_what_is_probably_wrong_is_shown(folder, tmp_path):
    for split in ("Train", "Val"):
        shutil.copytree(samples.tiles() / "TUM", tmp_path / split / "TUM")
        shutil.copytree(samples.tiles() / "STR", tmp_path / split / "STR")
    (tmp_path / "Train" / "TUM" / "notes.npy").touch()
    (tmp_path / "Other").mkdir()
    masks = tmp_path / "Test"
    (masks / "img").mkdir(parents=True)
    (masks / "mask").mkdir()
    shutil.copy(next((samples.tiles() / "TUM").iterdir()), masks / "img" / "a.png")
    Image.new("L", (224, 224), 1).save(masks / "mask" / "a.png")
    enter(folder, tmp_path)
    part = folder.widget.folder
    assert part.found.text().splitlines() == [
        "Found 10 tiles for training: a folder for each class (STR 5, TUM 5).",
        "Found 10 tiles for validation: a folder for each class (STR 5, TUM 5).",
        "Found 1 tile for testing: masks, which give the classes (STR 0, TUM 1).",
        "Left out: 1 .npy, such as notes.npy (no pictures that are read).",
        "Left out: Other (beside the folders of the splits).",
    ]
    assert part.bar.notice.isVisible()
    assert part.bar.notice.text().startswith("⚠")
    assert "No mask of the split test shows STR" in part.bar.notice.text()


def test_sample_tiles_can_be_tried_where_there_are_none(folder):
    part = folder.widget.folder
    assert part.sample_button.isVisible()
    QTest.mouseClick(part.sample_button, Qt.MouseButton.LeftButton)
    folder.settle(lambda: folder.session.settings.data.folder == samples.tiles())
    assert folder.session.settings.data.mpp == samples.TILES_MPP
    assert part.table.rowCount() == 9
    assert not part.sample_button.isVisible()


def test_a_wrong_folder_is_told_and_not_used(folder, tmp_path):
    enter(folder, tmp_path / "nowhere")
    assert "does not exist; name the folder" in folder.widget.folder.bar.notice.text()
    assert folder.session.settings.data.folder is None
    (tmp_path / "empty").mkdir()
    enter(folder, tmp_path / "empty")
    assert "holds no pictures" in folder.widget.folder.bar.notice.text()


def test_class_names_can_be_given_where_the_folder_has_none(folder, tmp_path):
    tile = next((samples.tiles() / "TUM").iterdir())
    for name in ("a[10].png", "b[01].png"):
        Image.open(tile).save(tmp_path / name)
    enter(folder, tmp_path)
    assert "class names are not known" in folder.widget.folder.bar.notice.text()
    names = folder.widget.folder.names
    QTest.keyClicks(names, "tumour, fat")
    QTest.keyClick(names, Qt.Key.Key_Return)
    folder.settle(lambda: not folder.session.jobs)
    assert folder.session.settings.data.classes == ("tumour", "fat")
    assert folder.widget.folder.table.rowCount() == 2


def test_a_fault_in_the_class_names_goes_when_they_are_emptied(folder):
    enter(folder, samples.tiles())
    fields = folder.widget.folder
    assert fields.table.rowCount() == 9
    QTest.keyClicks(fields.names, "a, a")
    QTest.keyClick(fields.names, Qt.Key.Key_Return)
    folder.settle(lambda: not folder.session.jobs)
    assert "two tissue classes cannot both be named “a”" in fields.bar.notice.text()
    assert fields.table.isHidden()
    fields.names.selectAll()
    QTest.keyClick(fields.names, Qt.Key.Key_Delete)
    QTest.keyClick(fields.names, Qt.Key.Key_Return)
    folder.settle(lambda: not folder.session.jobs)
    assert not fields.bar.notice.isVisible()
    assert not fields.table.isHidden()
    assert fields.table.rowCount() == 9
    assert folder.session.settings.data.classes is None


def test_labels_that_cannot_be_saved_are_not_said_to_be(bench):
    bench.session.tiles_folder.parent.mkdir(parents=True, exist_ok=True)
    bench.session.tiles_folder.write_text("a file where the folder is to be")
    bench.click(2, 3)
    bench.saved()
    assert bench.part.total.text() == "1 labelled tile on 1 slide; not saved."
    assert "cannot be written" in bench.part.bar.notice.text()
    bench.session.tiles_folder.unlink()
    bench.click(4, 3)
    bench.saved()
    assert bench.part.total.text() == "2 labelled tiles on 1 slide; saved as you go."
    assert (bench.session.tiles_folder / LABELS).exists()


def test_the_tiles_that_were_changed_last_are_used_and_others_can_be_chosen_again(bench):
    bench.widget.tabs.setCurrentWidget(bench.widget.folder)
    enter(bench, samples.tiles())
    bench.widget.tabs.setCurrentWidget(bench.part)
    bench.settle()
    rename(bench, 0, "carcinoma")
    bench.saved()
    assert bench.session.settings.data.folder == samples.tiles()
    bench.click(2, 3)
    bench.saved()
    assert bench.session.settings.data.folder == bench.session.tiles_folder
    bench.widget.tabs.setCurrentWidget(bench.widget.folder)
    QTest.mouseClick(bench.widget.use_button, LEFT)
    bench.settle(lambda: bench.session.settings.data.folder == samples.tiles())
    bench.widget.tabs.setCurrentWidget(bench.part)
    QTest.mouseClick(bench.widget.use_button, LEFT)
    bench.settle(lambda: bench.session.settings.data.folder == bench.session.tiles_folder)
    assert not bench.widget.use_button.isVisible()


def test_settings_from_elsewhere_are_shown(folder):
    data = folder.session.settings.data.model_copy(update={"folder": samples.tiles(), "mpp": 0.5})
    folder.session.change(data=data)
    folder.settle(lambda: not folder.session.jobs)
    assert folder.widget.folder.path.text() == str(samples.tiles())
    assert folder.widget.folder.mpp.value() == 0.5
    assert folder.widget.folder.table.rowCount() == 9


def test_tiles_are_cut_when_they_are_asked_for_right_after_a_label(bench):
    labelling, cut = bench.session.labelling, []
    labelling.tiles_cut.connect(lambda: cut.append(True))
    labelling._quiet.setInterval(0)  # it would save the label while the tiles are being cut
    bench.labels.label(labelling.facts.identity, [(3, 3), (4, 4)], [0])
    labelling.use()
    bench.saved()
    assert cut
    assert load_tiles(bench.session.tiles_folder)
