"""A comparison as one self-contained HTML page: tables, maps side by side, and confusion matrices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_pbip.document import Cell, Document, Legend, Part, Picture, Pictures, Section, Table, Text
from napari_pbip.files import write_picture
from napari_pbip.results.comparison import Choice, Comparison, Spread
from napari_pbip.results.metrics import MEASURES, PROTOCOLS
from napari_pbip.results.resampling import LEVEL, PairedTest
from napari_pbip.taxonomy import UNASSIGNED_RGB, Taxonomy

_HOW_TO_READ = (
    f"Percent, mean ± standard deviation over seeds; below it, the {LEVEL} % bootstrap interval of the mean over "
    "images, or over their slides if there are several. The best mean mIoU is bold, and the second best underlined.",
    "Would other images give the same? Difference from the best: of the mIoU, with its interval; p permutation and p "
    "Wilcoxon: paired tests over images or slides, corrected for the number of choices (Holm). Would other seeds give "
    "the same? p best and p second: paired t-test of the mIoU over seeds against the best and the second best.",
)


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
    done = sum(run.figures is not None for run in comparison.runs)
    parts: list[Part] = [
        Text(f"{done} of {len(comparison.runs)} runs, scored on {where}."),
        *map(Text, _HOW_TO_READ),
        *_failures(comparison),
        *(_protocol(comparison, name) for name in PROTOCOLS),
    ]
    if pictures:
        parts.append(_maps(pictures, taxonomy, seed))
    parts.append(_confusions(comparison))
    Document(title, parts).write(path)


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


def _failures(comparison: Comparison) -> Iterator[Part]:
    """Yield the errors, each once for all seeds of a choice that it occurred with."""
    seeds: dict[tuple[str, str], list[int]] = {}
    for run in comparison.runs:
        if run.error:
            seeds.setdefault((", ".join(run.choices), run.error), []).append(run.seed)
    for (name, error), some in seeds.items():
        yield Text(f"Failed: {name}, seed {', '.join(map(str, some))}: {error}", "warning")


def _protocol(comparison: Comparison, key: str) -> Section:
    """Return the figures of all choices by a protocol, and the tests of their differences."""
    ranked = [choice.names for choice in comparison.ranking(key)]
    figures: list[list[Cell | str]] = []
    tests: list[list[Cell | str]] = []
    for choice, test in zip(comparison.choices, comparison.tests(key), strict=True):
        miou, *others = (_figure(choice, key, measure) for measure in MEASURES)
        rank = ranked.index(choice.names) if choice.names in ranked else len(ranked)
        of_classes = (_spread(choice.class_spread(key, name)) for name in comparison.classes)
        first = Cell(miou, mark="best" if rank == 0 else "second" if rank == 1 else "")
        figures.append([*choice.names, str(len(choice.done)), first, *others, *of_classes])
        p_values = (_shown(p, ".3g") for p in comparison.p_values(key, choice))
        costs = _shown(choice.mean("seconds_per_step"), ".3g"), _shown(choice.mean("parameters"), ",.0f")
        tests.append([*choice.names, *(_tested(test) if test else ["–"] * 3), *p_values, *costs])
    axes, classes = comparison.axes, [f"IoU {name}" for name in comparison.classes]
    tested = ["difference from the best", "p permutation", "p Wilcoxon", "p best", "p second", "s a step", "parameters"]
    return Section(
        f"Protocol {PROTOCOLS[key].title}",
        [
            Text(PROTOCOLS[key].about),
            Table([*axes, "seeds", *MEASURES.values(), *classes], figures, len(axes)),
            Table([*axes, *tested], tests, len(axes)),
        ],
    )


def _figure(choice: Choice, protocol: str, measure: str) -> str:
    ends = choice.interval(protocol, measure)
    return _spread(choice.spread(protocol, measure)) + ("" if ends is None else f"\n{ends[0]:.2f} to {ends[1]:.2f}")


def _tested(test: PairedTest) -> list[str]:
    low, high = test.ends
    return [f"{test.difference:+.2f}\n{low:+.2f} to {high:+.2f}", f"{test.permutation:.3g}", f"{test.wilcoxon:.3g}"]


def _spread(spread: Spread | None) -> str:
    return "–" if spread is None else str(spread)


def _shown(value: float | None, how: str) -> str:
    return "–" if value is None else format(value, how)


def _maps(pictures: Sequence[Mapping[str, Path]], taxonomy: Taxonomy | None, seed: int) -> Section:
    legend = (
        [] if taxonomy is None else [Legend({one.name: "#{:02x}{:02x}{:02x}".format(*one.rgb) for one in taxonomy})]
    )
    rows = [
        Pictures([Picture(title, file.read_bytes()) for title, file in row.items() if file.exists()])
        for row in pictures
    ]
    return Section("Maps", [Text(f"As the network sees them by itself, seed {seed}."), *legend, *rows])


def _confusions(comparison: Comparison) -> Section:
    classes = comparison.classes
    sections = []
    for choice in comparison.choices:
        tables = []
        for key, protocol in PROTOCOLS.items():
            if (counts := choice.confusion(key)) is None:
                continue
            shares = (counts / np.maximum(counts.sum(1, keepdims=True), 1))[:, : len(classes)]
            rows: list[list[Cell | str]] = [
                [name, *(Cell(f"{100 * share:.1f}", shade=share) for share in row)]
                for name, row in zip(classes, shares.tolist(), strict=True)
            ]
            tables.append(Table([protocol.title, *classes], rows))
        if tables:
            sections.append(Section(", ".join(choice.names), tables))
    about = "Percent of the pixels of the true class (rows) that were given each class (columns), all seeds together."
    return Section("Confusion", [Text(about), *sections])
