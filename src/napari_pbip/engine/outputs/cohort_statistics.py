"""The job that measures the maps of many slides and writes one table of all."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from napari_pbip.config import RefineSettings, ThresholdSettings
from napari_pbip.engine.cluster.connect import Scheduler, connected
from napari_pbip.engine.cluster.jobs import as_one, in_turn, on_workers
from napari_pbip.engine.cluster.workers import require_seen
from napari_pbip.engine.jobs import job
from napari_pbip.engine.outputs.export import labels_at
from napari_pbip.errors import OutputError
from napari_pbip.events import Finished, Job, Started, Warned
from napari_pbip.results.statistics import measure_statistics
from napari_pbip.results.statistics_table import Statistic, mean_of_models, over_slides, write_rows
from napari_pbip.results.store import ScoreStore


@job
def cohort_statistics(
    stores: Mapping[Path, ThresholdSettings | None],
    out: Path,
    refine: RefineSettings | None = None,
    *,
    scheduler: Scheduler = None,
) -> Job:
    """Measure results and write one table, a row for each slide, class and quantity.

    A slide with several results, such as those of models that were trained with different seeds, has the rows of each,
    and those of their mean with the range over them. Several slides have the rows of all together, of their mean with
    the range over them, and of their standard deviation. A result that cannot be measured is reported and left out.

    Parameters
    ----------
    stores
        The score stores, each with the thresholds by which its scores become labels, or None for the labels that are
        saved in it.
    out
        The file to write: CSV, or Parquet if its name ends in ``.parquet``.
    refine
        Settings that say whether a dense CRF refines the labels of given thresholds.
    scheduler
        Whose workers measure results (:attr:`JobSettings.scheduler`, or an open client of dask.distributed).

    Yields
    ------
    Event
        ``Started``; a :class:`~napari_pbip.events.RunStep` for parts of a result and for its end; ``Warned`` for a
        result that is left out or unfinished; ``Finished`` with the numbers of ``slides``, ``results`` and ``failed``
        results.

    Raises
    ------
    OutputError
        If there are no results, none can be measured, or the table cannot be written.
    ClusterError
        If the scheduler or its workers cannot be reached or used, or are lost.
    """
    if not stores:
        raise OutputError("There are no results to measure; segment slides first, or name the folder they are in.")
    yield Started("Measuring", total=len(stores), unit="results")
    items = [(path.absolute(), thresholds) for path, thresholds in stores.items()]
    with connected(scheduler) as cluster:
        measure = _Measure(refine, at_a_distance=cluster is not None)
        outcomes = in_turn(measure, items) if cluster is None else on_workers(cluster, measure, items)
        ended = yield from as_one(outcomes, _names(list(stores)), "is left out")
    of_slides: dict[str, list[list[Statistic]]] = defaultdict(list)
    for path, one in zip(stores, ended, strict=True):
        if not one.error:
            rows = [replace(row, result=str(path)) for row in one.summary["rows"]]  # as it was given
            of_slides[one.summary["slide"]].append(rows)
    if not of_slides:
        raise OutputError("None of the results can be measured, so that no table is written; the warnings say why.")
    table: list[Statistic] = []
    slides: list[list[Statistic]] = []
    for results in of_slides.values():
        table += [row for rows in results for row in rows]
        slides.append(results[0])
        if len(results) > 1:
            slides[-1] = list(mean_of_models(results))
            table += slides[-1]
    table += over_slides(slides)
    write_rows(out, table)
    failed = sum(bool(one.error) for one in ended)
    yield Finished(out, {"slides": len(of_slides), "results": len(stores) - failed, "failed": failed})


@dataclass(frozen=True)
class _Measure:
    """Makes the job that measures one result, whose summary has the identity of its slide and its rows."""

    refine: RefineSettings | None
    at_a_distance: bool
    """Whether it runs on a worker, which may not see the files of this machine."""

    def __call__(self, item: tuple[Path, ThresholdSettings | None], begun: bool) -> Job:
        path, thresholds = item
        if self.at_a_distance:
            require_seen(path)
        store = ScoreStore.open(path)
        done, planned = store.progress
        if done < planned:
            yield Warned(f"Only {done:,} of {planned:,} tiles are segmented; its values are of these alone.")
        with ExitStack() as stack:
            folder = yield from labels_at(stack, store, thresholds, self.refine)
            with closing(measure_statistics(store, folder)) as measuring:
                rows = yield from measuring
        yield Finished(None, {"slide": store.facts.slide.identity, "rows": rows})


def _names(stores: list[Path]) -> list[str]:
    """Return what the user is told of stores: their paths in the folder that holds them all."""
    try:
        common = os.path.commonpath([store.absolute().parent for store in stores])
    except ValueError:  # several drives
        return [str(store) for store in stores]
    return [store.absolute().relative_to(common).as_posix() for store in stores]
