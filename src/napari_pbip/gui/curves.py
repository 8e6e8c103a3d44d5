"""The losses and scores of a training: as it runs, and as they are saved in its folder."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_pbip.events import Epoch, Event, Step

POINTS = 2000
"""Largest number of points that are drawn of a line, about one per pixel of a wide screen."""
Line = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Steps and values."""


class Curves:
    """The losses and scores of a training. Adding to them takes constant time."""

    def __init__(self) -> None:
        self._steps = array("d")
        self._terms: dict[str, array[float]] = {}
        self._scores: dict[str, tuple[array[float], array[float]]] = {}

    @classmethod
    def from_run(cls, rows: Sequence[Mapping[str, float]], validations: Sequence[Mapping[str, Any]]) -> Curves:
        """Return the curves on disk, from the rows of ``curves.csv`` and the validations in ``run.json``."""
        curves = cls()
        for row in rows:
            curves._add_step(row["step"], {n: v for n, v in row.items() if n not in ("step", "learning_rate")})
        for validation in validations:
            scores = {p: figures["miou"] for p, figures in validation.items() if isinstance(figures, Mapping)}
            curves._add_scores(validation["step"], scores)
        return curves

    def add(self, events: Sequence[Event]) -> bool:
        """Append the events of a training; return whether any of them is drawn."""
        grew = False
        for event in events:
            if isinstance(event, Step) and "loss" in event.values:
                self._add_step(event.done, event.values)
                grew = True
            elif isinstance(event, Epoch) and event.scores and self._steps:
                scores = {n.removesuffix("/miou"): v for n, v in event.scores.items() if n.endswith("/miou")}
                self._add_scores(self._steps[-1], scores)
                grew = True
        return grew

    def _add_step(self, step: float, terms: Mapping[str, float]) -> None:
        for name in terms.keys() - self._terms.keys():
            self._terms[name] = array("d", [np.nan]) * len(self._steps)
        self._steps.append(step)
        for name, values in self._terms.items():
            values.append(terms.get(name, np.nan))

    def _add_scores(self, step: float, scores: Mapping[str, float]) -> None:
        for name, value in scores.items():
            steps, values = self._scores.setdefault(name, (array("d"), array("d")))
            steps.append(step)
            values.append(value)

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def terms(self) -> Iterator[tuple[str, Line]]:
        """Yield the name and line of the loss and of each of its terms."""
        steps = np.array(self._steps)
        for name in sorted(self._terms, key=lambda name: (name != "loss", name)):
            yield name, (steps, np.array(self._terms[name]))

    @property
    def scores(self) -> Iterator[tuple[str, Line]]:
        """Yield name and line of the validation mIoU in percent, with the true (oracle) and the predicted classes."""
        for name in sorted(self._scores, reverse=True):
            steps, values = self._scores[name]
            yield name, (np.array(steps), np.array(values))


def thinned(line: Line, points: int = POINTS) -> Line:
    """Return a line of at most ``points`` points that looks the same: the lowest and highest value of each interval."""
    steps, values = line
    stretch = -(-len(steps) // (points // 2))
    if len(steps) <= points:
        return line
    whole = len(steps) // stretch * stretch
    rows = values[:whole].reshape(-1, stretch)
    first = np.arange(0, whole, stretch)
    both = np.stack([first + _arg(rows, -1), first + _arg(rows, 1)], 1)
    kept = np.concatenate([np.sort(both, 1).ravel(), np.arange(whole, len(steps))])
    return steps[kept], values[kept]


def _arg(rows: npt.NDArray[np.float64], sign: int) -> npt.NDArray[np.intp]:
    """Return the column of the largest (sign 1) or smallest (-1) value of each row, ignoring NaN."""
    places: npt.NDArray[np.intp] = np.where(np.isnan(rows), -np.inf, sign * rows).argmax(1)
    return places
