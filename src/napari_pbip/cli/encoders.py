"""``napari-pbip encoders``: what there is, and fetching weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from napari_pbip.cli.following import follow
from napari_pbip.cli.terminal import output, say

if TYPE_CHECKING:
    from napari_pbip.models.encoders.spec import EncoderSpec

app = typer.Typer(help="List the encoders, and fetch the weights of one.", invoke_without_command=True)


@app.callback()
def encoders_list(context: typer.Context) -> None:
    """List the encoders: what they need and cost, and whether their weights are on this machine.

    Example: napari-pbip encoders
    """
    if context.invoked_subcommand is not None:
        return
    from napari_pbip.models.encoders import catalogue, find_weights

    table = Table(Column("name", no_wrap=True), "description", Column("weights", overflow="fold"))
    for spec in catalogue().values():
        where = find_weights(spec)
        missing = "" if spec.megabytes is None else f"{spec.megabytes} MB, "
        place = "not needed" if not spec.needs_weights else f"{missing}not here" if where is None else str(where)
        facts = [
            "" if spec.dimension is None else f"{spec.dimension} features per tile",
            "" if spec.mpp is None else f"made for {spec.mpp:g} µm per pixel",
            _dense(spec),
            "reads sentences" if spec.text else "",
            f"licence: {spec.licence}",
            "available on request" if spec.gated else "",
        ]
        table.add_row(
            spec.name, Text.assemble(f"{spec.title}\n", ("; ".join(fact for fact in facts if fact), "dim")), place
        )
    output.print(table)


def _dense(spec: EncoderSpec) -> str:
    """Return in words which dense features an encoder has, if any."""
    if not spec.dense:
        return ""
    stride = "" if spec.dense_stride is None else f" every {spec.dense_stride} pixels"
    microns = "" if spec.dense_mpp is None else f" ({spec.dense_mpp:g} µm)"
    return f"dense features{stride}{microns}"


@app.command("fetch")
def encoders_fetch(name: Annotated[str, typer.Argument(help="Name of the encoder.")]) -> None:
    """Fetch the weights of an encoder from the Hugging Face hub, under their own licence.

    They go to NAPARI_PBIP_WEIGHTS if that names a folder, else to the Hugging Face cache.

    Example: napari-pbip encoders fetch phikon-v2
    """
    from napari_pbip.engine.fetch_weights import fetch_weights

    summary = follow(fetch_weights(name), "the same command")
    say(f"Weights of {name} in {summary['folder']}")
