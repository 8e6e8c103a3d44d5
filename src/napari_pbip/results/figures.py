"""The metrics of an evaluation as text: a row for each metric, a column for each protocol, intervals in brackets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from napari_pbip.results.metrics import MEASURES
from napari_pbip.results.resampling import LEVEL

Reports = Mapping[str, Mapping[str, Any]]
"""For each protocol, the report of :class:`~napari_pbip.results.metrics.SegmentationScores` with ``intervals``."""
_UNITS = ("slides", "images", "squares")
"""What intervals are over, the best first: images of one slide resemble each other, as squares of it do."""


def figure_rows(protocols: Reports, digits: int, title: Callable[[str], str] = str) -> list[tuple[str, list[str]]]:
    """Return the heading of each metric, in which classes have titles, and its text under each protocol."""
    rows = [
        (heading, [_text(report, (measure,), digits) for report in protocols.values()])
        for measure, heading in MEASURES.items()
    ]
    names = next(iter(protocols.values()))["per_class"]
    rows += [
        (f"IoU {title(name)}", [_text(report, ("per_class", name, "iou"), digits) for report in protocols.values()])
        for name in names
    ]
    return rows


def about_intervals(protocols: Reports) -> str:
    """Return a sentence on what is in brackets; empty if there are no intervals."""
    intervals = next(iter(protocols.values()))["intervals"]
    unit = _unit(intervals)
    return f"In brackets: {LEVEL} % bootstrap interval over {intervals[unit]['units']:,} {unit}." if unit else ""


def shown_interval(report: Mapping[str, Any], measure: str) -> list[float] | None:
    """Return lower and upper end of one of :data:`MEASURES`, over slides if there are several, or None."""
    intervals = report.get("intervals", {})
    unit = _unit(intervals)
    return intervals[unit][measure] if unit else None


def _unit(intervals: Mapping[str, Any]) -> str | None:
    return next((unit for unit in _UNITS if unit in intervals), None)


def _text(report: Mapping[str, Any], keys: Sequence[str], digits: int) -> str:
    unit = _unit(report["intervals"])
    value, ends = _at(report, keys), _at(report["intervals"][unit], keys) if unit else None
    if value is None:
        return "–"
    return f"{value:.{digits}f}" + (f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]" if ends else "")


def _at(values: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        values = values[key]
    return values
