"""The metrics of an evaluation under one protocol as text, each with its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from napari_pbip.results.metrics import MEASURES
from napari_pbip.results.resampling import LEVEL

Report = Mapping[str, Any]
"""What :meth:`SegmentationScores.report` returns, with ``intervals``."""
_UNITS = {"slides": "slides", "images": "images", "squares": "squares of 1 mm"}
"""What intervals may be over, the best first: images of one slide resemble each other, as squares of it do."""


def figure_rows(report: Report, digits: int, title: Callable[[str], str] = str) -> list[tuple[str, str, str]]:
    """Return heading, figure and interval of each metric, and of the IoU of each class by its title."""
    ends = shown_intervals(report)
    figures = [(heading, report[measure], ends.get(measure)) for measure, heading in MEASURES.items()]
    of_classes = ends.get("per_class", {})
    figures += [
        (f"IoU {title(name)}", values["iou"], of_classes.get(name, {}).get("iou"))
        for name, values in report["per_class"].items()
    ]
    return [
        (
            heading,
            _text(digits, value),
            "–" if pair is None else f"{_text(digits, pair[0])} to {_text(digits, pair[1])}",
        )
        for heading, value, pair in figures
    ]


def about_intervals(report: Report) -> str:
    """Return a sentence on what the intervals are."""
    if not (ends := shown_intervals(report)):
        return "There are too few images for intervals."
    unit = next(unit for unit in _UNITS if unit in report["intervals"])
    return f"The {LEVEL} % bootstrap intervals are over {ends['units']:,} {_UNITS[unit]}."


def shown_intervals(report: Report) -> Mapping[str, Any]:
    """Return the intervals over slides if there are several, else over what there is; empty if there are none."""
    intervals = report.get("intervals", {})
    return next((intervals[unit] for unit in _UNITS if unit in intervals), {})


def _text(digits: int, value: float | None) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
