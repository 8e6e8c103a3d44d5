"""The job that measures the maps of many slides and writes one table of all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path

from napari_pbip.config import RefineSettings, ThresholdSettings
from napari_pbip.engine.jobs import job
from napari_pbip.engine.outputs.export import labels_at
from napari_pbip.errors import OutputError, PbipError
from napari_pbip.events import Finished, Job, Warned
from napari_pbip.results.statistics import measure_statistics
from napari_pbip.results.statistics_table import Statistic, mean_of_models, over_slides, write_rows
from napari_pbip.results.store import ScoreStore


@job
def cohort_statistics(
    stores: Mapping[Path, ThresholdSettings | None], out: Path, refine: RefineSettings | None = None
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

    Yields
    ------
    Event
        ``Warned`` for a result that is left out or unfinished; ``Finished`` with the numbers of ``slides``, ``results``
        and ``failed`` results.

    Raises
    ------
    OutputError
        If there are no results, none can be measured, or the table cannot be written.
    """
    if not stores:
        raise OutputError("There are no results to measure; segment slides first, or name the folder they are in.")
    of_slides: dict[str, list[list[Statistic]]] = defaultdict(list)
    failed = 0
    for path, thresholds in stores.items():
        try:
            store = ScoreStore.open(path)
            done, planned = store.progress
            if done < planned:
                yield Warned(
                    f"Only {done:,} of {planned:,} tiles of {path} are segmented; its values are of these alone."
                )
            with ExitStack() as stack:
                folder = yield from labels_at(stack, store, thresholds, refine)
                with closing(measure_statistics(store, folder)) as measuring:
                    rows = yield from measuring
            of_slides[store.facts.slide.identity].append(rows)
        except PbipError as error:
            failed += 1
            yield Warned(f"{path} is left out: {error}")
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
    yield Finished(out, {"slides": len(of_slides), "results": len(stores) - failed, "failed": failed})
