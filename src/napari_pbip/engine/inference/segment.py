"""The job that segments a slide with a trained model: tissue tiles -> score store -> labels, areas, overlay.

How the scores are computed and written is in :mod:`~napari_pbip.engine.inference.fill_store`.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from napari_pbip.claims import claims
from napari_pbip.config import RefineSettings, SegmentSettings, ThresholdSettings, TrainedSettings
from napari_pbip.engine.cluster.connect import Scheduler, connected
from napari_pbip.engine.device import choose_device
from napari_pbip.engine.inference.at_address import FoundResult, at_address
from napari_pbip.engine.inference.fill_store import Focus, fill_store
from napari_pbip.engine.inference.refine import refined_labels
from napari_pbip.engine.inference.slide_tiles import TileWork
from napari_pbip.engine.inference.windows import Windows
from napari_pbip.engine.jobs import job
from napari_pbip.engine.object_store import is_address
from napari_pbip.engine.runs import TrainedModel, load_model
from napari_pbip.errors import OutputError, SlideError
from napari_pbip.events import Event, Finished, Job, Loading, Noted, Warned
from napari_pbip.results.areas import write_areas
from napari_pbip.results.label_files import write_labels
from napari_pbip.results.labels import deltas
from napari_pbip.results.overlay import write_overlay
from napari_pbip.results.places import AREAS, OVERLAY, OVERLAY_SIDE, regions_file, store_for, stores_in
from napari_pbip.results.planning import needed_tiles, planned_tiles, stored_tissue
from napari_pbip.results.store import ScoreStore
from napari_pbip.results.store_facts import GridFacts, settings_of_scores
from napari_pbip.slides import Slide, SlideFacts, TileGrid, TissueMask, find_tissue, open_slide
from napari_pbip.slides.regions import Regions


@job(less_memory="use a smaller `segment.batch_size`")
def segment(
    slide: Path | str | Slide,
    run: Path | str,
    out: Path | str,
    settings: SegmentSettings | None = None,
    thresholds: ThresholdSettings | None = None,
    *,
    refine: RefineSettings | None = None,
    regions: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    focus: Focus | None = None,
    scheduler: Scheduler = None,
    scratch: Path | str | None = None,
) -> Job:
    """Segment a slide; yield a ``Step`` for each batch, and a ``RegionDone`` for each block with new scores on disk.

    The job writes ``<slide>.ome.zarr`` (raw scores, labels, tissue, provenance), ``overlay.png`` and ``areas.csv``.
    Tiles that are partly damaged are not analysed; a ``Warned`` at the end names the places.

    Parameters
    ----------
    slide
        File or folder of the slide, or an open slide (for example from :meth:`Slide.from_array`), which stays open.
    run
        Folder of a training; its best model is used.
    out
        Folder of the results, one for each slide, or one in ``further-maps`` there, for the map of another model or
        with other settings; or an address on an object store, such as ``s3://bucket/folder``, to which the results are
        uploaded when they are finished.
    settings
        Settings of reading, tissue and network; the defaults if None.
    thresholds
        Thresholds that turn scores into labels; they can be changed later without this job.
    refine
        Test-time augmentation of the scores and dense CRF of the labels; by default neither.
    regions
        GeoJSON with regions, of QuPath or of this package: only tiles that touch what counts are computed. It is kept
        as ``regions.geojson`` in the slide's folder; by default, that file is used if it exists.
    resume
        Whether to continue a store that was begun with the same slide, model and settings.
    overwrite
        Whether to replace an earlier store of this slide.
    focus
        Returns the rectangle whose tiles come first; called between tiles, in the thread that runs the job. A change
        takes effect after two batches, the one that is read ahead and the one in the network; on a graphics card, which
        has two, after three.
    scheduler
        Whose workers compute parts of the slide (:attr:`JobSettings.scheduler`, or an open client of dask.distributed).
    scratch
        Folder of this machine for results until they are uploaded to an address; by default in the user's cache folder.

    Yields
    ------
    Event
        ``Loading``; those above; for an address ``Started`` and ``Step`` of the upload; ``Finished`` with ``store``,
        ``areas`` and other figures; of a result that is at the address already, with the store and ``already`` alone.

    Raises
    ------
    ConfigError
        If the thresholds name a class that the model does not have.
    SlideError
        If the slide cannot be read, does not say its microns per pixel, or shows no tissue.
    DataError
        If the regions cannot be read, lie outside the slide, or leave out all of it.
    ModelError
        If the model cannot be read.
    OutputError
        If the store exists and is neither resumed nor replaced, differs from what is to be resumed, or cannot
        be written.
    ClusterError
        If the scheduler or its workers cannot be reached or used, or are lost.
    """
    request = _Request(
        slide,
        Path(run),
        settings or SegmentSettings(),
        thresholds or ThresholdSettings(),
        refine or RefineSettings(),
        regions,
    )
    into = partial(_segment, request, focus=focus, scheduler=scheduler)
    if is_address(out):
        would_change = partial(_would_change, request)
        yield from at_address(str(out), into, would_change, scratch=scratch, resume=resume, overwrite=overwrite)
    else:
        yield from into(Path(out), resume=resume, overwrite=overwrite)


@dataclass(frozen=True)
class _Request:
    """What is segmented, and how; the parameters of :func:`segment` that decide the result."""

    slide: Path | str | Slide
    run: Path
    settings: SegmentSettings
    thresholds: ThresholdSettings
    refine: RefineSettings
    regions: Path | str | None


@claims("out", "segmenting")
def _segment(
    request: _Request, out: Path, *, resume: bool, overwrite: bool, focus: Focus | None, scheduler: Scheduler
) -> Job:
    """Segment a slide into a folder of this machine."""
    began = time.monotonic()
    settings, thresholds, refine = request.settings, request.thresholds, request.refine
    device = choose_device(settings.device)
    yield Loading(f"the model {request.run.name}")
    model = load_model(request.run, "best", device)
    deltas(model.facts.taxonomy, thresholds)  # raises for an unknown class now rather than after hours of work
    if model.note:
        yield Warned(model.note)
    with _opened(request) as slide:
        for note in slide.notes:
            yield Warned(note)
        grid, model_mpp = _grid(slide, model, settings)
        if model.facts.settings.data.mpp is None:
            yield Warned(
                f"The microns per pixel of the tiles that this model was trained on are not known, so the slide is "
                f"read pixel for pixel at its own {model_mpp:.4g}; to be sure of the scale, give those of the tiles "
                "with `data.mpp` and train again."
            )
        drawn = _regions(out, slide, request.regions, overwrite=overwrite)
        facts = _facts(slide, model, request, grid, model_mpp)
        path = _path_of_store(out, slide)
        with connected(scheduler) as cluster:
            if resume and path in stores_in(out):
                store = _resumed(path, slide, drawn, facts)
            else:
                store = yield from _created(path, slide, model, grid, settings, drawn, facts, overwrite=overwrite)
            if drawn:
                kept = regions_file(out)
                replace(drawn, size=(slide.width, slide.height)).write(kept)
                yield Noted(f"What is analysed follows the regions in {kept} ({len(drawn):,}).")
            # of the whole slide, so that a resumed job computes as it began
            expected = float(store.planned.sum()) * grid.tile**2
            work = TileWork(settings, refine.tta, grid, model_mpp, expected)
            with store:
                yield from fill_store(store, slide, model, work, device, focus, cluster)
        write_labels(store, thresholds, refined_labels(store, slide, thresholds, device) if refine.crf else None)
        table = write_areas(out / AREAS, store)
        write_overlay(out / OVERLAY, store, slide.thumbnail(OVERLAY_SIDE))
    summary = {
        "store": str(store.path),
        "tiles": store.analysed,
        "tissue_mm2": stored_tissue(store).area_mm2,
        "left_out_mm2": store.left_out_mm2,
        "areas": [asdict(row) for row in table],
        "seconds": time.monotonic() - began,
    }
    yield Finished(out, summary)


def _opened(request: _Request) -> AbstractContextManager[Slide]:
    """Return the slide as a context manager, which closes it only if it was opened here."""
    slide, mpp = request.slide, request.settings.mpp
    if hasattr(slide, "dtype"):
        raise SlideError(
            "An array does not say its microns per pixel; give segment() a Slide.from_array(array, mpp=0.5)."
        )
    if not isinstance(slide, Slide):
        return open_slide(slide, mpp)
    if mpp is not None:
        slide.give_mpp(mpp)
    return nullcontext(slide)


def _regions(out: Path, slide: Slide, given: Path | str | None, *, overwrite: bool) -> Regions:
    """Return the regions of a slide: the given ones, else those in its folder of results."""
    kept = regions_file(out)
    if given is None and not kept.exists():
        return Regions()
    regions = Regions.read(Path(given or kept))
    regions.check_on(slide)
    if given is not None and kept.exists() and not overwrite and Regions.read(kept).identity != regions.identity:
        raise OutputError(
            f"{kept} holds other regions; leave `regions` out to use those, or use `overwrite=True` to replace them "
            "and the result."
        )
    return regions


def _path_of_store(out: Path, slide: Slide) -> Path:
    """Return the path of the store of a slide in a folder of results; it need not exist."""
    path = store_for(out, slide.name, slide.identity)
    if others := [other.name for other in stores_in(out) if other != path]:
        raise _of_another_slide(out, others[0])
    return path


def _of_another_slide(out: object, store: str) -> OutputError:
    return OutputError(f"{out} holds the result of another slide ({store}); choose another folder.")


def _resumed(path: Path, slide: Slide, regions: Regions, facts: dict[str, Any]) -> ScoreStore:
    """Return the store that is resumed. It has the tissue, for which the whole slide would be read again."""
    store = ScoreStore.open(path, "r+")
    store.facts.require_same(path, **facts)
    store.relocate(slide.path)
    store.use_regions(regions)
    if regions.identity != store.facts.regions:
        store.plan(needed_tiles(store))
    return store


def _created(
    path: Path,
    slide: Slide,
    model: TrainedModel,
    grid: TileGrid,
    settings: SegmentSettings,
    regions: Regions,
    facts: dict[str, Any],
    *,
    overwrite: bool,
) -> Generator[Event, None, ScoreStore]:
    """Find the tissue and return a new store; yield a ``Warned`` for each note on the tissue."""
    given = settings.tissue_mask
    tissue = TissueMask.read(given, slide) if given else find_tissue(slide, settings.tissue)
    for note in tissue.notes:
        yield Warned(note)
    planned = planned_tiles(grid, tissue, settings.min_tissue, regions)
    if regions and not planned.any():
        raise SlideError(
            f"No tile in the regions of {slide.name} holds enough tissue; draw them on tissue, or lower "
            "`segment.min_tissue`."
        )
    height, width = (-(-length // model.method.cell) for length in grid.model_size)
    store = ScoreStore.create(
        path,
        taxonomy=model.facts.taxonomy,
        score_shape=(height, width),
        tissue=tissue.array,
        planned=planned,
        regions=regions.identity,
        overwrite=overwrite,
        **facts,
    )
    store.use_regions(regions)
    return store


def _grid(slide: Slide, model: TrainedModel, settings: SegmentSettings) -> tuple[TileGrid, float]:
    """Return the grid of tiles and the microns per model pixel."""
    slide_mpp = slide.require_mpp()
    model_mpp = model.facts.settings.data.mpp or slide_mpp
    windows = Windows.plan(model.facts.tile_size, settings, model.facts.settings.method.window)
    return windows.grid(slide.width, slide.height, slide_mpp, model_mpp), model_mpp


def _would_change(request: _Request, found: FoundResult) -> bool:
    """Return whether resuming a finished result would change it.

    Raises
    ------
    OtherResult
        If it cannot be resumed.
    OutputError
        If it is of another slide.
    """
    model = load_model(request.run, "best", choose_device(request.settings.device))
    with _opened(request) as slide:
        if found.facts.slide.identity != slide.identity:
            raise _of_another_slide(*found.path.rsplit("/", 1))
        grid, model_mpp = _grid(slide, model, request.settings)
        found.facts.require_same(found.path, **_facts(slide, model, request, grid, model_mpp))
    regions = found.facts.regions if request.regions is None else Regions.read(Path(request.regions)).identity
    wanted = (request.thresholds, request.refine.crf, regions)
    return (found.thresholds, found.refined, found.facts.regions) != wanted


def _facts(slide: Slide, model: TrainedModel, request: _Request, grid: TileGrid, model_mpp: float) -> dict[str, Any]:
    """Return the facts on which the scores depend; the store records them, and compares them when it is resumed."""
    trained = model.facts.settings
    return {
        "slide": SlideFacts.from_slide(slide).model_dump(mode="json"),
        "model": {
            "hash": model.identity,
            "run": model.run.name,
            "folder": str(model.run.absolute()),
            "bank": (model.facts.prototypes or {}).get("bank"),
            "method": trained.method.name,
            "backbone": trained.backbone.name if isinstance(trained.method, TrainedSettings) else None,
            "versions": model.facts.versions,
            "ceiling": model.method.ceiling,
        },
        "settings": settings_of_scores(request.settings, request.refine),
        "grid": GridFacts.from_tiles(grid, model_mpp, model.method.cell).model_dump(),
    }
