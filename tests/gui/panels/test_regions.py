"""Regions that are drawn on a slide with the mouse: what counts, what is saved, and what the map shows."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import shapely
import shapely.affinity
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QLineEdit

from napari_pbip import samples
from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.docks.legend import LegendWidget
from napari_pbip.gui.docks.slides import SlidesWidget
from napari_pbip.gui.sessions import session_of
from napari_pbip.results import ScoreStore, areas, write_labels
from napari_pbip.results.places import REGIONS
from napari_pbip.slides.regions import Kind, Region, Regions
from tests.gui.napari_privates import canvas_of, pixels_shown
from tests.gui.qt_helpers import click
from tests.results import stores

LEFT, NO = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
SQUARE = ((400, 500), (1500, 500), (1500, 2000), (400, 2000))
STRIPE = ((900, 300), (1100, 300), (1100, 2200), (900, 2200))


class Drawing:
    """The sample slide, and the panel, with which a user draws."""

    def __init__(self, viewer, settle) -> None:
        self.viewer, self.settle, self.session = viewer, settle, session_of(viewer)
        widget = SlidesWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Slides")
        self.slide = self.session.slides.open(samples.slide())
        settle()
        self.panel, self.canvas = widget.regions, canvas_of(viewer)

    @property
    def regions(self) -> Regions:
        return self.session.regions.of(self.slide)

    @property
    def file(self) -> Path:
        return self.session.result_folder(self.slide.slide) / REGIONS

    @property
    def layer(self):
        return self.viewer.layers[f"regions of {self.slide.slide.name}"]

    def at(self, x: float, y: float) -> QPointF:
        """Return the position on the canvas of a corner of level-0 pixels."""
        camera, mpp = camera_of(self.viewer), self.slide.slide.mpp
        dy, dx = ((np.array([y, x]) - 0.5) * mpp - np.array(camera.center)[-2:]) * camera.zoom
        return QPointF(round(self.canvas.width() / 2 + dx), round(self.canvas.height() / 2 + dy))

    def move(self, place: QPointF, button=LEFT) -> None:
        everywhere = QPointF(self.canvas.mapToGlobal(place.toPoint()))
        move = QMouseEvent(QEvent.Type.MouseMove, place, everywhere, Qt.MouseButton.NoButton, button, NO)
        QApplication.sendEvent(self.canvas, move)

    def lasso(self, corners) -> None:
        """Draw around a region with the button down."""
        places = [self.at(*corner) for corner in (*corners, corners[0])]
        QTest.mousePress(self.canvas, LEFT, NO, places[0].toPoint())
        for before, after in itertools.pairwise(places):
            for step in range(1, 6):
                QTest.qWait(20)  # napari reports no two moves in quick succession
                self.move(before + (after - before) * step / 5)
        QTest.mouseRelease(self.canvas, LEFT, NO, places[-1].toPoint())
        self.settle()

    def drag(self, start, end) -> None:
        """Move with the button down, straight from one corner to another."""
        a, b = (self.at(*corner).toPoint() for corner in (start, end))
        QTest.mousePress(self.canvas, LEFT, NO, a)
        for share in (0.1, 0.5, 1.0):
            QTest.qWait(20)
            self.move(QPointF(a + (b - a) * share))
        QTest.mouseRelease(self.canvas, LEFT, NO, b)
        self.settle()

    def draw(self, button, corners) -> None:
        click(button)
        self.settle()
        self.lasso(corners)


@pytest.fixture
def drawing(viewer, settle) -> Drawing:
    return Drawing(viewer, settle)


def overlap(shape: shapely.Geometry, corners) -> float:
    """Return the intersection over union of two shapes."""
    other = shapely.Polygon(corners)
    return shape.intersection(other).area / shape.union(other).area


def test_regions_are_drawn_named_saved_and_undone(drawing, tmp_path):
    panel, session = drawing.panel, drawing.session
    drawing.draw(panel.analyse_button, SQUARE)
    drawing.draw(panel.leave_out_button, STRIPE)
    assert [(one.name, one.kind) for one in drawing.regions] == [
        ("region 1", Kind.ANALYSE),
        ("left out 1", Kind.LEAVE_OUT),
    ]
    pixel = 1 / camera_of(drawing.viewer).zoom / drawing.slide.slide.mpp
    for region, corners in zip(drawing.regions, (SQUARE, STRIPE), strict=True):
        assert region.shape.hausdorff_distance(shapely.Polygon(corners)) < 8 * pixel
    panel.table.editItem(panel.table.item(0, 0))
    line = panel.table.findChild(QLineEdit)
    QTest.keyClicks(line, "tumour bed")
    QTest.keyClick(line, Qt.Key.Key_Return)
    drawing.settle()
    assert list(drawing.layer.features["name"]) == ["tumour bed", "left out 1"]
    saved = json.loads(drawing.file.read_text(encoding="utf-8"))["features"]  # without a button
    assert [one["properties"]["name"] for one in saved] == ["tumour bed", "left out 1"]
    assert overlap(shapely.from_geojson(json.dumps(saved[0]["geometry"])), SQUARE) > 0.97
    drawing.layer.mode = "add_line"
    drawing.drag((1600, 300), (2100, 1100))
    assert drawing.layer.nshapes == len(drawing.regions) == 2  # a line encloses nothing
    drawing.layer.mode = "add_ellipse"
    drawing.drag((1600, 300), (2100, 1100))
    ellipse = shapely.affinity.scale(shapely.Point(1850, 700).buffer(1, quad_segs=64), 250, 400)
    assert overlap(drawing.regions.items[2].shape, ellipse.exterior.coords) > 0.97
    session.history.undo()
    box = panel.table.cellWidget(0, 1)
    box.setFocus()
    QTest.keyClick(box, Qt.Key.Key_Down)
    box.activated.emit(box.currentIndex())
    drawing.settle()
    assert drawing.regions.items[0].kind is Kind.LEAVE_OUT
    for _ in range(3):
        session.history.undo()
    drawing.settle()
    assert [one.name for one in drawing.regions] == ["region 1"]
    assert drawing.layer.nshapes == 1
    session.history.redo()
    drawing.settle()
    assert [one.name for one in Regions.read(drawing.file)] == ["region 1", "left out 1"]
    drawing.viewer.layers.selection.active = drawing.layer
    drawing.layer.mode = "select"
    drawing.layer.selected_data = {0, 1}
    drawing.layer.remove_selected()
    drawing.settle()
    assert not drawing.file.exists()


def with_a_map(drawing: Drawing) -> Path:
    """Write a map of the slide into its folder of results."""
    slide, shape = drawing.slide.slide, (186, 139)
    facts = stores.facts(shape)["slide"] | {
        "identity": slide.identity,
        "path": str(slide.path),
        "name": slide.name,
        "width": slide.width,
        "height": slide.height,
        "mpp": slide.mpp,
    }
    store = stores.create(drawing.file.with_name("slide.ome.zarr"), shape, slide=facts)
    stores.segment(store, stores.network(stores.smooth_field(shape)))
    return store.path


def test_the_map_and_its_areas_follow_the_regions_and_are_there_again_after_a_restart(drawing, settle):
    viewer, session = drawing.viewer, drawing.session
    store = with_a_map(drawing)
    result = session.results.open(store)
    dock = LegendWidget(viewer)
    viewer.window.add_dock_widget(dock, name="Legend")
    legend = dock.legend
    settle(lambda: result.areas.exact)
    assert not legend.region.isVisible()
    before = {row.label: row.area_mm2 for row in result.areas.rows}
    drawing.draw(drawing.panel.analyse_button, SQUARE)
    drawing.draw(drawing.panel.leave_out_button, STRIPE)
    settle(lambda: result.areas.exact and len(result.areas.rows) == 2 * len(before))
    shape = shapely.difference(*[one.shape for one in drawing.regions])
    cell_mm2 = (result.store.cell_um / 1000) ** 2
    share = shape.area * (drawing.slide.slide.mpp / 1000) ** 2 / (186 * 139 * cell_mm2)
    counted = sum(row.area_mm2 for row in result.areas.rows if row.region == "")
    assert counted == pytest.approx(sum(before.values()) * share, rel=0.02)
    labels = pixels_shown(result.layer)
    assert 0 < np.count_nonzero(labels) < labels.size * 0.6  # the map ends at the regions
    assert legend.region.isVisible()
    assert [legend.region.itemText(n) for n in range(2)] == ["All that counts", "region 1"]
    legend.region.setCurrentIndex(1)
    first = next(row for row in result.areas.rows if row.region == "region 1")
    assert legend.rows[first.label].area.text() == f"{first.area_mm2:.3f}"
    assert "do not count, because of the regions" in legend.left_out.text()
    session.correcting.begin(result)
    settle(lambda: session.correcting.layer is not None)
    session.correcting.layer.data_setitem((np.full(40, 90), np.arange(40, 80)), 2)
    settle(lambda: result.store.corrections.sittings)
    session.correcting.end()
    settle(lambda: result.areas.exact and any(row.corrected_mm2 for row in result.areas.rows))
    inside = sum(row.corrected_mm2 for row in result.areas.rows if row.region == "region 1")
    assert 0 < inside < 40 * cell_mm2
    assert f"{inside:.3f} mm² corrected by hand" in legend.exactness.text()  # once, and not for each region again
    write_labels(ScoreStore.open(store), result.thresholds)
    assert {(row.region, row.label, row.cells) for row in areas(ScoreStore.open(store))} == {
        (row.region, row.label, row.cells) for row in result.areas.rows
    }
    folder, drawn = session.folder, drawing.regions.identity
    session.folder = folder.with_name("other")
    settle()
    assert not any(layer.metadata.get("kind") == "regions" for layer in viewer.layers)
    session.folder = folder
    settle(lambda: not session.project.opening)
    drawing.slide = session.slides[0]
    session.slides.show(drawing.slide)
    settle(lambda: any(layer.metadata.get("kind") == "regions" for layer in viewer.layers))
    assert drawing.regions.identity == drawn
    assert drawing.layer.nshapes == 2


def test_annotations_of_qupath_become_regions_and_holes_stay(drawing, tmp_path, settle):
    ring = shapely.box(300, 300, 1800, 2200).difference(shapely.box(700, 800, 1500, 1900))
    ring = ring.difference(shapely.box(400, 400, 600, 600))
    path = tmp_path / "qupath.geojson"
    Regions((Region("bed", Kind.ANALYSE, ring), Region("fold", Kind.LEAVE_OUT, shapely.box(300, 700, 700, 900)))).write(
        path
    )
    drawing.panel.read(path)
    settle(lambda: len(drawing.regions) == 2)
    assert drawing.regions.items[0].shape.equals(ring)
    drawing.session.regions.flush()
    drawing.layer.mode = "direct"
    drawing.layer.events.data(value=drawing.layer.data, action="changed", data_indices=(0,), vertex_indices=((),))
    settle()
    assert drawing.regions.items[0].shape.equals(ring)  # as the layer has it
    far = tmp_path / "far.geojson"
    Regions((Region("far", Kind.ANALYSE, shapely.box(9000, 0, 9500, 100)),)).write(far)
    drawing.panel.read(far)
    settle(lambda: drawing.panel.notice.isVisible())
    assert "The region far lies outside" in drawing.panel.notice.text()
    assert len(drawing.regions) == 2
