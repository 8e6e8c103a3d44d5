"""Results of a comparison: metrics of each run, their mean and deviation over seeds, and paired t-tests.

Each choice is tested against the choice with the best mean mIoU and against the second best, with a paired, two-sided
t-test over the seeds that both were trained with. With few seeds, only large differences are significant.
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
from napari_pbip.results.metrics import MEASURES, PROTOCOLS

_SAME = 1e-9  # if all differences of percentages are this close to each other, a t-test is not defined


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run of a comparison: its metrics, or why it has none."""

    choices: tuple[str, ...]
    """Name of the run's choice on each axis."""
    seed: int
    figures: Mapping[str, Any] | None = None
    """``protocols``, ``confusion`` and ``classes`` of the evaluation, with ``seconds_per_step`` and ``parameters``;
    None if the run has not ended or has failed."""
    error: str = ""
    """Message of the error if the run failed."""

    def figure(self, protocol: str, measure: str) -> float | None:
        """Return a metric in percent, or None if there is none."""
        found: float | None = self._report(protocol).get(measure)
        return found

    def of_class(self, protocol: str, name: str) -> float | None:
        """Return the IoU of a class in percent, or None if there is none."""
        found: float | None = self._report(protocol).get("per_class", {}).get(name, {}).get("iou")
        return found

    def _report(self, protocol: str) -> Mapping[str, Any]:
        """Return what is known under a protocol; comparisons of earlier versions lack some protocols and measures."""
        report: Mapping[str, Any] = {} if self.figures is None else self.figures["protocols"].get(protocol, {})
        return report


@dataclass(frozen=True, slots=True)
class Spread:
    """The mean and sample standard deviation (None for a single value) of a metric over seeds."""

    mean: float
    deviation: float | None

    @classmethod
    def from_values(cls, values: Sequence[float | None]) -> Spread | None:
        """Return the spread of the values that are not None, or None if all are."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        return cls(float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None)

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + ("" if self.deviation is None else f" ± {self.deviation:.2f}")


@dataclass(frozen=True, slots=True)
class Choice:
    """The runs, one per seed, of one combination of choices."""

    names: tuple[str, ...]
    runs: tuple[RunResult, ...]

    @property
    def done(self) -> list[RunResult]:
        """The runs that have metrics."""
        return [run for run in self.runs if run.figures is not None]

    def spread(self, protocol: str, measure: str) -> Spread | None:
        """Return the spread of a metric over the seeds."""
        return Spread.from_values([run.figure(protocol, measure) for run in self.done])

    def class_spread(self, protocol: str, name: str) -> Spread | None:
        """Return the spread of a class's IoU over the seeds."""
        return Spread.from_values([run.of_class(protocol, name) for run in self.done])

    def mean(self, fact: str) -> float | None:
        """Return the mean of ``seconds_per_step`` or ``parameters`` over the seeds."""
        spread = Spread.from_values([run.figures[fact] for run in self.done if run.figures is not None])
        return None if spread is None else spread.mean

    def confusion(self, protocol: str) -> npt.NDArray[np.int64] | None:
        """Return the confusion matrix summed over the seeds, (N, N + 1): true class, predicted class or none."""
        found = [run.figures["confusion"].get(protocol) for run in self.done if run.figures is not None]
        matrices = [matrix for matrix in found if matrix is not None]
        return np.sum(matrices, 0, dtype=np.int64) if matrices else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All runs of a comparison, in the order of its tables."""

    axes: tuple[str, ...]
    runs: tuple[RunResult, ...]

    @property
    def choices(self) -> list[Choice]:
        """The combinations of choices, which are the rows of the table."""
        grouped: dict[tuple[str, ...], list[RunResult]] = {}
        for run in self.runs:
            grouped.setdefault(run.choices, []).append(run)
        return [Choice(names, tuple(runs)) for names, runs in grouped.items()]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; empty until a run has metrics."""
        return next((tuple(run.figures["classes"]) for run in self.runs if run.figures is not None), ())

    def ranking(self, protocol: str) -> list[Choice]:
        """Return the choices that have metrics, the best mean mIoU first."""
        means = [(choice.spread(protocol, "miou"), choice) for choice in self.choices]
        known = [(spread.mean, choice) for spread, choice in means if spread is not None]
        return [choice for _, choice in sorted(known, key=lambda pair: -pair[0])]

    def p_values(self, protocol: str, choice: Choice) -> tuple[float | None, float | None]:
        """Return the p-values of the differences in mIoU from the best and from the second best choice."""
        best, second = (*self.ranking(protocol), None, None)[:2]
        return paired_t_test(protocol, choice, best), paired_t_test(protocol, choice, second)


def paired_t_test(protocol: str, one: Choice, other: Choice | None) -> float | None:
    """Return the p-value of the difference in mIoU over common seeds; None below two seeds or without any spread."""
    if other is None or one.names == other.names:
        return None
    first, second = ({run.seed: run.figure(protocol, "miou") for run in choice.done} for choice in (one, other))
    pairs = [(first[seed], second[seed]) for seed in first if seed in second]
    known = np.array([pair for pair in pairs if None not in pair], np.float64).reshape(-1, 2)
    if len(known) < 2 or np.ptp(known[:, 0] - known[:, 1]) < _SAME:
        return None
    return float(ttest_rel(known[:, 0], known[:, 1]).pvalue)


def write_results(path: Path, comparison: Comparison) -> None:
    """Write a CSV file with a row per run: choices, seed, metrics of both protocols, time, parameters and error."""
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
    """Write a CSV file with a row per choice: mean and deviation of each metric over the seeds, and p-values."""
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
