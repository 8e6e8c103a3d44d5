"""The titles and colours in which the window shows classes, such as *adenocarcinoma* for the class ``lung_aca``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Literal

from psygnal import Signal

from napari_pbip.errors import DataError
from napari_pbip.gui.state.history import History
from napari_pbip.taxonomy import Taxonomy, class_name


class Titles:
    """The titles and colours that the user gave classes, by their names.

    They are of the window only. Everything on disk has the names of classes, and the colours that they had where they
    were labelled.
    """

    changed = Signal()
    """Emitted when titles or colours have changed."""
    recoloured = Signal(str, str)
    """Emitted with the name of a class and its colour when the user gives it another one. What is changed with it is
    undone with it."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._given: Mapping[str, str] = {}
        self._colours: Mapping[str, str] = {}

    def __call__(self, name: str) -> str:
        """Return what the window calls a class: its title, or its name if it has none."""
        return self._given.get(name, name)

    def coloured(self, taxonomy: Taxonomy) -> Taxonomy:
        """Return classes, of a model or of labelled tiles, in the colours in which the window shows them."""
        return taxonomy.in_colours(self._colours)

    @property
    def given(self) -> Mapping[str, str]:
        """The titles by name. Setting them is no step that can be undone."""
        return self._given

    @given.setter
    def given(self, given: Mapping[str, str]) -> None:
        if given != self._given:
            self._given = given
            self.changed.emit()

    @property
    def colours(self) -> Mapping[str, str]:
        """The colours ``#RRGGBB`` by name. Setting them is no step that can be undone."""
        return self._colours

    @colours.setter
    def colours(self, colours: Mapping[str, str]) -> None:
        if colours != self._colours:
            self._colours = colours
            self.changed.emit()

    def give(self, name: str, title: str, classes: Iterable[str]) -> None:
        """Give a class a title; an empty one, or the name itself, takes the title away.

        Raises
        ------
        DataError
            If the title is a name or title of another one of these classes.
        """
        title, others = class_name(title), [one for one in classes if one != name]
        if title in (*others, *map(self, others)):
            raise DataError(f"Another class is called {title}; choose another title for {name}.")
        after = {one: given for one, given in self._given.items() if one != name}
        if title not in ("", name):
            after[name] = title
        self._change("given", after, "title")

    def recolour(self, name: str, colour: str) -> None:
        """Show a class in a colour, ``#RRGGBB``."""
        colour = colour.upper()
        with self._history.together("colour"):
            self._change("colours", {**self._colours, name: colour}, "colour")
            self.recoloured.emit(name, colour)

    def _change(self, which: Literal["given", "colours"], after: Mapping[str, str], what: str) -> None:
        before = getattr(self, which)
        if after != before:
            setattr(self, which, after)
            undo, redo = (partial(setattr, self, which, value) for value in (before, after))
            self._history.push(what, undo, redo, about=self)
