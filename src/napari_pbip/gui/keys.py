"""The one table of the keys of the window, shown as *Keys…* in the workflow panel and in the documentation."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, StrEnum

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QWidget


class Place(StrEnum):
    """Where keys work."""

    WINDOW = "Everywhere in the window"
    SLIDE = "On the slide, while tiles are labelled"
    CLASSES = "In the table of the classes"
    CORRECTIONS = "In the corrections of the image bank"


class Key(Enum):
    """Keys and what they do; a single key never acts where somebody types, in a text field or to find an entry."""

    LABEL_TILES = "G", "Label tiles on or off: the grid of tiles", Place.WINDOW
    WHY = "W", "Why? on or off: a click on the map explains it", Place.WINDOW
    MAP = "H", "Hide or show the map; held down, only until the key is released", Place.WINDOW
    OVERVIEW = "Q", "Hide or show the overview of the slide, which is there while a part is out of sight", Place.WINDOW
    NEXT_SLIDE = "N", "Next slide of the project", Place.WINDOW
    PREVIOUS_SLIDE = "Shift+N", "Previous slide of the project", Place.WINDOW
    NEXT_STEP = "Ctrl+PgDown", "Next step of the workflow panel", Place.WINDOW
    PREVIOUS_STEP = "Ctrl+PgUp", "Previous step of the workflow panel", Place.WINDOW
    UNDO = (
        "Ctrl+Z",
        "Undo the last change; in any dock with this button, and on the slide while labelling",
        Place.WINDOW,
    )
    REDO = "Ctrl+Shift+Z", "Redo the change that was undone; where Undo works", Place.WINDOW
    CLASS = "1 to 9", "Give the suggested tile, or the one under the mouse, this class", Place.SLIDE
    ADD_CLASS = "Shift+1 to Shift+9", "Give it this class in addition to those it has", Place.SLIDE
    NO_CLASS = "Delete or 0", "Remove the labels of the tile under the mouse", Place.SLIDE
    SKIP = "K", "Go on to the next suggested tile; without a label, this one is skipped", Place.SLIDE
    STOP = "Esc", "Show no more suggested tiles", Place.SLIDE
    RENAME = "F2", "Rename the selected class", Place.CLASSES
    REMOVE_TILES = "Del", "Take the selected tiles out of the bank", Place.CORRECTIONS
    MOVE_TILES = "M", "Move the selected tiles to another class", Place.CORRECTIONS

    def __init__(self, keys: str, does: str, place: Place) -> None:
        self.keys, self.does, self.place = keys, does, place


def bind(key: Key, widget: QWidget, act: Callable[[], object], *, inside: bool = False) -> None:
    """Call a function when keys are pressed in the window of a widget, or only while the focus is inside the widget."""
    shortcut = QShortcut(QKeySequence(key.keys), widget)
    shortcut.setAutoRepeat(False)
    if inside:
        shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
    shortcut.activated.connect(act)  # Qt keeps methods weakly, so that they do not keep a closed window
