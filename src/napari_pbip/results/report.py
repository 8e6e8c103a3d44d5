"""A comparison as one self-contained HTML page: tables, maps side by side, and confusion matrices."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_pbip.files import write_picture, writing
from napari_pbip.results.comparison import Choice, Comparison, Spread
from napari_pbip.results.labels import UNASSIGNED_RGB
from napari_pbip.results.metrics import MEASURES, PROTOCOLS
from napari_pbip.results.resampling import LEVEL, PairedTest
from napari_pbip.taxonomy import Taxonomy


def write_report(
    path: Path,
    comparison: Comparison,
    *,
    title: str,
    where: str,
    taxonomy: Taxonomy | None,
    pictures: Sequence[Mapping[str, Path]],
    seed: int,
) -> None:
    """Write the report of a comparison.

    Parameters
    ----------
    path
        The HTML file.
    comparison
        The comparison.
    title, where
        Heading, and description of the data that were scored.
    taxonomy
        The classes with the colours of the maps, or None if they are not known yet.
    pictures
        For each tile, the paths of its PNG pictures by title; a picture that does not exist leaves a gap.
    seed
        Seed of the runs that made the maps.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    environment = jinja2.Environment(loader=jinja2.PackageLoader("napari_pbip.results", "."), autoescape=True)
    page = environment.get_template("report.html.jinja").render(
        title=title,
        where=where,
        planned=len(comparison.runs),
        done=sum(run.figures is not None for run in comparison.runs),
        failures=_failures(comparison),
        axes=comparison.axes,
        classes=comparison.classes,
        level=LEVEL,
        measures=list(MEASURES.values()),
        protocols=[
            {"name": protocol.title, "description": protocol.about, "rows": _rows(comparison, name)}
            for name, protocol in PROTOCOLS.items()
        ],
        pictures=[[{"title": name, "data": _embedded(file)} for name, file in row.items()] for row in pictures],
        legend=[] if taxonomy is None else [{"name": one.name, "colour": one.colour} for one in taxonomy],
        seed=seed,
        confusions=[_confusions(choice, comparison.classes) for choice in comparison.choices if choice.done],
    )
    with writing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def write_map(path: Path, labels: npt.NDArray[np.uint8], taxonomy: Taxonomy) -> None:
    """Write class indices (H, W) as palette PNG in the colours of the classes; other values are grey.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    colours = np.full((256, 3), UNASSIGNED_RGB, np.uint8)
    colours[: len(taxonomy)] = taxonomy.colours
    picture = Image.fromarray(labels)
    picture.putpalette(colours.tobytes())
    write_picture(path, picture, "PNG")


def _failures(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the errors, each once for all seeds of a choice that it occurred with."""
    seeds: dict[tuple[str, str], list[int]] = {}
    for run in comparison.runs:
        if run.error:
            seeds.setdefault((", ".join(run.choices), run.error), []).append(run.seed)
    return [{"name": name, "error": error, "seeds": some} for (name, error), some in seeds.items()]


def _rows(comparison: Comparison, protocol: str) -> list[dict[str, Any]]:
    ranks = {choice.names: rank for rank, choice in enumerate(comparison.ranking(protocol))}
    rows = []
    for choice, test in zip(comparison.choices, comparison.tests(protocol), strict=True):
        figures = [_figure(choice, protocol, measure) for measure in MEASURES]
        figures += [_cell(_spread(choice.class_spread(protocol, name))) for name in comparison.classes]
        seconds, parameters = choice.mean("seconds_per_step"), choice.mean("parameters")
        facts = _tested(test) + [_cell(_shown(p, ".3g")) for p in comparison.p_values(protocol, choice)]
        facts += [_cell(_shown(seconds, ".3g")), _cell(_shown(parameters, ",.0f"))]
        rows.append(
            {
                "names": choice.names,
                "seeds": len(choice.done),
                "rank": ranks.get(choice.names, len(ranks)),
                "figures": figures,
                "facts": facts,
            }
        )
    return rows


def _figure(choice: Choice, protocol: str, measure: str) -> dict[str, str]:
    return _cell(_spread(choice.spread(protocol, measure)), choice.interval(protocol, measure), ".2f")


def _cell(text: str, ends: tuple[float, float] | None = None, how: str = "") -> dict[str, str]:
    return {"text": text, "interval": "" if ends is None else f"{ends[0]:{how}} to {ends[1]:{how}}"}


def _tested(test: PairedTest | None) -> list[dict[str, str]]:
    if test is None:
        return [_cell("–")] * 3
    p_values = (f"{p:.3g}" for p in (test.permutation, test.wilcoxon))
    return [_cell(f"{test.difference:+.2f}", test.ends, "+.2f"), *map(_cell, p_values)]


def _spread(spread: Spread | None) -> str:
    return "–" if spread is None else str(spread)


def _shown(value: float | None, how: str) -> str:
    return "–" if value is None else format(value, how)


def _confusions(choice: Choice, classes: Sequence[str]) -> dict[str, Any]:
    matrices = []
    for key, protocol in PROTOCOLS.items():
        if (counts := choice.confusion(key)) is None:
            continue
        shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
        rows = [
            {"name": name, "shares": row[: len(classes)].tolist()} for name, row in zip(classes, shares, strict=True)
        ]
        matrices.append({"protocol": protocol.title, "rows": rows})
    return {"name": ", ".join(choice.names), "matrices": matrices}


def _embedded(picture: Path) -> str:
    return base64.b64encode(picture.read_bytes()).decode() if picture.exists() else ""
