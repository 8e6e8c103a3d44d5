"""``napari-pbip evaluate``: score a model on tiles with masks, and test it against another one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.table import Table

from napari_pbip.cli.following import follow, report_json
from napari_pbip.cli.options import Device, JobOption, JsonOut, Last, Set, settings_from
from napari_pbip.cli.terminal import output, say


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a training.")],
    data: Annotated[Path, typer.Argument(help="Folder of tiles with masks.")],
    split: Annotated[str, typer.Option(help="test or val.")] = "test",
    against: Annotated[
        Path | None, typer.Option(help="Another training, to test the difference of the mIoU on the same tiles.")
    ] = None,
    last: Last = False,
    device: Device = "auto",
    job: JobOption = None,
    assignments: Set = None,
    json_out: JsonOut = None,
) -> None:
    """Score a model on tiles with masks, under each protocol: with what the masks tell of classes and background.

    Examples:

    napari-pbip evaluate run/ tiles/ --split test --json scores.json

    napari-pbip evaluate run/ tiles/ --against other-run/
    """
    from napari_pbip.engine.inference.evaluate import evaluate as score
    from napari_pbip.results.comparison import tests_between

    settings = settings_from(job, assignments, {"data.folder": data})
    options: dict[str, Any] = {
        "which": "last" if last else "best",
        "device": device,
        "refine": settings.refine,
        "thresholds": settings.thresholds,
    }
    with TemporaryDirectory(prefix="napari-pbip-") as temporary:
        counts = Path(temporary, "run"), Path(temporary, "against")
        summary = dict(follow(score(run, settings.data, split, counts=counts[0], **options)))
        _show(summary)
        try:
            if against is not None:
                follow(score(against, settings.data, split, counts=counts[1], **options))
                summary["against"] = {"run": str(against), "protocols": tests_between(*counts)}
                _show_tests(summary["against"])
        finally:  # if the other model cannot be scored, the figures of this one are kept
            report_json(json_out, summary)


def _show(summary: Mapping[str, Any]) -> None:
    from napari_pbip.results.figures import about_intervals, figure_rows
    from napari_pbip.results.metrics import PROTOCOLS

    protocols = {PROTOCOLS[name]: report for name, report in summary["protocols"].items()}
    table = Table("percent", *(protocol.title for protocol in protocols))
    for same in zip(*(figure_rows(report, digits=2) for report in protocols.values()), strict=True):
        table.add_row(same[0][0], *(f"{figure} ({interval})" for _, figure, interval in same))
    output.print(table)
    for protocol in protocols:
        say(f"{protocol.title}: {protocol.about}", output)
    say(about_intervals(next(iter(protocols.values()))), output)
    for what, curve in summary["calibration"].items():
        say(f"Expected calibration error of {what}: {curve['ece']:.1f} %", output)


def _show_tests(against: Mapping[str, Any]) -> None:
    from napari_pbip.results.metrics import PROTOCOLS

    if not against["protocols"]:
        say("There are too few images to test the difference.", output)
    for name, test in against["protocols"].items():
        low, high = test["ends"]
        say(
            f"{PROTOCOLS[name].title}: mIoU {test['difference']:+.2f} ({low:+.2f} to {high:+.2f}) against "
            f"{against['run']}; p {test['permutation']:.2g} by permutation, {test['wilcoxon']:.2g} by Wilcoxon",
            output,
        )
