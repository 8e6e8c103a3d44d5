"""The titles under which the window shows classes, such as *adenocarcinoma* for the class ``lung_aca`` of a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from psygnal import Signal

from napari_pbip.errors import DataError
from napari_pbip.gui.state.history import History
from napari_pbip.taxonomy import class_name


class Titles:
    """The titles of classes, by their names. Everything on disk has the names: a title is of the window only."""

    changed = Signal()
    """Emitted when titles have changed."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._given: Mapping[str, str] = {}

    def __call__(self, name: str) -> str:
        """Return what the window calls a class: its title, or its name if it has none."""
        return self._given.get(name, name)

    @property
    def given(self) -> Mapping[str, str]:
        """The titles by name. Setting them is no step that can be undone."""
        return self._given

    @given.setter
    def given(self, given: Mapping[str, str]) -> None:
        if given != self._given:
            self._given = given
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
        before = self._given
        after = {one: given for one, given in before.items() if one != name}
        if title not in ("", name):
            after[name] = title
        if after != before:
            self.given = after
            undo, redo = (partial(setattr, self, "given", given) for given in (before, after))
            self._history.push("title", undo, redo, about=self)
