"""The table of statistics: a row for each quantity of a slide, of several results of it, and of all slides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from napari_pbip.results.areas import LEFT_OUT_NAME
from napari_pbip.results.provenance import Provenance, header_with_provenance, write_with_provenance
from napari_pbip.slides.regions import WHOLE

ALL, MEAN, DEVIATION = "all slides", "mean of slides", "standard deviation of slides"
"""What stands for the name of a slide in the rows of :func:`over_slides`."""
AREA, SHARE, SHARE_OF_BOTH, CORRECTED = "area", "share of tissue", "share of both", "area corrected by hand"
PATCHES, LARGEST, MEDIAN, INTERFACE = "patches", "largest patch", "median patch", "interface"
_SUMMED = frozenset({AREA, CORRECTED, PATCHES, INTERFACE})
Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Statistic:
    """One row of the table of statistics."""

    slide: str
    identity: str
    """Identity of the slide; empty in a row of several slides."""
    result: str
    """Path of the score store; empty in a row of several results."""
    model: str
    """Name of the run, or how many there are."""
    region: str
    """Name of a region; ``WHOLE`` for all that counts on the slide."""
    name: str
    """Class name, ``not assigned``, or ``not analysed``."""
    other: str
    """Name of the other class of a quantity of two classes, else empty."""
    quantity: str
    unit: str
    """``mm2``, ``mm``, ``percent``, or ``count``."""
    value: float
    """An integer if it is a count."""
    low: float | None = None
    """Lower end of the range of values, or None if there is none."""
    high: float | None = None
    """Upper end."""
    range: str = ""
    """What the range is over: ``thresholds``, ``models``, or ``slides``."""
    slides: int = 1
    """Number of slides that the value is of."""
    provenance: Provenance | None = None
    """What it comes from; None in a row of several results or slides."""

    @property
    def key(self) -> Key:
        """What is measured of a slide: region, names of the classes, and quantity."""
        return self.region, self.name, self.other, self.quantity

    def between(self, values: Sequence[float], over: str) -> Statistic:
        """Return the row with the range of its value and these ones; without a range if there are none."""
        if not values:
            return self
        every = (self.value, *values)
        return replace(self, low=min(every), high=max(every), range=over)


_OWN = (
    "slide", "identity", "result", "model", "region", "class", "other", "quantity", "unit", "value",
    "low", "high", "range", "slides",
)  # fmt: skip
COLUMNS = header_with_provenance(_OWN)
"""The columns of the table: the fields of :class:`Statistic`, in whose place ``class`` is ``name``."""


def write_rows(path: Path, rows: Iterable[Statistic]) -> None:
    """Write statistics with the header :data:`COLUMNS`, as :func:`~napari_pbip.files.write_table` does."""
    names = [field.name for field in fields(Statistic)][: len(_OWN)]
    table = (([getattr(row, name) for name in names], row.provenance, row.name) for row in rows)
    write_with_provenance(path, _OWN, table)


def mean_of_models(results: Sequence[Sequence[Statistic]]) -> Iterator[Statistic]:
    """Return the mean of each quantity over several results of one slide, and its range over them.

    A quantity that is not defined in all results has no row.
    """
    first, *others = results
    found = [{row.key: row.value for row in other} for other in others]
    for row in first:
        values = [other[row.key] for other in found if row.key in other]
        if len(values) == len(others):
            of_all = row.between(values, "models")
            mean = float(np.mean([row.value, *values]))
            model = f"mean of {len(results)} models"
            yield replace(of_all, result="", model=model, value=mean, provenance=None)


def over_slides(slides: Sequence[Sequence[Statistic]]) -> Iterator[Statistic]:
    """Return each quantity of all slides together, its mean over slides, and its standard deviation between them.

    The slides together, :data:`ALL`, have the sum of areas, numbers of patches and lengths, the largest patch, and
    shares of the summed areas. The mean, :data:`MEAN`, has the range over slides; the standard deviation is that of a
    sample (n - 1). A slide on which a quantity is not defined does not count for it. Regions count together if they
    have the same name, and have rows if two slides have such a region.

    Parameters
    ----------
    slides
        The rows of each slide: one for each quantity.
    """
    if len(slides) < 2:
        return
    tables = [{row.key: row for row in rows} for rows in slides]
    for key in dict.fromkeys(key for table in tables for key in table):
        known = [table for table in tables if key in table]
        rows = [table[key] for table in known]
        if key[0] != WHOLE and len(rows) < 2:
            continue
        models = list(dict.fromkeys(row.model for row in rows))
        of_all = replace(
            rows[0],
            slide=ALL,
            identity="",
            result="",
            model=models[0] if len(models) == 1 else f"{len(models)} models",
            low=None,
            high=None,
            range="",
            slides=len(rows),
            provenance=None,
        )
        values = [row.value for row in rows]
        if (together := _together(key, known)) is not None:
            yield replace(of_all, value=together)
        if of_all.name == LEFT_OUT_NAME or of_all.quantity == CORRECTED:
            continue  # which slides without it do not list, so that a mean would be of the others alone
        yield replace(
            of_all, slide=MEAN, value=float(np.mean(values)), low=min(values), high=max(values), range="slides"
        )
        if len(values) > 1:
            yield replace(of_all, slide=DEVIATION, value=float(np.std(values, ddof=1)))


def _together(key: Key, slides: Sequence[Mapping[Key, Statistic]]) -> float | None:
    """Return a quantity of all slides together; None if it does not follow from those of the slides."""
    values = [slide[key].value for slide in slides]
    quantity = key[-1]
    if quantity == MEDIAN:
        return None
    if quantity in _SUMMED:
        return sum(values)
    if quantity == LARGEST:
        return max(values)
    weights = [_weight(key, slide) for slide in slides]
    return float(np.average(values, weights=weights)) if sum(weights) else None


def _weight(key: Key, slide: Mapping[Key, Statistic]) -> float:
    """Return the area in mm² that a share is a share of."""
    region, name, other, quantity = key
    if quantity == SHARE:
        return sum(
            row.value
            for row in slide.values()
            if row.region == region and row.quantity == AREA and row.name != LEFT_OUT_NAME
        )
    names = (name, other) if quantity == SHARE_OF_BOTH else (name,)
    return sum(slide[region, one, "", AREA].value for one in names)
