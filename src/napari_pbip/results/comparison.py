"""What a comparison found: figures of each run, their mean and deviation over seeds, and paired t-tests.

Differences between choices are tested over the seeds that both were trained with (paired, two-sided t-test): against
the choice with the best mean mIoU, and against the second best. With few seeds only large differences come out as such.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import ttest_rel

from napari_pbip.files import writing
from napari_pbip.results.metrics import PROTOCOLS

MEASURES = ("miou", "fwiou", "biou", "dice")
_SAME = 1e-9  # differences of percentages that all are this close to each other have no spread to test with


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run: what it found, or why it found nothing."""

    choices: tuple[str, ...]
    """The choice on each axis."""
    seed: int
    figures: Mapping[str, Any] | None = None
    """``protocols``, ``confusion`` and ``classes`` as the evaluation gives them, with ``seconds_per_step`` and
    ``parameters``; None if there are none (yet)."""
    error: str = ""
    """Why there are none, if something went wrong."""

    def figure(self, protocol: str, measure: str) -> float | None:
        """A figure in percent."""
        return None if self.figures is None else self.figures["protocols"][protocol][measure]

    def of_class(self, protocol: str, name: str) -> float | None:
        """IoU of a class in percent."""
        return None if self.figures is None else self.figures["protocols"][protocol]["per_class"][name]["iou"]


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and sample standard deviation (None with one value) of some figures."""

    mean: float
    deviation: float | None

    @classmethod
    def from_values(cls, values: Sequence[float | None]) -> Spread | None:
        """Of the values there are; None without any."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        return cls(float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None)

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + ("" if self.deviation is None else f" ± {self.deviation:.2f}")


@dataclass(frozen=True, slots=True)
class Choice:
    """All runs of one choice on each axis."""

    names: tuple[str, ...]
    runs: tuple[RunResult, ...]

    @property
    def done(self) -> list[RunResult]:
        """The runs that have figures."""
        return [run for run in self.runs if run.figures is not None]

    def spread(self, protocol: str, measure: str) -> Spread | None:
        """A figure over the seeds."""
        return Spread.from_values([run.figure(protocol, measure) for run in self.done])

    def class_spread(self, protocol: str, name: str) -> Spread | None:
        """IoU of a class over the seeds."""
        return Spread.from_values([run.of_class(protocol, name) for run in self.done])

    def mean(self, fact: str) -> float | None:
        """Mean of ``seconds_per_step`` or ``parameters``."""
        spread = Spread.from_values([run.figures[fact] for run in self.done if run.figures is not None])
        return None if spread is None else spread.mean

    def confusion(self, protocol: str) -> npt.NDArray[np.int64] | None:
        """Pixels of (true class, predicted class or none) of all seeds together, (N, N + 1)."""
        matrices = [run.figures["confusion"][protocol] for run in self.done if run.figures is not None]
        return np.sum(matrices, 0, dtype=np.int64) if matrices else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All runs, in the order in which they are to be read."""

    axes: tuple[str, ...]
    runs: tuple[RunResult, ...]

    @property
    def choices(self) -> list[Choice]:
        """The rows of the table."""
        grouped: dict[tuple[str, ...], list[RunResult]] = {}
        for run in self.runs:
            grouped.setdefault(run.choices, []).append(run)
        return [Choice(names, tuple(runs)) for names, runs in grouped.items()]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, as far as a run has told them."""
        return next((tuple(run.figures["classes"]) for run in self.runs if run.figures is not None), ())

    def ranking(self, protocol: str) -> list[Choice]:
        """The choices that have figures, the best mean mIoU first."""
        means = [(choice.spread(protocol, "miou"), choice) for choice in self.choices]
        known = [(spread.mean, choice) for spread, choice in means if spread is not None]
        return [choice for _, choice in sorted(known, key=lambda pair: -pair[0])]

    def p_values(self, protocol: str, choice: Choice) -> tuple[float | None, float | None]:
        """Probability that chance makes such a difference in mIoU from the best and from the second best choice."""
        best, second = (*self.ranking(protocol), None, None)[:2]
        return paired_t_test(protocol, choice, best), paired_t_test(protocol, choice, second)


def paired_t_test(protocol: str, one: Choice, other: Choice | None) -> float | None:
    """The p-value of the difference in mIoU over the seeds of both; None with fewer than two, or no spread at all."""
    if other is None or one.names == other.names:
        return None
    first, second = ({run.seed: run.figure(protocol, "miou") for run in choice.done} for choice in (one, other))
    pairs = [(first[seed], second[seed]) for seed in first if seed in second]
    known = np.array([pair for pair in pairs if None not in pair], np.float64).reshape(-1, 2)
    if len(known) < 2 or np.ptp(known[:, 0] - known[:, 1]) < _SAME:
        return None
    return float(ttest_rel(known[:, 0], known[:, 1]).pvalue)


def write_results(path: Path, comparison: Comparison) -> None:
    """Write a CSV file, a row a run: choices, seed, figures of both protocols, time, parameters, what went wrong."""
    rows = []
    for run in comparison.runs:
        row: dict[str, Any] = dict(zip(comparison.axes, run.choices, strict=True)) | {"seed": run.seed}
        for protocol in PROTOCOLS:
            row |= {f"{protocol}_{measure}": run.figure(protocol, measure) for measure in MEASURES}
            row |= {f"{protocol}_iou_{name}": run.of_class(protocol, name) for name in comparison.classes}
        facts = run.figures or {}
        row |= {fact: facts.get(fact) for fact in ("seconds_per_step", "parameters")} | {"error": run.error}
        rows.append(row)
    _write(path, rows)


def write_table(path: Path, comparison: Comparison) -> None:
    """Write a CSV file, a row a choice: mean and deviation of each figure over the seeds, and p-values."""
    rows = []
    for choice in comparison.choices:
        row: dict[str, Any] = dict(zip(comparison.axes, choice.names, strict=True)) | {"seeds": len(choice.done)}
        for protocol in PROTOCOLS:
            for measure in MEASURES:
                spread = choice.spread(protocol, measure)
                row[f"{protocol}_{measure}"] = spread and spread.mean
                row[f"{protocol}_{measure}_deviation"] = spread and spread.deviation
            best, second = comparison.p_values(protocol, choice)
            row |= {f"{protocol}_p_best": best, f"{protocol}_p_second": second}
        row |= {fact: choice.mean(fact) for fact in ("seconds_per_step", "parameters")}
        rows.append(row)
    _write(path, rows)


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with writing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
