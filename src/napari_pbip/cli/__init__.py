"""The command line: one function per command; ``napari-pbip COMMAND --help`` explains each."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from napari_pbip import __version__
from napari_pbip.cli.bank import app as bank_app
from napari_pbip.cli.bank import show_scores
from napari_pbip.cli.encoders import app as encoders_app
from napari_pbip.cli.evaluate import evaluate
from napari_pbip.cli.following import follow, report_json
from napari_pbip.cli.options import (
    Device,
    EncoderWeights,
    JobFile,
    JobOption,
    JsonOut,
    Last,
    Overwrite,
    Scheduler,
    Set,
    settings_from,
    values_from,
)
from napari_pbip.cli.replay import replay
from napari_pbip.cli.results import export, report, statistics
from napari_pbip.cli.sharing import crate, pack, push, unpack
from napari_pbip.cli.terminal import (
    output,
    print_plugin_warnings_as_sentences,
    print_what_cannot_be_encoded,
    say,
)
from napari_pbip.config import CompareJob, PretrainSettings
from napari_pbip.errors import ConfigError, PbipError
from napari_pbip.processes import process_count, process_rank
from napari_pbip.progress import console
from napari_pbip.wording import Interface

app = typer.Typer(
    help="From image-level labels to a tissue map of a whole slide.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(bank_app, name="bank")
app.add_typer(encoders_app, name="encoders")


def main() -> None:
    """Run the command line; a PbipError ends it with its message and exit code 2."""
    print_what_cannot_be_encoded()
    print_plugin_warnings_as_sentences()
    rank = process_rank()
    console.quiet = output.quiet = rank > 0
    try:
        app()
    except PbipError as error:
        console.quiet = False
        said = f" {Interface.COMMAND_LINE.sentence(error)}"
        console.print(
            Text.assemble((f"Error in process {rank}:" if rank else "Error:", "bold red"), said), soft_wrap=True
        )
        sys.exit(2)


@app.callback(invoke_without_command=True)
def _before(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
    command = context.invoked_subcommand
    if process_count() > 1 and command not in ("train", "pretrain"):
        raise ConfigError(
            f"Of the processes of torchrun only train and pretrain make use; start napari-pbip {command} without it."
        )


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Check this installation: versions, device, slide readers, encoders, cache; and what to do about faults.

    Example: napari-pbip doctor
    """
    from napari_pbip.doctor import examine, render

    report = examine()
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2))
    else:
        render(report, output)
    if report.failed:
        raise typer.Exit(1)


@app.command("zero-shot")
def zero_shot(
    tiles: Annotated[Path, typer.Argument(help="Folder (or CSV) of labelled tiles.")],
    encoder: Annotated[str | None, typer.Option(help="Encoder with a text tower (see encoders).")] = None,
    bank: Annotated[Path | None, typer.Option(help="Image bank, for image prompts; it names its encoder.")] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val or test; by default the tiles that banks are built from.")
    ] = None,
    sentence: Annotated[
        list[str] | None, typer.Option(metavar="CLASS=TEXT", help="A sentence for a class instead of the default.")
    ] = None,
    weights: EncoderWeights = None,
    device: Device = "auto",
    job: JobOption = None,
    assignments: Set = None,
    json_out: JsonOut = None,
) -> None:
    """Classify tiles without training, by a sentence a class and by a bank's prototypes; accuracy and F1 of each.

    Examples:

    napari-pbip zero-shot tiles/ --encoder plip --sentence "TUM=a photo of tumor"

    napari-pbip zero-shot tiles/ --bank bank/ --json table6.json
    """
    from napari_pbip.engine.banks.zero_shot import zero_shot as run

    settings = settings_from(job, assignments, {"data.folder": tiles, "bank.weights": weights})
    options: dict[str, Any] = {"encoder": encoder, "bank": bank, "weights": settings.bank.weights, "device": device}
    summary = follow(run(settings.data, split=split, sentences=_sentences(sentence or ()), **options))
    show_scores(summary)
    report_json(json_out, summary)


def _sentences(assignments: Sequence[str]) -> dict[str, str]:
    """Parse options ``CLASS=TEXT`` to sentences by class."""
    pairs = [assignment.partition("=") for assignment in assignments]
    for (name, equals, text), given in zip(pairs, assignments, strict=True):
        if not (name.strip() and equals and text.strip()):
            raise ConfigError(f'--sentence needs CLASS=TEXT, such as "TUM=a photo of tumor", not {given!r}.')
    return {name.strip(): text.strip() for name, _, text in pairs}


@app.command()
def pretrain(
    images: Annotated[list[Path] | None, typer.Argument(help="Slides, pictures, and folders of them.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the weights.")] = Path("pretrained"),
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    image_mpp: Annotated[
        float | None, typer.Option(help="Microns per pixel of images whose file does not give them.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed.")] = None,
    job: JobOption = None,
    assignments: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a pre-training that was stopped.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Pretrain a backbone on unlabelled slides; trainings and banks can then start from it.

    Examples:

    napari-pbip pretrain archive/ --out pretrained/ --steps 10000

    napari-pbip train --data tiles/ --out run/ --set backbone.weights=pretrained
    """
    from napari_pbip.engine.training.pretrain import pretrain as run

    options = {"images": images or None, "steps": steps, "image_mpp": image_mpp, "seed": seed}
    settings = PretrainSettings.parse(values_from(PretrainSettings, job, assignments, options))
    summary = follow(run(settings, out, resume=resume, overwrite=overwrite), "--resume")
    say(f"Pre-trained {summary['steps']} steps in {summary['seconds']:.0f} s: {out}")


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    job: JobFile = None,
    method: Annotated[
        str | None, typer.Option(help="pbip, lpd, construct, cam, deeplab, probe, or one that another package adds.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of labelled tiles.")] = None,
    bank: Annotated[Path | None, typer.Option(help="Image bank; without it one is built from the data.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Such as efficientnet-lite0 or mit-b1; the documentation lists them.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Number of passes through the tiles.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed.")] = None,
    assignments: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a run that was stopped.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a model on image-level labels.

    Examples:

    napari-pbip train job.yaml --out run/

    napari-pbip train --method pbip --data tiles/ --bank bank/ --backbone mit-b1 --epochs 8 --seed 0 --out run/
    """
    from napari_pbip.engine.training.train import train as run

    options = {
        "method.name": method,
        "data.folder": data,
        "bank_folder": bank,
        "backbone.name": backbone,
        "train.epochs": epochs,
        "train.seed": seed,
    }
    settings = settings_from(job, assignments, options)
    summary = follow(run(settings, out, resume=resume, overwrite=overwrite), "--resume")
    score = (
        "" if summary["miou"] is None else f", best validation mIoU {summary['miou']:.1f} % in epoch {summary['epoch']}"
    )
    if (accuracy := summary.get("balanced_accuracy")) is not None:
        score = f", balanced accuracy {accuracy:.1f} % in cross-validation{score}"
    done = f"Fitted to {summary['tiles']} tiles" if "tiles" in summary else f"Trained {summary['steps']} steps"
    say(f"{done} in {summary['seconds']:.0f} s{score}: {out}")


@app.command()
def pseudo(
    run: Annotated[Path, typer.Argument(help="Folder of a training.")],
    data: Annotated[Path, typer.Argument(help="Folder of labelled tiles.")],
    out: Annotated[Path, typer.Option(help="Folder of the new data set.")],
    agree: Annotated[
        Path | None, typer.Option(help="Another training; where its model disagrees, pixels are not assigned.")
    ] = None,
    min_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Pixels with a lower confidence are not assigned.")
    ] = 0.0,
    last: Last = False,
    device: Device = "auto",
    job: JobOption = None,
    assignments: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume pseudo masks that were stopped.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Give training tiles the masks that a model sees in them, as a data set for a second stage.

    Examples:

    napari-pbip pseudo run/ tiles/ --out pseudo/

    napari-pbip train --method segmenter --data pseudo/ --out second/
    """
    from napari_pbip.engine.inference.pseudo_masks import pseudo_masks

    settings = settings_from(job, assignments, {"data.folder": data})
    making = pseudo_masks(
        run,
        settings.data,
        out,
        agree=agree,
        min_confidence=min_confidence,
        which="last" if last else "best",
        device=device,
        refine=settings.refine,
        resume=resume,
        overwrite=overwrite,
    )
    summary = follow(making, "--resume")
    shares = ", ".join(f"{name} {percent:.1f} %" for name, percent in summary["percent"].items())
    say(f"Masks of {summary['tiles']} tiles ({shares}, not assigned {summary['not_assigned']:.1f} %): {out}")


@app.command()
def compare(
    job: Annotated[Path, typer.Argument(help="Settings file (YAML) with a section 'compare'.")],
    out: Annotated[
        Path, typer.Option(help="Folder of the comparison; runs that it contains already are not repeated.")
    ],
    data: Annotated[Path | None, typer.Option(help="Folder of labelled tiles.")] = None,
    scheduler: Scheduler = None,
    assignments: Set = None,
    overwrite: Overwrite = False,
) -> None:
    """Train and score methods, encoders or settings with several seeds: results.csv, table.csv, report.html.

    Example: napari-pbip compare docs/reproduce/table2.yaml --data BCSS-WSSS/ --out table2/
    """
    from napari_pbip.engine.compare import compare as run

    values = values_from(CompareJob, job, assignments, {"data.folder": data, "scheduler": scheduler})
    summary = follow(run(values, out, overwrite=overwrite), "the same command")
    say(f"Report: {summary['report']}")
    if summary["failed"]:
        say(
            f"{summary['failed']} of {len(summary['runs'])} runs failed; correct the cause, and run the same "
            "command again."
        )
        raise typer.Exit(1)


@app.command()
def segment(
    slides: Annotated[list[Path], typer.Argument(help="Slide file or folder; several, or a folder of slides.")],
    model: Annotated[Path, typer.Option(help="Folder of a training.")],
    out: Annotated[
        str,
        typer.Option(metavar="DIR|ADDRESS", help="Folder of the results, or its address, such as s3://bucket/folder."),
    ],
    mpp: Annotated[float | None, typer.Option(help="Microns per pixel, if the slide does not give them.")] = None,
    tissue: Annotated[Path | None, typer.Option(help="A tissue mask of your own (an image).")] = None,
    regions: Annotated[
        Path | None, typer.Option(help="GeoJSON with regions to analyse or, with the class Ignore*, to leave out.")
    ] = None,
    scheduler: Scheduler = None,
    scratch: Annotated[
        Path | None,
        typer.Option(help="Folder for results until they are uploaded to an address; by default the user's cache."),
    ] = None,
    job: JobOption = None,
    assignments: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a segmentation that was stopped.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Segment a slide: DIR/<slide>.ome.zarr with scores and labels, overlay.png, areas.csv.

    Of several slides, or those in a folder, each gets a folder in DIR; one that fails does not stop the others.

    With --regions, only tiles in regions are computed, and areas are given for each; without it, those of
    DIR/regions.geojson are used, if it exists.

    At an address, results are uploaded slide by slide, and not kept on this machine. If an upload fails, they are kept,
    and --resume goes on with it. Credentials are those of the environment.

    Examples:

    napari-pbip segment slide.svs --model run/ --out result/

    napari-pbip segment slide.svs --model run/ --out result/ --regions tumour-bed.geojson

    napari-pbip segment archive/ --model run/ --out results/ --scheduler tcp://node1:8786

    napari-pbip segment archive/ --model run/ --out s3://bucket/results
    """
    from napari_pbip.engine.inference.segment import segment as run
    from napari_pbip.engine.inference.segment_slides import segment_slides
    from napari_pbip.slides import slides_in

    options = {"segment.mpp": mpp, "segment.tissue_mask": tissue, "scheduler": scheduler}
    settings = settings_from(job, assignments, options)
    shared: dict[str, Any] = {
        "settings": settings.segment,
        "thresholds": settings.thresholds,
        "refine": settings.refine,
        "resume": resume,
        "overwrite": overwrite,
        "scheduler": settings.scheduler,
        "scratch": scratch,
    }
    found = [path for one in slides for path in slides_in(one)]
    if found != slides or len(slides) > 1:
        if regions is not None:
            raise ConfigError("--regions is that of one slide; segment that one by itself.")
        summary = follow(segment_slides(found, model, out, **shared), "--resume")
        failed, already = summary["failed"], sum("already" in one for one in summary["slides"].values())
        before = f" ({already:,} were there already)" if already else ""
        say(f"Results of {len(summary['slides']) - failed:,} slides in {out}{before}")
        if failed:
            say(f"{failed:,} slides failed; correct the cause, and run the same command again with --resume.")
            raise typer.Exit(1)
        return
    summary = follow(run(slides[0], model, out, regions=regions, **shared), "--resume")
    if "already" in summary:
        say(f"The result is there already: {summary['store']}")
        return
    regional = any(row["region"] for row in summary["areas"])
    table = Table("class", "area mm²", "% of tissue", *(["region"] if regional else []))
    for row in summary["areas"]:
        fields = row["name"], f"{row['area_mm2']:.4f}", f"{row['percent_of_tissue']:.1f}"
        table.add_row(*fields, *([row["region"]] if regional else []))
    output.print(table)
    if left_out := summary["left_out_mm2"]:
        say(f"{left_out:.4f} mm² of tissue do not count, because of the regions.")
    say(f"Results in {out}")


@app.command("import")
def import_(
    annotations: Annotated[Path, typer.Argument(help="GeoJSON of annotations with classes, as QuPath exports it.")],
    slide: Annotated[Path, typer.Option(help="The slide that they were drawn on.")],
    out: Annotated[Path, typer.Option(help="Folder of labelled tiles, or of results; what it has is kept.")],
    tile: Annotated[
        int | None, typer.Option(min=32, max=2048, help="Side of a tile in pixels; 224 in a new folder.")
    ] = None,
    tile_mpp: Annotated[
        float | None, typer.Option(min=0.05, max=20, help="Microns per pixel of tiles; 0.5 in a new folder.")
    ] = None,
    mpp: Annotated[float | None, typer.Option(help="Microns per pixel, if the slide does not give them.")] = None,
    regions: Annotated[
        bool, typer.Option("--regions", help="Make regions, in the folder of results --out, and no labelled tiles.")
    ] = False,
) -> None:
    """Label the tiles of a slide by annotations of QuPath: each by the classes that cover at least half of it.

    With --regions, the annotations become regions of the slide, beside those that it has: what has the class Ignore*
    is left out, and the others are analysed.

    Examples:

    napari-pbip import slide.geojson --slide slide.svs --out tiles/

    napari-pbip import slide.geojson --slide slide.svs --out result/ --regions
    """
    from napari_pbip.engine.banks.import_annotations import import_annotations, import_regions
    from napari_pbip.project import Project

    if regions:
        summary = follow(import_regions(annotations, slide, out))
        say(f"{summary['imported']} regions imported, {summary['regions']} in all: {summary['file']}")
        return
    shown = Project.open(out.absolute().parent).classes  # none if the tiles are not those of a project
    summary = follow(
        import_annotations(annotations, slide, out, pixels=tile, tile_mpp=tile_mpp, mpp=mpp, class_display=shown)
    )
    say(f"{summary['labelled']} tiles labelled, {summary['tiles']} in all: {out}")


for _command in (evaluate, export, statistics, report, pack, push, unpack, crate, replay):
    app.command()(_command)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    full: Annotated[bool, typer.Option("--full", help="Train for longer; all takes about five times as long.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Run the whole path on bundled real tissue: bank, training, scores, a segmented slide; it takes minutes.

    Example: napari-pbip demo --out demo-result/
    """
    from napari_pbip.engine.demo import demo as run

    summary = follow(run(out, full=full, overwrite=overwrite))
    typer.echo(json.dumps(summary, indent=2))
