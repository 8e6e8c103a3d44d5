"""The titles and colours in which classes are shown, such as *adenocarcinoma* for the class ``lung_aca``."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from psygnal import Signal

from napari_pbip.errors import DataError
from napari_pbip.gui.state.history import History
from napari_pbip.results.areas import NOT_ANALYSED_NAME
from napari_pbip.taxonomy import UNASSIGNED_NAME, ClassDisplay, Taxonomy, class_name


class ShownClasses:
    """The titles and colours that the user gave classes in the project, by their names."""

    changed = Signal()
    """Emitted when titles or colours have changed."""
    recoloured = Signal(str, str)
    """Emitted with the name of a class and its colour when the user gives it another one. What is changed with it is
    undone with it."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._display = ClassDisplay()

    @property
    def display(self) -> ClassDisplay:
        """The titles and colours. Setting them is no step that can be undone."""
        return self._display

    @display.setter
    def display(self, display: ClassDisplay) -> None:
        if display != self._display:
            self._display = display
            self.changed.emit()

    def title(self, name: str) -> str:
        """Return what the window calls a class: its title, or its name if it has none."""
        return self._display.title(name)

    def coloured(self, taxonomy: Taxonomy) -> Taxonomy:
        """Return classes, of a model or of labelled tiles, by their names in the colours in which they are shown."""
        return taxonomy.in_colours(self._display.colours)

    def give(self, name: str, title: str, classes: Iterable[str]) -> None:
        """Give a class a title; an empty one, or the name itself, takes the title away.

        Raises
        ------
        DataError
            If the title is a name or title of another one of these classes, or of tissue without a class.
        """
        title, others = class_name(title), [one for one in classes if one != name]
        if title in (UNASSIGNED_NAME, NOT_ANALYSED_NAME):
            raise DataError(f"Tissue without a class is called {title}; choose another title for {name}.")
        if title in (*others, *map(self.title, others)):
            raise DataError(f"Another class is called {title}; choose another title for {name}.")
        titles = {one: given for one, given in self._display.titles.items() if one != name}
        if title not in ("", name):
            titles[name] = title
        self._change(self._display.model_copy(update={"titles": titles}), "title")

    def recolour(self, name: str, colour: str) -> None:
        """Show a class in a colour, ``#RRGGBB``."""
        colour = colour.upper()
        colours = {**self._display.colours, name: colour}
        with self._history.together("colour"):
            self._change(self._display.model_copy(update={"colours": colours}), "colour")
            self.recoloured.emit(name, colour)

    def _change(self, after: ClassDisplay, what: str) -> None:
        before = self._display
        if after != before:
            self.display = after
            undo, redo = (partial(setattr, self, "display", value) for value in (before, after))
            self._history.push(what, undo, redo, about=self)
