"""The colour of a class as a small square, with its name for screen readers and the colour-blind."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QColorDialog, QLabel, QToolButton, QWidget

from napari_pbip.gui.pixmaps import square
from napari_pbip.gui.widgets.words import tip

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


class SwatchButton(QToolButton):
    """A square of the colour of a class, RGB in 0..255, which opens a dialog in which the colour is changed.

    Parameters
    ----------
    rgb
        The colour.
    name
        What the window calls the class.
    changed
        Called with the new colour ``#RRGGBB``.
    """

    def __init__(self, rgb: tuple[int, int, int], name: str, changed: Callable[[str], object]) -> None:
        super().__init__()
        colour = QColor(*rgb)
        self.setAutoRaise(True)
        self.setIcon(QIcon(swatch(colour)))
        self.setIconSize(QSize(_SIDE, _SIDE))
        self.setToolTip(tip(f"Change the colour of {name}"))
        self.setAccessibleName(f"colour of {name}")
        self.clicked.connect(lambda: ask_colour(self, name, colour.name(), changed))


def ask_colour(parent: QWidget, name: str, colour: str, changed: Callable[[str], object]) -> None:
    """Ask for the colour of a class in a dialog that does not block the window.

    Parameters
    ----------
    parent
        Qt parent of the dialog.
    name
        What the window calls the class.
    colour
        Its present colour, ``#RRGGBB``.
    changed
        Called with another colour, if one is chosen.
    """
    dialog = QColorDialog(QColor(colour), parent)
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    dialog.setWindowTitle(f"Colour of {name}")

    def choose(chosen: QColor) -> None:
        if chosen != QColor(colour):
            changed(chosen.name())

    dialog.colorSelected.connect(choose)
    dialog.open()
