"""One history of all that the user changes by hand: labels, bank, thresholds, tissue, regions, maps, slides."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from psygnal import Signal

_LONGEST = 200
_ONE_MOVE_S = 1.0
"""Seconds between two changes of one thing that count as one, such as those of a slider that is being moved."""


@dataclass(slots=True, eq=False)
class _Step:
    """A change that was made."""

    what: str
    about: Hashable
    undo: Callable[[], object]
    redo: Callable[[], object]
    when: float


class History:
    """The steps that can be undone, newest first, and those that can be redone."""

    changed = Signal()
    """Emitted when there are other steps."""
    moving = Signal()
    """Emitted before a step is undone or redone, so that a change that waits to be recorded is recorded first."""

    def __init__(self) -> None:
        self._done: list[_Step] = []
        self._undone: list[_Step] = []
        self._busy = False

    def push(
        self,
        what: str,
        undo: Callable[[], object],
        redo: Callable[[], object],
        *,
        about: Hashable,
        merge: bool = False,
    ) -> None:
        """Record a change that was made; ignored while a step is undone or redone.

        Parameters
        ----------
        what
            Name of the change for the user, such as ``labels``.
        undo, redo
            Undo the change, and redo it.
        about
            What was changed, for ``merge`` and :meth:`forget`.
        merge
            Whether changes of this that follow at once count as one.
        """
        if self._busy:
            return
        now, last = time.monotonic(), self._done[-1] if self._done else None
        if merge and last is not None and last.about == about and now - last.when < _ONE_MOVE_S:
            last.redo, last.when = redo, now
        else:
            self._done = [*self._done, _Step(what, about, undo, redo, now)][-_LONGEST:]
        self._undone.clear()
        self.changed.emit()

    @contextmanager
    def together(self, what: str) -> Iterator[None]:
        """Make one step, with this name, of all changes that are recorded meanwhile."""
        before = self._done
        yield
        steps = [step for step in self._done if step not in before]
        if len(steps) > 1:
            self._done = [step for step in self._done if step in before]
            undo, redo = [step.undo for step in reversed(steps)], [step.redo for step in steps]
            self.push(what, partial(_call, undo), partial(_call, redo), about=steps[-1].about)

    @property
    def last(self) -> str:
        """Name of the change that :meth:`undo` undoes; empty if there is nothing."""
        return self._done[-1].what if self._done else ""

    @property
    def next(self) -> str:
        """Name of the change that :meth:`redo` redoes; empty if there is nothing."""
        return self._undone[-1].what if self._undone else ""

    def undo(self) -> None:
        """Undo the last change."""
        self._move(undone=True)

    def redo(self) -> None:
        """Redo the last change that was undone."""
        self._move(undone=False)

    def forget(self, about: Hashable) -> None:
        """Forget the changes of one thing, which cannot be undone any more."""
        self._done = [step for step in self._done if step.about != about]
        self._undone = [step for step in self._undone if step.about != about]
        self.changed.emit()

    def clear(self) -> None:
        """Forget all changes."""
        self._done, self._undone = [], []
        self.changed.emit()

    def _move(self, *, undone: bool) -> None:
        if self._busy:
            return
        self.moving.emit()
        source, target = (self._done, self._undone) if undone else (self._undone, self._done)
        if not source:
            return
        step = source.pop()
        step.when = float("-inf")  # what follows is a change of its own
        target.append(step)
        self._busy = True
        try:
            (step.undo if undone else step.redo)()
        finally:
            self._busy = False
            self.changed.emit()


def _call(these: Iterable[Callable[[], object]]) -> None:
    for one in these:
        one()
