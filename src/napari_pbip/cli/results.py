"""What is made of the maps of slides: ``export``, ``statistics`` and ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_pbip.cli.following import follow
from napari_pbip.cli.options import JobOption, Overwrite, Scheduler, Set, settings_from
from napari_pbip.cli.terminal import say

PLACE = "PATH|ADDRESS"
"""What the help calls a path of this machine or an address of an object store."""


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar=PLACE,
            help="The <slide>.ome.zarr that 'segment' wrote, or its address; or a folder of labelled tiles.",
        ),
    ],
    format: Annotated[
        str,
        typer.Option(
            help="Of a slide: csv, statistics, png, geojson, ome-tiff, ome-zarr, dicom-seg, scores. "
            "Of tiles: class-folders, bcss-wsss, tile-table."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File or folder to write.")],
    job: JobOption = None,
    assignments: Set = None,
    overwrite: Overwrite = False,
) -> None:
    """Export the saved labels of a slide, or labelled tiles, for other programs.

    With --job or --set, the labels are those at these thresholds. Of a result of a project, classes have the titles and
    colours of the project, but in tables, which keep their names.

    Examples:

    napari-pbip export result/slide.ome.zarr --format geojson --out slide.geojson

    napari-pbip export result/slide.ome.zarr --format csv --out strict.csv --set thresholds.delta=0.6

    napari-pbip export project/tiles/ --format bcss-wsss --out tiles-of-mine/
    """
    from napari_pbip.bank import load_tiles
    from napari_pbip.engine.outputs.export import export as run
    from napari_pbip.engine.outputs.export_tiles import TILE_FORMATS, export_tiles
    from napari_pbip.project import shown_classes

    settings = settings_from(job, assignments, {})
    if format in TILE_FORMATS:
        follow(export_tiles(load_tiles(Path(source), settings=settings.data), out, format))
    else:
        given: dict[str, Any] = {"thresholds": settings.thresholds, "refine": settings.refine}
        store = _here(source)
        shown = shown_classes(store)
        follow(
            run(store, out, format, **(given if job or assignments else {}), class_display=shown, overwrite=overwrite)
        )
    say(f"Written: {out}")


def statistics(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar=PLACE,
            help="Results (<slide>.ome.zarr), folders of them such as a project, and addresses of both.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Table to write: .csv or .parquet.")],
    job: JobOption = None,
    scheduler: Scheduler = None,
    assignments: Set = None,
) -> None:
    """Measure the maps of many slides into one table: areas, patches, interfaces, distances, each with its range.

    A slide with several results, as of models with different seeds, also has their mean and range. Of a project, only
    the map of each slide is measured that it shows. With --job or --set, the labels are those at these thresholds.

    Examples:

    napari-pbip statistics project/ --out cohort.csv

    napari-pbip statistics seed0/ seed1/ seed2/ --out cohort.parquet

    napari-pbip statistics s3://bucket/results --out cohort.csv
    """
    from napari_pbip.engine.outputs.cohort_statistics import cohort_statistics
    from napari_pbip.project import counted_stores

    settings = settings_from(job, assignments, {"scheduler": scheduler})
    thresholds = settings.thresholds if job or assignments else None
    found = {path: counted for source in sources for path, counted in counted_stores(_here(source)).items()}
    stores = dict.fromkeys((path for path, counted in found.items() if counted), thresholds)
    summary = follow(cohort_statistics(stores, out, settings.refine, scheduler=settings.scheduler))
    say(f"{summary['slides']:,} slides, {summary['results']:,} results: {out}")
    if others := len(found) - len(stores):
        say(f"Maps that are not measured because the project shows another one of their slide: {others:,}.")
    if summary["failed"]:
        raise typer.Exit(1)


def report(
    source: Annotated[
        str,
        typer.Argument(
            metavar=PLACE, help="The <slide>.ome.zarr that 'segment' wrote, its folder, its address, or a project."
        ),
    ],
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
    job: JobOption = None,
    assignments: Set = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a report of a slide or of a project: one HTML page to read, to pass on, and to print to PDF.

    With --job or --set, the labels are those at these thresholds.

    Examples:

    napari-pbip report result/slide.ome.zarr --out slide.html

    napari-pbip report project/ --out project.html
    """
    from napari_pbip.sharing import report as run

    settings = settings_from(job, assignments, {})
    given: dict[str, Any] = {"thresholds": settings.thresholds, "refine": settings.refine}
    follow(run(_here(source), out, **(given if job or assignments else {}), overwrite=overwrite))
    say(f"Written: {out}")


def _here(source: str) -> Path:
    """Return the path of results, which are first copied to this machine if they are at an address."""
    from napari_pbip.engine.fetch_results import fetch_results
    from napari_pbip.engine.object_store import is_address

    if not is_address(source):
        return Path(source)
    return Path(follow(fetch_results(source), "the same command")["folder"])
