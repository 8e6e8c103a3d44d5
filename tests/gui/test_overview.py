"""The overview in the corner of the canvas, with real moves of the mouse and of the view."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import QPoint, QRectF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_pbip import samples
from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.layers.slides import SlideLayer
from napari_pbip.gui.overview import Overview
from napari_pbip.gui.sessions import session_of
from tests.gui.napari_privates import canvas_of, main_window
from tests.gui.qt_helpers import Settle

LEFT, NO = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier


@pytest.fixture
def overview(viewer: Any) -> Overview:
    [overview] = canvas_of(viewer).findChildren(Overview)
    return overview


def shown_part(overview: Overview) -> tuple[float, float, float, float]:
    """Return the frame as shares of the slide: left, top, width, height."""
    frame, width, height = overview.frame, overview.width(), overview.height()
    return frame.x() / width, frame.y() / height, frame.width() / width, frame.height() / height


def part_under_mouse(viewer: Any, slide: SlideLayer, settle: Settle) -> tuple[float, float, float, float]:
    """Return the same by what napari says is under the mouse in two corners of the canvas."""
    canvas, shares = canvas_of(viewer), []
    for corner in (canvas.rect().topLeft() + QPoint(1, 1), canvas.rect().bottomRight() - QPoint(1, 1)):
        QTest.mouseMove(canvas, corner)
        settle()
        y, x = slide.layer.world_to_data(viewer.cursor.position)[:2]
        shares.append(((x + 0.5) / slide.slide.width, (y + 0.5) / slide.slide.height))
    (left, top), (right, bottom) = shares
    return left, top, right - left, bottom - top


def move(widget: Any, place: QPoint) -> None:
    """Move the mouse with the left button down."""
    there = widget.mapToGlobal(place).toPointF()
    QApplication.sendEvent(
        widget, QMouseEvent(QMouseEvent.Type.MouseMove, place.toPointF(), there, Qt.MouseButton.NoButton, LEFT, NO)
    )


def test_the_frame_follows_the_view_and_moves_it(viewer: Any, overview: Overview, settle: Settle) -> None:
    session, canvas, camera = session_of(viewer), canvas_of(viewer), camera_of(viewer)
    assert not overview.isVisible()
    slide = session.slides.open(samples.slide())
    settle(lambda: not slide.pyramid.pending)
    assert not overview.isVisible()  # all of the slide is in view
    camera.zoom *= 6
    settle()
    assert overview.isVisible()
    assert max(overview.width(), overview.height()) == 160
    assert canvas.rect().contains(overview.geometry())
    height, width = slide.slide.height, slide.slide.width
    assert part_under_mouse(viewer, slide, settle) == pytest.approx(shown_part(overview), abs=0.01)

    to = QPoint(overview.width() // 4, overview.height() * 3 // 4)
    QTest.mouseClick(overview, LEFT, pos=to)
    settle()
    dy, dx = slide.layer.scale
    expected = (0.75 * height * dy, 0.25 * width * dx)
    assert camera.center[-2:] == pytest.approx(expected, rel=0.02)
    assert overview.frame.center().x() == pytest.approx(to.x(), abs=0.5)
    QTest.mousePress(overview, LEFT, pos=to)
    to = QPoint(overview.width() // 2, overview.height() // 4)
    move(overview, to)
    QTest.mouseRelease(overview, LEFT, pos=to)
    settle()
    assert overview.frame.center().y() == pytest.approx(to.y(), abs=0.5)
    assert part_under_mouse(viewer, slide, settle) == pytest.approx(shown_part(overview), abs=0.01)

    before = overview.pos()
    main_window(viewer).resize(1200, 800)
    settle()
    assert overview.pos() != before
    assert canvas.rect().contains(overview.geometry())
    main_window(viewer).resize(1500, 950)
    main_window(viewer).activateWindow()
    settle(main_window(viewer).isActiveWindow)
    for visible in (False, True):
        QTest.keyClick(canvas, Qt.Key.Key_Q)
        settle()
        assert overview.isVisible() is visible
    viewer.layers.clear()
    settle()
    assert not overview.isVisible()


def test_the_picture_is_that_of_the_slide_in_view(
    viewer: Any, overview: Overview, settle: Settle, tmp_path: Path, sample_pixels: np.ndarray
) -> None:
    session, camera = session_of(viewer), camera_of(viewer)
    first = session.slides.open(Path(shutil.copy(samples.slide(), tmp_path)))
    path = tmp_path / "dark.png"
    Image.fromarray(sample_pixels[:800, :1600] // 4).save(path)
    second = session.slides.open(path)
    for slide, size in ((second, (160, 80)), (first, None)):
        session.slides.show(slide)
        settle(lambda slide=slide: not slide.pyramid.pending)
        camera.zoom *= 8
        camera.center = (1e6, 1e6)  # so that the frame is somewhere else
        settle()
        assert overview.isVisible()
        if size is not None:
            assert (overview.width(), overview.height()) == size
        image = overview.grab().toImage()
        drawn = [image.pixelColor(image.width() // 2, y).red() for y in range(4, image.height() - 4)]
        height, width, _ = slide.pyramid.coarsest.shape
        expected = slide.pyramid.coarsest[:, width // 2, 0].astype(float)
        assert np.mean(drawn) == pytest.approx(expected.mean(), abs=12)
        assert not overview.frame.intersects(QRectF(overview.rect()))
    assert height > 0
