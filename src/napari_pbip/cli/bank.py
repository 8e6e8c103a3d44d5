"""``napari-pbip bank``: build an image bank, look at it, name tiles with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from napari_pbip.cli.following import follow, report_json
from napari_pbip.cli.options import Device, EncoderWeights, JobOption, JsonOut, Overwrite, Scheduler, Set, settings_from
from napari_pbip.cli.terminal import output, say

app = typer.Typer(help="Build, inspect and use an image bank.", no_args_is_help=True)


@app.command("build")
def bank_build(
    tiles: Annotated[Path, typer.Argument(help="Folder (or CSV) of labelled tiles.")],
    out: Annotated[Path, typer.Option(help="Folder of the bank.")],
    encoder: Annotated[str | None, typer.Option(help="Encoder of the catalogue (see encoders).")] = None,
    weights: EncoderWeights = None,
    k: Annotated[str | None, typer.Option(help="Clusters per class: a number or auto.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the clustering.")] = None,
    device: Device = "auto",
    scheduler: Scheduler = None,
    job: JobOption = None,
    assignments: Set = None,
    update: Annotated[
        bool, typer.Option("--update", help="Update an earlier bank; only what has changed is computed.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Build an image bank: features of single-class tiles, clusters, prototypes.

    Example: napari-pbip bank build tiles/ --out bank/ --k 3
    """
    from napari_pbip.bank import load_single_tiles
    from napari_pbip.engine.banks.build_bank import build_bank

    clusters = int(k) if k is not None and k.isdecimal() else k
    options = {
        "data.folder": tiles,
        "bank.encoder": encoder,
        "bank.weights": weights,
        "bank.k": clusters,
        "bank.seed": seed,
        "scheduler": scheduler,
    }
    settings = settings_from(job, assignments, options)
    tile_set = load_single_tiles(tiles, settings.data)
    building = build_bank(
        tile_set,
        out,
        settings.bank,
        settings.data,
        device=device,
        overwrite=overwrite,
        update=update,
        scheduler=settings.scheduler,
    )
    summary = follow(building, "--update")
    say(f"Bank of {summary['tiles']} tiles and {summary['prototypes']} prototypes in {out}")


@app.command("show")
def bank_show(
    bank: Annotated[Path, typer.Argument(help="Folder of the bank.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the pictures; by default BANK/sheets.")] = None,
    table_out: Annotated[
        Path | None, typer.Option("--table", help="Table of all tiles to write: .csv or .parquet.")
    ] = None,
) -> None:
    """Print a bank's clusters and what to look at, and write a contact sheet a class, nearest tiles first.

    Examples:

    napari-pbip bank show bank/

    napari-pbip bank show bank/ --table tiles-of-bank.csv
    """
    from napari_pbip.bank import Curation, ImageBank, bank_warnings, cluster_table, near_duplicates, write_sheets
    from napari_pbip.bank.bank_table import write_bank_table

    image_bank = ImageBank.read(bank)
    rows = cluster_table(image_bank)
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()))
    output.print(table)
    for sentence in bank_warnings(image_bank, near_duplicates(image_bank), Curation.read(bank)):
        typer.echo(sentence, err=True)  # the output proper lists files
    for path in write_sheets(image_bank, bank, out or bank / "sheets"):
        typer.echo(path)
    if table_out is not None:
        write_bank_table(table_out, image_bank)
        typer.echo(table_out)


@app.command("classify")
def bank_classify(
    bank: Annotated[Path, typer.Argument(help="Folder of the bank.")],
    tiles: Annotated[Path, typer.Argument(help="Folder (or CSV) of tiles.")],
    weights: EncoderWeights = None,
    device: Device = "auto",
    job: JobOption = None,
    assignments: Set = None,
    json_out: JsonOut = None,
) -> None:
    """Name the nearest prototype of each tile; accuracy and F1 where folders name the classes.

    Example: napari-pbip bank classify bank/ tiles/ --json nearest.json
    """
    from napari_pbip.engine.banks.zero_shot import zero_shot

    settings = settings_from(job, assignments, {"data.folder": tiles, "bank.weights": weights})
    options: dict[str, Any] = {"bank": bank, "weights": settings.bank.weights, "text": False, "device": device}
    summary = follow(zero_shot(settings.data, **options))
    show_scores(summary)
    report_json(json_out, summary)


def show_scores(summary: Mapping[str, Any]) -> None:
    """Print how well prompts named the tiles, as far as those have labels."""
    scores = summary["prompts"]
    if not summary["labelled"]:
        return
    table = Table("class", *(f"{prompt}: {figure} %" for prompt in scores for figure in ("accuracy", "F1")))
    rows = {name: [s[f].get(name) for s in scores.values() for f in ("recall", "f1")] for name in summary["classes"]}
    rows["mean"] = [s[f"{f}_mean"] for s in scores.values() for f in ("recall", "f1")]
    for name, row in rows.items():
        table.add_row(name, *("–" if value is None else f"{value:.1f}" for value in row))
    output.print(table)
    for prompt, figures in scores.items():
        typer.echo(f"{prompt} prompt: accuracy {figures['accuracy']:.1f} % on {summary['labelled']} tiles")
