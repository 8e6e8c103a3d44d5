"""The job that segments several slides, each into a folder of its own: one after the other, or by the workers."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from napari_pbip.config import RefineSettings, SegmentSettings, ThresholdSettings
from napari_pbip.engine.cluster.connect import Scheduler, connected
from napari_pbip.engine.cluster.jobs import Outcome, as_one, in_turn, on_workers
from napari_pbip.engine.cluster.workers import require_seen
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.jobs import job
from napari_pbip.engine.object_store import ObjectStore, is_address
from napari_pbip.engine.runs import run_identity
from napari_pbip.errors import ConfigError, SlideError
from napari_pbip.events import Finished, Job, Started
from napari_pbip.files import require_path
from napari_pbip.results.places import TISSUE, folder_name, result_folder
from napari_pbip.results.slide_maps import SlideMaps
from napari_pbip.results.store_facts import settings_of_scores
from napari_pbip.results.store_files import writing_to
from napari_pbip.slides import Slide, open_slide, slides_in


@dataclass(frozen=True)
class _How:
    """What all slides are segmented with."""

    run: Path
    out: Path | str
    settings: SegmentSettings | None
    thresholds: ThresholdSettings | None
    refine: RefineSettings | None
    resume: bool
    overwrite: bool
    scratch: Path | str | None
    scheduler: Scheduler = None


@job
def segment_slides(
    slides: Sequence[Path | str],
    run: Path | str,
    out: Path | str,
    settings: SegmentSettings | None = None,
    thresholds: ThresholdSettings | None = None,
    *,
    refine: RefineSettings | None = None,
    resume: bool = False,
    overwrite: bool = False,
    scheduler: Scheduler = None,
    scratch: Path | str | None = None,
) -> Job:
    """Segment several slides as :func:`segment` does; one that fails is reported and does not stop the others.

    Each gets a folder in ``out``, as in a project. Regions and a tissue mask that a slide has there are used. Of
    several maps that it has there, that by the same model, and of several by it that with the same settings, is
    resumed or replaced.

    Parameters
    ----------
    slides
        Slides, and folders whose slides are taken.
    run
        Folder of a training; its best model is used.
    out
        Folder of the results of all slides; or its address on an object store, such as ``s3://bucket/folder``, to which
        those of each slide are uploaded when they are finished.
    settings
        Settings of reading, tissue and network; ``mpp`` counts for slides that do not say theirs.
    thresholds, refine
        As for :func:`segment`.
    resume
        Whether to keep what is finished, and to continue what was begun with the same model and settings.
    overwrite
        Whether to replace earlier stores of these slides: that of the same model, else the first one.
    scheduler
        Where slides are segmented (:attr:`JobSettings.scheduler`, or an open client of dask.distributed). Each worker
        segments whole slides, the largest first; if there are fewer slides than workers, these share one slide after
        the other. With an address, workers need the package for it and credentials, and no folder that all see.
    scratch
        Folder of each machine for results until they are uploaded to an address; by default in the user's cache folder.

    Yields
    ------
    Event
        ``Started``; a :class:`~napari_pbip.events.RunStep` for steps of a slide and for its end; ``Warned`` for a slide
        that failed; ``Finished`` with ``slides`` (the summary of :func:`segment`, or ``error``, by path) and
        ``failed``, the number of failed slides.

    Raises
    ------
    ConfigError
        If the settings have a tissue mask, which is that of one slide.
    SlideError
        If no slide is found.
    OutputError
        If the address cannot be reached or read.
    ClusterError
        If the scheduler or its workers cannot be reached or used, or are lost.
    """
    began, out = time.monotonic(), str(out) if is_address(out) else Path(out).absolute()
    if settings is not None and settings.tissue_mask is not None:
        raise ConfigError("A tissue mask (`segment.tissue_mask`) is that of one slide; segment that one by itself.")
    paths = list(dict.fromkeys(found.absolute() for one in slides for found in slides_in(Path(one))))
    if not paths:
        raise SlideError("There is no slide to segment; name slides, or folders of them.")
    if isinstance(out, str):
        ObjectStore(out).folders()  # raises, once and not for each slide, if it cannot be reached
    how = _How(Path(run).absolute(), out, settings, thresholds, refine, resume, overwrite, scratch)
    yield Started(f"Segmenting {len(paths):,} slides", total=len(paths), unit="slides")
    with connected(scheduler) as cluster:
        outcomes: Generator[Outcome | None, None, None]
        if cluster is None:
            outcomes = in_turn(_Slides(how), paths)
        elif len(paths) < cluster.threads:
            outcomes = in_turn(_Slides(replace(how, scheduler=cluster.client)), paths)
        else:
            if isinstance(out, Path):
                require_path(out)
                with writing_to(out):  # workers look for it
                    out.mkdir(parents=True, exist_ok=True)
            paths.sort(key=_size, reverse=True)  # so that no large one is left for the end, when workers are idle
            outcomes = on_workers(cluster, _SlidesOnWorker(how), paths)
        ended = yield from as_one(outcomes, [path.name for path in paths])
    summaries = {
        path: {"error": one.error} if one.error else dict(one.summary) for path, one in zip(paths, ended, strict=True)
    }
    yield Finished(
        out if isinstance(out, Path) else None,
        {
            "slides": {str(path): summaries[path] for path in sorted(summaries)},
            "failed": sum("error" in summary for summary in summaries.values()),
            "seconds": time.monotonic() - began,
        },
    )


def folder_of_map(
    maps: SlideMaps, run: Path, settings: SegmentSettings, refine: RefineSettings | None = None, *, beside: bool = False
) -> Path:
    """Return the folder in which a slide is segmented, as :meth:`SlideMaps.folder_for`.

    Parameters
    ----------
    maps
        The maps of the slide.
    run
        Folder of the model, which is read only if there are maps.
    settings, refine
        The settings for this slide.
    beside
        Whether the map is made beside those by other models or with other settings.
    """
    weights = run_identity(run) if maps.maps else ""
    return maps.folder_for(weights, settings_of_scores(settings, refine or RefineSettings()), beside=beside)


def settings_of(
    slide: Slide, folder: Path | None, settings: SegmentSettings, given: float | None = None
) -> SegmentSettings:
    """Return the settings for a slide with a folder of results: with the tissue mask there, and its own resolution.

    Parameters
    ----------
    slide
        The slide.
    folder
        Its folder of results, if that is on this machine.
    settings
        Settings for all slides; their ``mpp`` counts for slides that do not say theirs.
    given
        Microns per pixel that the user gave for this slide, which come first.
    """
    mpp = given or (settings.mpp if slide.mpp is None else None)
    mask = settings.tissue_mask
    if mask is None and folder is not None and (folder / TISSUE).exists():
        mask = folder / TISSUE
    return settings.model_copy(update={"mpp": mpp, "tissue_mask": mask})


@dataclass(frozen=True)
class _Slides:
    """Makes the job of a slide."""

    how: _How

    def __call__(self, path: Path, begun: bool) -> Job:
        how = self.how
        with open_slide(path) as slide:
            out = _folder_of(slide, how.out)
            settings = how.settings or SegmentSettings()
            settings = settings_of(slide, out if isinstance(out, Path) else None, settings)
            if isinstance(out, Path):
                out = folder_of_map(SlideMaps.find(out, slide.name, slide.identity), how.run, settings, how.refine)
        yield from segment(
            path,
            how.run,
            out,
            settings,
            how.thresholds,
            refine=how.refine,
            resume=how.resume or begun,
            overwrite=how.overwrite and not (begun and isinstance(out, Path)),
            scheduler=how.scheduler,
            scratch=how.scratch,
        )


def _folder_of(slide: Slide, out: Path | str) -> Path | str:
    """Return the folder of a slide's results, or its address."""
    if isinstance(out, Path):
        return result_folder(out, slide.name, slide.identity)
    remote = ObjectStore(out)
    return f"{remote.address}/{folder_name(slide.name, slide.identity, remote.folders())}"


class _SlidesOnWorker(_Slides):
    def __call__(self, path: Path, begun: bool) -> Job:
        out = self.how.out
        require_seen(path, self.how.run, *([out] if isinstance(out, Path) else []))
        yield from super().__call__(path, begun)


def _size(path: Path) -> float:
    return path.stat().st_size if path.is_file() else math.inf
