"""The overview of a slide in a corner of the canvas, with a frame around what is in view."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen, QPixmap
from qtpy.QtWidgets import QWidget

from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.connections import listen
from napari_pbip.gui.keys import Key, bind
from napari_pbip.gui.layers.slides import SlideLayer
from napari_pbip.gui.pixmaps import pixmap

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session

_SIDE = 160
"""Longer side in pixels; a canvas that is not three times as large has no overview."""
_MARGIN = 10
_SMALLEST = 8
"""Smallest side of the frame in pixels, so that it is seen at high magnification, too."""


class Overview(QWidget):
    """The slide in view as a small picture, while a part of it is out of sight; a click or drag on it moves the view.

    Parameters
    ----------
    canvas
        Canvas of the viewer, in whose corner it is.
    session
        The session of the viewer.
    """

    def __init__(self, canvas: QWidget, session: Session) -> None:
        super().__init__(canvas)
        self._canvas, self._session = canvas, weakref.proxy(session)
        self._camera: Any = camera_of(session.viewer)
        self._slide: SlideLayer | None = None
        self._picture = QPixmap()
        self._wanted = True
        self.setAccessibleName("Overview of the slide")
        self.setToolTip(f"Click or drag to move the view; {Key.OVERVIEW.keys} hides the overview")
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.hide()
        bind(Key.OVERVIEW, canvas, self._switch)
        canvas.installEventFilter(self)
        listen(
            self,
            (session.slides.changed, self._choose),
            (session.slide_selected, self._choose),
            (self._camera.events.center, self._follow),
            (self._camera.events.zoom, self._follow),
        )
        self._choose()

    @property
    def frame(self) -> QRectF:
        """What is in view, in pixels of the overview."""
        size = QPointF(self._canvas.width(), self._canvas.height()) / (2 * self._camera.zoom)
        centre = QPointF(self._camera.center[-1], self._camera.center[-2])
        return QRectF(self._place(centre - size), self._place(centre + size))

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Stay in the corner of the canvas."""
        if watched is self._canvas and event is not None and event.type() == QEvent.Type.Resize:
            self._follow()
        return False

    def paintEvent(self, event: QPaintEvent | None) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.drawPixmap(self.rect(), self._picture)
        frame = self.frame
        smallest = QRectF(0, 0, _SMALLEST, _SMALLEST)
        smallest.moveCenter(frame.center())
        for colour, width in (("white", 4), ("black", 2)):  # seen on every tissue
            painter.setPen(QPen(QColor(colour), width))
            painter.drawRect(frame.united(smallest))
            painter.drawRect(self.rect())

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        self._move_view(event)

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        self._move_view(event)

    # the slide and the view ----------------------------------------------------------------------------------

    def _choose(self, _: object = None) -> None:
        """Show the slide that is in view now."""
        slide = self._session.slide_in_view
        if slide is not self._slide:
            if self._slide is not None:
                self._slide.pyramid.arrived.disconnect(self._renew)
            self._slide = slide
            if slide is not None:
                slide.pyramid.arrived.connect(self._renew)
                self._renew()
        self._follow()

    def _renew(self) -> None:
        """Show what is decoded now."""
        if self._slide is not None:
            self._picture = pixmap(self._slide.pyramid.coarsest)
            self.update()

    def _follow(self, _: object = None) -> None:
        """Show the frame, if a part of the slide is out of sight."""
        canvas, slide = self._canvas, self._slide
        large = min(canvas.width(), canvas.height()) >= 3 * _SIDE
        if slide is not None:
            height, width = (n * scale for n, scale in zip(slide.layer.data[0].shape, slide.layer.scale, strict=False))
            longer = max(height, width)
            self.resize(max(1, round(_SIDE * width / longer)), max(1, round(_SIDE * height / longer)))
            self.move(canvas.width() - self.width() - _MARGIN, _MARGIN)
        whole = QRectF(self.rect())
        self.setVisible(self._wanted and large and slide is not None and not self.frame.contains(whole))
        self.update()

    def _switch(self) -> None:
        self._wanted = not self._wanted
        self._follow()

    def _move_view(self, event: QMouseEvent | None) -> None:
        if event is None or self._slide is None or not event.buttons() & Qt.MouseButton.LeftButton:
            return
        (height, width, _), (dy, dx) = self._slide.layer.data[0].shape, self._slide.layer.scale
        place = event.position()
        x, y = place.x() / self.width() * width, place.y() / self.height() * height
        self._camera.center = ((y - 0.5) * dy, (x - 0.5) * dx)  # the origin is the centre of the first pixel

    def _place(self, world: QPointF) -> QPointF:
        """Return the place on the overview of a place in the units of the viewer."""
        if self._slide is None:
            return QPointF()
        (height, width, _), (dy, dx) = self._slide.layer.data[0].shape, self._slide.layer.scale
        return QPointF(
            (world.x() / dx + 0.5) / width * self.width(),
            (world.y() / dy + 0.5) / height * self.height(),
        )
