"""The tool that labels tiles with mouse and keys on the canvas."""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtGui import QKeyEvent, QKeySequence, QMouseEvent
from qtpy.QtWidgets import QApplication, QWidget

from napari_pbip.gui.clicks import is_drag
from napari_pbip.gui.connections import listen
from napari_pbip.gui.layers.region_to_label import RegionToLabel
from napari_pbip.gui.qt_events import as_key, as_mouse
from napari_pbip.gui.state.labelling import Labelling
from napari_pbip.gui.state.suggestions import Suggestions
from napari_pbip.slides import Position

if TYPE_CHECKING:
    from napari.viewer import ViewerModel

_REMOVING = (Qt.Key.Key_0, Qt.Key.Key_Delete, Qt.Key.Key_Backspace)
_MAC_DIGITS = {18: 1, 19: 2, 20: 3, 21: 4, 23: 5, 22: 6, 26: 7, 28: 8, 25: 9, 29: 0}


class LabelTool(QObject):
    """The tool for labels: a click labels a tile, a rectangle many tiles, a number key the tile under the mouse.

    While tiles are suggested, the number keys are for the suggested tile, wherever the mouse is.

    The tile under the mouse is outlined in the colour of the class that a click would give it. While regions are drawn,
    labels go to all tiles in a region: as soon as it is drawn, and by keys until the next one is.

    Mouse events come from napari's callbacks, which know the position on the slide. Keys are filtered before napari
    handles them, because napari's layers use the number keys for other things.

    Attributes
    ----------
    rectangles
        Whether dragging without Shift draws rectangles; it moves the view otherwise.
    """

    class_chosen = Signal(int)
    """Emitted when another class was chosen with its number key."""
    region_labelled = Signal(int)
    """Emitted with the number of tiles in a region that was drawn."""
    region_ended = Signal()
    """Emitted when no more regions can be drawn, because the slide, the grid or the selected layer is another one."""

    def __init__(self, viewer: ViewerModel, labelling: Labelling, suggestions: Suggestions, parent: QWidget) -> None:
        super().__init__(parent)
        self._chosen = 0
        self.rectangles = False
        self._viewer = viewer
        self._labelling = labelling
        self._suggestions = suggestions
        self._canvas = viewer.window._qt_viewer.canvas.native
        self._on = False
        self._region: RegionToLabel | None = None
        listen(parent, (suggestions.changed, self._outline))

    @property
    def chosen(self) -> int:
        """Index of the class that is used for labels."""
        return self._chosen

    @chosen.setter
    def chosen(self, chosen: int) -> None:
        self._chosen = chosen
        self._outline()

    @property
    def on(self) -> bool:
        return self._on

    @on.setter
    def on(self, on: bool) -> None:
        if on == self._on:
            return
        self._on = on
        self._labelling.lines = on
        if on:
            self._viewer.mouse_drag_callbacks.append(self._on_drag)
            self._viewer.mouse_move_callbacks.append(self._outline)
            self._canvas.installEventFilter(self)
            self._canvas.setFocus()
        else:
            self._viewer.mouse_drag_callbacks.remove(self._on_drag)
            self._viewer.mouse_move_callbacks.remove(self._outline)
            self._canvas.removeEventFilter(self)
        self._outline()

    @property
    def regions(self) -> bool:
        """Whether regions are drawn, with the tools of a layer that is there for it."""
        return self._region is not None

    @regions.setter
    def regions(self, regions: bool) -> None:
        if regions == self.regions:
            return
        if self._region is not None:
            region, self._region = self._region, None
            region.close()
            self._labelling.changed.disconnect(self._on_change)
        elif self._labelling.slide is not None and self._labelling.grid is not None:
            self._region = RegionToLabel(self._viewer, self._labelling.slide, self._labelling.grid)
            self._region.drawn.connect(self._on_region)
            self._region.ended.connect(self.region_ended.emit)
            self._labelling.changed.connect(self._on_change)
            self._canvas.setFocus()
        self._outline()

    # the mouse -----------------------------------------------------------------------------------------------

    def _on_drag(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        grid = self._labelling.grid
        other_use = "Alt" in event.modifiers or "Control" in event.modifiers or self.regions
        if event.button != 1 or other_use or grid is None:
            return
        add = "Shift" in event.modifiers
        rectangle = self.rectangles or add
        start, pressed = self._labelling.place(event.position), event.pos
        event.handled = rectangle  # so that the view does not move
        moved = False
        tiles: list[Position] = []
        yield
        while True:  # on moves and on the release, because the last moves of a fast drag are not reported
            moved = moved or is_drag(pressed, event.pos)
            if rectangle and moved:
                now = grid.within(*start, *self._labelling.place(event.position))
                if now != tiles:
                    tiles = now
                    self._labelling.preview(dict.fromkeys(tiles, frozenset({self.chosen})), add=add)
            if event.type != "mouse_move":
                break
            event.handled = rectangle
            yield
        if not moved:
            place = grid.at(*start)
            tiles = [] if place is None else [place]
        self._give(tiles, self.chosen, add=add)

    def _outline(self, viewer: Any = None, event: Any = None) -> None:
        """Outline the tile that a click would label."""
        shown = self._on and not self.regions and (self._suggestions.tile is not None or self._canvas.underMouse())
        tiles = self._targets() if shown else []
        self._labelling.outline(tiles[0] if tiles else None, self._chosen)

    def _on_region(self) -> None:
        tiles = self._targets()
        self._give(tiles, self._chosen)
        self.region_labelled.emit(len(tiles))

    def _on_change(self) -> None:
        region, labelling = self._region, self._labelling
        if region is not None and (region.slide, region.grid) != (labelling.slide, labelling.grid):
            self.region_ended.emit()

    def _targets(self) -> list[Position]:
        """Return the tiles that keys label: those in the region, the suggested one, or the one under the mouse."""
        if self._region is not None:
            return self._region.tiles
        if (suggested := self._suggestions.tile) is not None:
            slide, position = suggested
            facts = self._labelling.facts
            return [position] if facts is not None and facts.identity == slide.identity else []
        grid = self._labelling.grid
        place = None if grid is None else grid.at(*self._labelling.place(self._viewer.cursor.position))
        return [] if place is None else [place]

    def _give(self, tiles: list[Position], label: int | None, *, add: bool = False) -> None:
        facts = self._labelling.facts
        self._labelling.preview({})
        if facts is not None and tiles:
            self._labelling.labels.label(facts.identity, tiles, () if label is None else (label,), add=add)

    # keys ----------------------------------------------------------------------------------------------------

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        if (key := as_key(event)) is not None and key.type() == QEvent.Type.KeyPress:
            return self._on_key(key)
        mouse = as_mouse(event)
        if mouse is not None and mouse.type() == QEvent.Type.MouseButtonDblClick and not self.regions:
            # a double click labels like two clicks, while napari would zoom in
            press = QMouseEvent(
                QEvent.Type.MouseButtonPress,
                mouse.position(),
                mouse.globalPosition(),
                mouse.button(),
                mouse.buttons(),
                mouse.modifiers(),
            )
            QApplication.sendEvent(self._canvas, press)
            return True
        if event is not None and event.type() == QEvent.Type.Leave:
            self._outline()
        if event is not None and event.type() == QEvent.Type.Enter:
            self._canvas.setFocus()  # so that keys go to the canvas under the mouse
        return False

    def _on_key(self, event: QKeyEvent) -> bool:
        labels = self._labelling.labels
        if event.matches(QKeySequence.StandardKey.Undo):
            self._labelling.undo()
        elif event.matches(QKeySequence.StandardKey.Redo) or _is_redo(event):
            self._labelling.redo()
        elif event.modifiers() & ~(Qt.KeyboardModifier.ShiftModifier | Qt.KeyboardModifier.KeypadModifier):
            return False
        elif event.key() in _REMOVING or digit(event) == 0:
            self._give(self._targets(), None)
        elif (number := digit(event)) is not None and number <= len(labels.taxonomy):
            self.chosen = number - 1
            self.class_chosen.emit(self.chosen)
            add = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
            tiles = self._targets()
            if add:
                self._suggestions.hold()
            self._give(tiles, self.chosen, add=add)
            if not add:
                self._suggestions.go_on()
        elif self._suggestions.tile is not None and event.key() == Qt.Key.Key_K:
            self._suggestions.skip()
        elif self._suggestions.tile is not None and event.key() == Qt.Key.Key_Escape:
            self._suggestions.end()
        else:
            return False
        return True


def _is_redo(event: QKeyEvent) -> bool:
    """Return whether the keys are Ctrl+Shift+Z or the platform's own keys for redo."""
    both = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
    return event.key() == Qt.Key.Key_Z and event.modifiers() == both


def digit(event: QKeyEvent) -> int | None:
    """Return the number key that was pressed, independent of Shift and of the keyboard's layout.

    Shift with the key 1 is "!" on most keyboards, and French ones need Shift for digits. Therefore the position of the
    key counts if the platform reports it.
    """
    if event.key() in range(Qt.Key.Key_0, Qt.Key.Key_9 + 1):
        return event.key() - Qt.Key.Key_0
    if sys.platform == "darwin":
        return _MAC_DIGITS.get(event.nativeVirtualKey()) if event.nativeVirtualKey() else None
    if sys.platform == "win32":
        code = event.nativeVirtualKey() - ord("0")
        return code if 0 <= code <= 9 else None
    code = event.nativeScanCode() - 9  # keys 1 to 9 and 0 are 10 to 19
    return code % 10 if 1 <= code <= 10 else None
