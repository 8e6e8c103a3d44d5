"""The colour of a class as a small square, and its name for those who do not tell colours apart."""

from __future__ import annotations

from qtpy.QtGui import QColor, QPixmap
from qtpy.QtWidgets import QLabel, QWidget

_SIDE = 14


class Swatch(QLabel):
    """A square of a colour, RGB in 0..255."""

    def __init__(self, rgb: tuple[int, int, int], name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        picture = QPixmap(_SIDE, _SIDE)
        picture.fill(QColor(*rgb))
        self.setPixmap(picture)
        self.setFixedSize(_SIDE, _SIDE)
        self.setAccessibleName(f"colour of {name}")
