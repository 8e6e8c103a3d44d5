"""The colour of a class as a small square, and its name for those who do not tell colours apart."""

from __future__ import annotations

from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QLabel

_SIDE = 14


def square(colour: QColor | str) -> QPixmap:
    """A square of a colour (``#RRGGBB``)."""
    picture = QPixmap(_SIDE, _SIDE)
    picture.fill(QColor(colour))
    return picture


def square_icon(colour: QColor | str) -> QIcon:
    """A square of a colour that stays the same in a selected row."""
    icon = QIcon(square(colour))
    icon.addPixmap(square(colour), QIcon.Mode.Selected)
    return icon


class Swatch(QLabel):
    """A square of a colour, RGB in 0..255."""

    def __init__(self, rgb: tuple[int, int, int], name: str) -> None:
        super().__init__()
        self.setPixmap(square(QColor(*rgb)))
        self.setFixedSize(_SIDE, _SIDE)
        self.setAccessibleName(f"colour of {name}")
