"""The colour of a class as a small square, with its name for screen readers and the colour-blind."""

from __future__ import annotations

from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QLabel

from napari_pbip.gui.pixmaps import square

_SIDE = 14


def swatch(colour: QColor | str) -> QPixmap:
    """Return a small square of a colour (``#RRGGBB``)."""
    return square(colour, _SIDE)


def square_icon(colour: QColor | str) -> QIcon:
    """Return an icon of a colour that is not tinted in a selected row."""
    icon = QIcon(swatch(colour))
    icon.addPixmap(swatch(colour), QIcon.Mode.Selected)
    return icon


class Swatch(QLabel):
    """A square of a colour, RGB in 0..255."""

    def __init__(self, rgb: tuple[int, int, int], name: str) -> None:
        super().__init__()
        self.setPixmap(swatch(QColor(*rgb)))
        self.setFixedSize(_SIDE, _SIDE)
        self.setAccessibleName(f"colour of {name}")
