"""The jobs without a screen: ``napari-pbip COMMAND --help`` explains each."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

from napari_pbip import __version__
from napari_pbip.config import CompareJob, JobSettings, PretrainSettings, override
from napari_pbip.errors import ConfigError, PbipError
from napari_pbip.events import Epoch, Finished, Job, RunStep, Started, Step, Warned
from napari_pbip.files import write_json

app = typer.Typer(
    help="From image-level labels to a tissue map of a whole slide.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
bank_app = typer.Typer(help="Build, look at and use an image bank.", no_args_is_help=True)
app.add_typer(bank_app, name="bank")
encoders_app = typer.Typer(help="List the encoders, and fetch the weights of one.", invoke_without_command=True)
app.add_typer(encoders_app, name="encoders")
console = Console(stderr=True)

JobFile = Annotated[Path | None, typer.Argument(help="Settings file (YAML); the options below go on top of it.")]
JobOption = Annotated[Path | None, typer.Option("--job", help="Settings file (YAML); the options go on top of it.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as train.batch_size=4.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")]
JsonOut = Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")]


def main() -> None:
    """Run the command line; errors of the user's making end it with one sentence and exit code 2."""
    try:
        app()
    except PbipError as error:
        console.print(f"[bold red]Error:[/] {error}", highlight=False, markup=True, soft_wrap=True)
        sys.exit(2)


def follow(job: Job) -> Mapping[str, Any]:
    """Show a job's events as progress bars; returns the summary of its last event.

    Ctrl+C cancels the job, which keeps what is finished, and exits with code 130.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    summary: Mapping[str, Any] = {}
    with Progress(*columns, console=console) as progress:
        bar = None
        try:
            for event in job:
                match event:
                    case Started():
                        bar = progress.add_task(event.job, total=event.total, completed=event.done, note=event.unit)
                        if not console.is_terminal:  # a log, where bars are drawn once, at the end
                            console.print(event.job, highlight=False)
                    case RunStep() if event.finished:
                        scores = "  ".join(f"{name} {value:.1f}" for name, value in event.values.items())
                        progress.console.print(f"{event.run}  {scores}", highlight=False)
                        if bar is not None:
                            progress.update(bar, completed=event.done, note="")
                    case Step() if bar is not None:
                        progress.update(bar, completed=event.done)
                        if isinstance(event, RunStep):
                            progress.update(bar, note=event.run)
                        if "loss" in event.values:
                            progress.update(bar, note=f"loss {event.values['loss']:.3f}")
                    case Epoch() if event.scores:
                        scores = "  ".join(f"{name} {value:.1f}" for name, value in event.scores.items())
                        best = "  (best so far)" if event.best else ""
                        progress.console.print(f"epoch {event.epoch}/{event.epochs}  {scores}{best}", highlight=False)
                    case Warned():
                        progress.console.print(f"[yellow]Note:[/] {event.message}", highlight=False)
                    case Finished():
                        summary = event.summary
                    case _:
                        pass
        except KeyboardInterrupt:
            job.close()
            progress.console.print("Stopped; what was finished is kept, and --resume goes on from there.")
            raise typer.Exit(130) from None
    return summary


def settings_from(file: Path | None, assignments: list[str] | None, options: Mapping[str, Any]) -> JobSettings:
    """Settings of a job file, with ``--set`` assignments and then options (None: not given) on top."""
    values = override(JobSettings.read_values(file) if file else {}, assignments or [])
    for key, value in options.items():
        if value is not None:
            *parents, last = key.split(".")
            place = values
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
    return JobSettings.parse(values)


def report_json(path: Path | None, values: Mapping[str, Any]) -> None:
    """Write the figures if a file was named."""
    if path is not None:
        write_json(path, values)
        console.print(f"Written: {path}", highlight=False)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


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
        render(report, Console())
    if report.failed:
        raise typer.Exit(1)


@encoders_app.callback()
def encoders_list(context: typer.Context) -> None:
    """List the encoders: what they need and cost, and whether their weights are on this machine.

    Example: napari-pbip encoders
    """
    if context.invoked_subcommand is not None:
        return
    from napari_pbip.models.encoders import catalogue, find_weights

    table = Table(Column("name", no_wrap=True), "what it is", Column("weights", overflow="fold"))
    for spec in catalogue().values():
        where = find_weights(spec)
        missing = "" if spec.megabytes is None else f"{spec.megabytes} MB, "
        place = "not needed" if not spec.needs_weights else f"{missing}not here" if where is None else str(where)
        facts = [
            "" if spec.dimension is None else f"{spec.dimension} numbers a tile",
            "" if spec.mpp is None else f"made for {spec.mpp:g} µm a pixel",
            "reads sentences" if spec.text else "",
            f"licence: {spec.licence}",
            "given out on request" if spec.gated else "",
        ]
        table.add_row(spec.name, f"{spec.title}\n[dim]{'; '.join(fact for fact in facts if fact)}[/]", place)
    Console().print(table)


@encoders_app.command("fetch")
def encoders_fetch(name: Annotated[str, typer.Argument(help="Name of the encoder.")]) -> None:
    """Fetch the weights of an encoder from the Hugging Face hub, under their own licence.

    They go to NAPARI_PBIP_WEIGHTS if that names a folder, else to the Hugging Face cache.

    Example: napari-pbip encoders fetch phikon-v2
    """
    from napari_pbip.engine.fetch_weights import fetch_weights

    summary = follow(fetch_weights(name))
    console.print(f"Weights of {name} in {summary['folder']}", highlight=False)


@bank_app.command("build")
def bank_build(
    tiles: Annotated[Path, typer.Argument(help="Folder (or CSV) of labelled tiles.")],
    out: Annotated[Path, typer.Option(help="Folder of the bank.")],
    encoder: Annotated[str | None, typer.Option(help="Encoder of the catalogue (see encoders).")] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder with the encoder's weights.")] = None,
    k: Annotated[str | None, typer.Option(help="Clusters a class: a number or auto.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the clustering.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    job: JobOption = None,
    assignments: Set = None,
    update: Annotated[
        bool, typer.Option("--update", help="Change an earlier bank; only what differs is computed.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Build an image bank: features of single-class tiles, clusters, prototypes.

    Example: napari-pbip bank build tiles/ --out bank/ --k 3
    """
    from napari_pbip.bank import load_single_tiles
    from napari_pbip.engine.build_bank import build_bank

    clusters = int(k) if k is not None and k.isdecimal() else k
    options = {
        "data.folder": tiles,
        "bank.encoder": encoder,
        "bank.weights": weights,
        "bank.k": clusters,
        "bank.seed": seed,
    }
    settings = settings_from(job, assignments, options)
    tile_set = load_single_tiles(tiles, settings.data)
    building = build_bank(
        tile_set, settings.bank, settings.data, out, device=device, overwrite=overwrite, update=update
    )
    summary = follow(building)
    console.print(f"Bank of {summary['tiles']} tiles and {summary['prototypes']} prototypes in {out}", highlight=False)


@bank_app.command("show")
def bank_show(
    bank: Annotated[Path, typer.Argument(help="Folder of the bank.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the pictures; by default BANK/sheets.")] = None,
) -> None:
    """Print a bank's clusters and what to look at, and write a contact sheet a class, nearest tiles first.

    Example: napari-pbip bank show bank/
    """
    from napari_pbip.bank import Curation, ImageBank, bank_warnings, cluster_table, near_duplicates, write_sheets

    image_bank = ImageBank.read(bank)
    rows = cluster_table(image_bank)
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)
    for sentence in bank_warnings(image_bank, near_duplicates(image_bank), Curation.read(bank)):
        typer.echo(sentence, err=True)  # the output proper lists files
    for path in write_sheets(image_bank, bank, out or bank / "sheets"):
        typer.echo(path)


@bank_app.command("classify")
def bank_classify(
    bank: Annotated[Path, typer.Argument(help="Folder of the bank.")],
    tiles: Annotated[Path, typer.Argument(help="Folder (or CSV) of tiles.")],
    weights: Annotated[Path | None, typer.Option(help="Folder with the encoder's weights.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    job: JobOption = None,
    assignments: Set = None,
    json_out: JsonOut = None,
) -> None:
    """Name the nearest prototype of each tile; accuracy and F1 where folders name the classes.

    Example: napari-pbip bank classify bank/ tiles/ --json nearest.json
    """
    from napari_pbip.engine.build_bank import classify

    settings = settings_from(job, assignments, {"data.folder": tiles, "bank.weights": weights})
    summary = follow(classify(bank, settings.data, weights=settings.bank.weights, device=device))
    if summary.get("accuracy") is not None:
        table = Table("class", "F1 %")
        for name, value in summary["f1"].items():
            table.add_row(name, f"{value:.1f}")
        Console().print(table)
        typer.echo(f"accuracy {summary['accuracy']:.1f} % on {summary['tiles']} tiles")
    report_json(json_out, summary)


@app.command("zero-shot")
def zero_shot(
    tiles: Annotated[Path, typer.Argument(help="Folder (or CSV) of labelled tiles.")],
    encoder: Annotated[str | None, typer.Option(help="Encoder with a text tower (see encoders).")] = None,
    bank: Annotated[Path | None, typer.Option(help="Image bank, for image prompts; it names its encoder.")] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val or test; by default the tiles banks are made of.")
    ] = None,
    sentence: Annotated[
        list[str] | None, typer.Option(metavar="CLASS=TEXT", help="A sentence for a class instead of the default.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder with the encoder's weights.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    job: JobOption = None,
    assignments: Set = None,
    json_out: JsonOut = None,
) -> None:
    """Classify tiles without training, by a sentence a class and by a bank's prototypes; accuracy and F1 of each.

    Examples:

    napari-pbip zero-shot tiles/ --encoder plip --sentence "TUM=a photo of tumor"

    napari-pbip zero-shot tiles/ --bank bank/ --json table6.json
    """
    from napari_pbip.engine.zero_shot import zero_shot as run

    settings = settings_from(job, assignments, {"data.folder": tiles, "bank.weights": weights})
    options: dict[str, Any] = {"encoder": encoder, "bank": bank, "weights": settings.bank.weights, "device": device}
    summary = follow(run(settings.data, split=split, sentences=_sentences(sentence or ()), **options))
    scores = summary["prompts"]
    table = Table("class", *(f"{prompt}: {figure} %" for prompt in scores for figure in ("accuracy", "F1")))
    rows = {name: [s[f].get(name) for s in scores.values() for f in ("recall", "f1")] for name in summary["classes"]}
    rows["mean"] = [s[f"{f}_mean"] for s in scores.values() for f in ("recall", "f1")]
    for name, row in rows.items():
        table.add_row(name, *("–" if value is None else f"{value:.1f}" for value in row))
    Console().print(table)
    for prompt, figures in scores.items():
        typer.echo(f"{prompt} prompt: accuracy {figures['accuracy']:.1f} % on {summary['tiles']} tiles")
    report_json(json_out, summary)


def _sentences(assignments: Sequence[str]) -> dict[str, str]:
    """``CLASS=TEXT`` options as a sentence by class."""
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
        float | None, typer.Option(help="Microns per pixel of images whose file does not say.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed.")] = None,
    job: JobOption = None,
    assignments: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a pre-training that was stopped.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Teach a backbone on slides that nobody labelled; trainings and banks can then start from it.

    Examples:

    napari-pbip pretrain archive/ --out pretrained/ --steps 10000

    napari-pbip train --data tiles/ --out run/ --set backbone.weights=pretrained
    """
    from napari_pbip.engine.pretrain import pretrain as run

    values = override(PretrainSettings.read_values(job) if job else {}, assignments or [])
    given = {"images": images or None, "steps": steps, "image_mpp": image_mpp, "seed": seed}
    settings = PretrainSettings.parse({**values, **{name: value for name, value in given.items() if value is not None}})
    summary = follow(run(settings, out, resume=resume, overwrite=overwrite))
    console.print(f"Pre-trained {summary['steps']} steps in {summary['seconds']:.0f} s: {out}", highlight=False)


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    job: JobFile = None,
    method: Annotated[str | None, typer.Option(help="pbip, lpd, construct or cam.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of labelled tiles.")] = None,
    bank: Annotated[Path | None, typer.Option(help="Image bank; without it one is built from the data.")] = None,
    backbone: Annotated[str | None, typer.Option(help="mit-b0, resnet50 ...: see docs/methods.md.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Times the tiles are seen.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed.")] = None,
    assignments: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a model on image-level labels.

    Examples:

    napari-pbip train job.yaml --out run/

    napari-pbip train --method pbip --data tiles/ --bank bank/ --backbone mit-b0 --epochs 8 --seed 0 --out run/
    """
    from napari_pbip.engine.train import train as run

    options = {
        "method.name": method,
        "data.folder": data,
        "bank_folder": bank,
        "backbone.name": backbone,
        "train.epochs": epochs,
        "train.seed": seed,
    }
    settings = settings_from(job, assignments, options)
    summary = follow(run(settings, out, resume=resume, overwrite=overwrite))
    score = (
        "" if summary["miou"] is None else f", best validation mIoU {summary['miou']:.1f} % in epoch {summary['epoch']}"
    )
    console.print(f"Trained {summary['steps']} steps in {summary['seconds']:.0f} s{score}: {out}", highlight=False)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a training.")],
    data: Annotated[Path, typer.Argument(help="Folder of tiles with masks.")],
    split: Annotated[str, typer.Option(help="test or val.")] = "test",
    last: Annotated[bool, typer.Option("--last", help="The last model instead of the best.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    job: JobOption = None,
    assignments: Set = None,
    json_out: JsonOut = None,
) -> None:
    """Score a model on tiles with masks, with true (oracle) and with predicted image-level labels.

    Example: napari-pbip evaluate run/ tiles/ --split test --json scores.json
    """
    from napari_pbip.engine.evaluate import evaluate as score

    settings = settings_from(job, assignments, {"data.folder": data})
    summary = follow(
        score(run, settings.data, split, which="last" if last else "best", device=device, refine=settings.refine)
    )
    table = Table("protocol", "mIoU", "FwIoU", "bIoU", "Dice", *(f"IoU {name}" for name in summary["classes"]))
    for protocol, figures in summary["protocols"].items():
        row = [figures[m] for m in ("miou", "fwiou", "biou", "dice")]
        row += [figures["per_class"][name]["iou"] for name in summary["classes"]]
        table.add_row(protocol, *("–" if value is None else f"{value:.2f}" for value in row))
    Console().print(table)
    report_json(json_out, summary)


@app.command()
def compare(
    job: Annotated[Path, typer.Argument(help="Settings file (YAML) with a section 'compare'.")],
    out: Annotated[Path, typer.Option(help="Folder of the comparison; what lies there already is not done again.")],
    data: Annotated[Path | None, typer.Option(help="Folder of labelled tiles.")] = None,
    assignments: Set = None,
    overwrite: Overwrite = False,
) -> None:
    """Train and score methods, encoders or settings with several seeds: results.csv, table.csv, report.html.

    Example: napari-pbip compare docs/reproduce/table2.yaml --data BCSS-WSSS/ --out table2/
    """
    from napari_pbip.engine.compare import compare as run

    values = override(CompareJob.read_values(job), assignments or [])
    if data is not None:
        values = override(values, [f"data.folder={json.dumps(str(data))}"])
    summary = follow(run(values, out, overwrite=overwrite))
    console.print(f"Report: {summary['report']}", highlight=False, soft_wrap=True)
    if summary["failed"]:
        console.print(f"{summary['failed']} of {len(summary['runs'])} runs failed; mend that, and call it again.")
        raise typer.Exit(1)


@app.command()
def segment(
    slide: Annotated[Path, typer.Argument(help="Slide file or folder.")],
    model: Annotated[Path, typer.Option(help="Folder of a training.")],
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    mpp: Annotated[float | None, typer.Option(help="Microns per pixel, where the slide does not say.")] = None,
    tissue: Annotated[Path | None, typer.Option(help="A tissue mask of your own (an image).")] = None,
    job: JobOption = None,
    assignments: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in the middle of the slide.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Segment a slide: DIR/<slide>.ome.zarr with scores and labels, overlay.png, areas.csv.

    Example: napari-pbip segment slide.svs --model run/ --out result/
    """
    from napari_pbip.engine.segment import segment as run

    settings = settings_from(job, assignments, {"segment.mpp": mpp, "segment.tissue_mask": tissue})
    segmenting = run(
        slide,
        model,
        out,
        settings.segment,
        settings.thresholds,
        refine=settings.refine,
        resume=resume,
        overwrite=overwrite,
    )
    summary = follow(segmenting)
    table = Table("class", "area mm²", "% of tissue")
    for row in summary["areas"]:
        table.add_row(row["name"], f"{row['area_mm2']:.4f}", f"{row['percent_of_tissue']:.1f}")
    Console().print(table)
    console.print(f"Results in {out}", highlight=False)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    overwrite: Overwrite = False,
) -> None:
    """Run the whole path on bundled real tissue: bank, training, scores, a segmented slide (about ten minutes).

    Example: napari-pbip demo --out demo-result/
    """
    from napari_pbip.engine.demo import demo as run

    summary = follow(run(out, overwrite=overwrite))
    typer.echo(json.dumps(summary, indent=2))
