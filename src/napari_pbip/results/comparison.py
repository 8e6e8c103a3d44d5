"""Results of a comparison: metrics of each run, their mean and deviation over seeds, intervals, and paired tests.

Two questions are asked. Would other seeds give the same? Each choice is tested against the choice with the best mean
mIoU and against the second best, with a paired, two-sided t-test over the seeds that both were trained with. With few
seeds, only large differences are significant. Would other images give the same? Intervals and the tests of
:class:`~napari_pbip.results.resampling.PairedTest` against the best choice, whose p-values are corrected for the number
of choices (Holm), are over the images, or their slides.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from scipy.stats import ttest_rel

from napari_pbip.errors import OutputError
from napari_pbip.files import writing
from napari_pbip.results.figures import shown_intervals
from napari_pbip.results.metrics import MEASURES, PROTOCOLS, Counts, SegmentationScores
from napari_pbip.results.resampling import FEWEST, PairedTest, holm, independent_units, interval, resampled

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
    counts: Mapping[str, Counts] = field(default_factory=dict)
    """For each protocol, the counts of each image or slide, (U, 2, N + 1, N + 1); empty if they are not known."""

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

    def interval(self, protocol: str, measure: str) -> tuple[float, float] | None:
        """Return the bootstrap interval, over images or slides, of the mean of a metric over the seeds."""
        counts = self.counts(protocol)
        if counts is None or counts.shape[1] < FEWEST:
            return None
        low, high = interval(resampled(counts), measure).tolist()
        return None if math.isnan(low) else (low, high)

    def counts(self, protocol: str, seeds: Sequence[int] | None = None) -> Counts | None:
        """Return the counts of the runs with these seeds, by default all, (S, U, 2, N + 1, N + 1); None if unknown."""
        found = {run.seed: run.counts.get(protocol) for run in self.done}
        of_seeds = [found[seed] for seed in (found if seeds is None else seeds)]
        known = [counts for counts in of_seeds if counts is not None]
        if not known or len(known) < len(of_seeds) or len({counts.shape for counts in known}) > 1:
            return None
        return np.stack(known)

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

    def tests(self, protocol: str) -> list[PairedTest | None]:
        """Return the test of each choice's mIoU against that of the best, over images or slides; p-values after Holm.

        It is None for the best, and for choices without counts of the same images with a common seed.
        """
        best = next(iter(self.ranking(protocol)), None)
        found = [None if best is None else _paired_test(protocol, choice, best) for choice in self.choices]
        permutation = holm([None if test is None else test.permutation for test in found])
        wilcoxon = holm([None if test is None else test.wilcoxon for test in found])
        return [
            None if test is None or p is None or q is None else replace(test, permutation=p, wilcoxon=q)
            for test, p, q in zip(found, permutation, wilcoxon, strict=True)
        ]


def _paired_test(protocol: str, choice: Choice, best: Choice) -> PairedTest | None:
    seeds = [run.seed for run in choice.done if any(other.seed == run.seed for other in best.done)]
    if choice.names == best.names or not seeds:
        return None
    one, other = choice.counts(protocol, seeds), best.counts(protocol, seeds)
    return None if one is None or other is None or one.shape != other.shape else PairedTest.between(one, other)


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
    """Write a CSV file with a row per run: choices, seed, metrics and their intervals, time, parameters and error."""
    rows = []
    for run in comparison.runs:
        row: dict[str, Any] = dict(zip(comparison.axes, run.choices, strict=True)) | {"seed": run.seed}
        for protocol in PROTOCOLS:
            report = {} if run.figures is None else run.figures["protocols"].get(protocol, {})
            for measure in MEASURES:
                row[f"{protocol}_{measure}"] = run.figure(protocol, measure)
                row |= _ends(f"{protocol}_{measure}", shown_intervals(report).get(measure))
            row |= {f"{protocol}_iou_{name}": run.of_class(protocol, name) for name in comparison.classes}
        facts = run.figures or {}
        row |= {fact: facts.get(fact) for fact in ("seconds_per_step", "parameters")} | {"error": run.error}
        rows.append(row)
    _write(path, rows)


def write_table(path: Path, comparison: Comparison) -> None:
    """Write a CSV file with a row per choice: mean, deviation and interval of each metric, and tests of the mIoU."""
    rows = []
    tests = {protocol: comparison.tests(protocol) for protocol in PROTOCOLS}
    for n, choice in enumerate(comparison.choices):
        row: dict[str, Any] = dict(zip(comparison.axes, choice.names, strict=True)) | {"seeds": len(choice.done)}
        for protocol in PROTOCOLS:
            for measure in MEASURES:
                spread = choice.spread(protocol, measure)
                row[f"{protocol}_{measure}"] = spread and spread.mean
                row[f"{protocol}_{measure}_deviation"] = spread and spread.deviation
                row |= _ends(f"{protocol}_{measure}", choice.interval(protocol, measure))
            best, second = comparison.p_values(protocol, choice)
            row |= {f"{protocol}_p_best": best, f"{protocol}_p_second": second}
            row |= _test_fields(protocol, tests[protocol][n])
        row |= {fact: choice.mean(fact) for fact in ("seconds_per_step", "parameters")}
        rows.append(row)
    _write(path, rows)


def write_counts(path: Path, scores: Mapping[str, SegmentationScores]) -> None:
    """Write the counts of each slide, or image, by protocol.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with writing(path) as temporary:
        temporary.write_bytes(save({protocol: independent_units(one)[1] for protocol, one in scores.items()}))


def read_counts(path: Path) -> dict[str, Counts]:
    """Read what :func:`write_counts` wrote; nothing if there is no file, as in comparisons of earlier versions.

    Raises
    ------
    OutputError
        If the file is damaged.
    """
    try:
        return load_file(path) if path.exists() else {}
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path} is damaged; delete the folder it is in, and the run is made again.") from error


def tests_between(one: Path, other: Path) -> dict[str, dict[str, Any]]:
    """Return for JSON, by protocol, the tests of the mIoU of two results whose counts are in these files.

    A protocol under which there is no test (:meth:`PairedTest.between`) is left out.
    """
    first, second = read_counts(one), read_counts(other)
    tests = {protocol: PairedTest.between(first[protocol][None], second[protocol][None]) for protocol in first}
    return {protocol: asdict(test) for protocol, test in tests.items() if test is not None}


def _test_fields(protocol: str, test: PairedTest | None) -> dict[str, float | None]:
    names = ("difference", "difference_low", "difference_high", "p_permutation", "p_wilcoxon")
    values = [None] * 5 if test is None else [test.difference, *test.ends, test.permutation, test.wilcoxon]
    return {f"{protocol}_{name}": value for name, value in zip(names, values, strict=True)}


def _ends(name: str, ends: Sequence[float] | None) -> dict[str, float | None]:
    low, high = ends or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with writing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
