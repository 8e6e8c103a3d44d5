"""What a map and its figures come from, as every export says it: slide, model, thresholds, when, and by whom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_pbip.config import ThresholdSettings
from napari_pbip.files import write_table
from napari_pbip.provenance import Made
from napari_pbip.results.store_facts import StoreFacts
from napari_pbip.taxonomy import Taxonomy

COLUMNS = (
    "slide", "identity", "mpp", "mpp_from", "model", "weights", "bank", "delta", "presence", "scope", "percentile",
    "smoothing_um", "refined", "regions", "scores_made", "labels_made",
)  # fmt: skip
"""The columns of :meth:`Provenance.columns`."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What scores, and the labels that were made from them, come from."""

    facts: StoreFacts
    """Facts of the score store."""
    thresholds: ThresholdSettings | None = None
    """Thresholds by which scores became labels; None if it is of scores alone."""
    refined: bool = False
    """Whether the labels were refined by a dense CRF."""
    regions: str = ""
    """Identity of the regions by which cells counted; empty if the whole slide was."""
    labels_made: Made | None = None
    """When the labels were made, and by whom; None if that is not recorded."""
    corrected_mm2: float = 0.0
    """Area that was corrected by hand."""

    def values(self, shown: Taxonomy | None = None) -> dict[str, Any]:
        """Return it as values of JSON, with the names of those classes that are ``shown`` under others, as titles."""
        slide, model = self.facts.slide, self.facts.model
        of_scores = {
            "slide": slide.name,
            "slide_identity": slide.identity,
            "microns_per_pixel": slide.mpp,
            "microns_per_pixel_from": slide.mpp_from,
            "model": model.run,
            "weights": model.hash,
            "bank": model.bank,
            "scores_made": _text(self.facts.made),
        }
        if shown is not None:
            pairs = zip(self.facts.classes, shown, strict=True)
            if titles := {own.name: one.name for own, one in pairs if own.name != one.name}:
                of_scores["titles"] = titles
        if self.thresholds is None:
            return of_scores
        return of_scores | {
            "thresholds": self.thresholds.model_dump(mode="json"),
            "refined": self.refined,
            "regions": self.regions or None,
            "corrected_by_hand_mm2": self.corrected_mm2,
            "labels_made": _text(self.labels_made),
        }

    def columns(self, name: str) -> dict[str, object]:
        """Return it as :data:`COLUMNS` of a row of a table.

        ``delta`` is that of the class of this name, or the common one if the name is empty; what is no class has none.
        """
        slide, model, thresholds = self.facts.slide, self.facts.model, self.thresholds or ThresholdSettings()
        names = {one.name for one in self.facts.classes}
        values = (
            slide.name,
            slide.identity,
            slide.mpp,
            slide.mpp_from,
            model.run,
            model.hash,
            model.bank,
            thresholds.class_delta.get(name, thresholds.delta) if not name or name in names else None,
            thresholds.presence,
            thresholds.scope,
            thresholds.percentile,
            thresholds.smoothing_um,
            self.refined,
            self.regions or None,
            _text(self.facts.made),
            _text(self.labels_made),
        )
        return dict(zip(COLUMNS, values, strict=True))


def header_with_provenance(header: Sequence[str]) -> tuple[str, ...]:
    """Return the header of a table to which the :data:`COLUMNS` are added that it does not have."""
    return (*header, *(name for name in COLUMNS if name not in header))


def write_with_provenance(
    path: Path, header: Sequence[str], rows: Iterable[tuple[Sequence[object], Provenance | None, str]]
) -> None:
    """Write a table as :func:`write_table` does, with :func:`header_with_provenance`; raises as it does.

    Parameters
    ----------
    path
        The file.
    header
        The columns of the table itself.
    rows
        Of each row its fields, what they come from, which is left empty if it is None, and the name of the class that
        the row is of, if it is of one.
    """
    added = header_with_provenance(header)[len(header) :]
    empty: dict[str, object] = dict.fromkeys(COLUMNS)
    table = []
    for fields, provenance, name in rows:
        columns = empty if provenance is None else provenance.columns(name)
        table.append((*fields, *(columns[one] for one in added)))
    write_table(path, (*header, *added), table)


def _text(made: Made | None) -> str | None:
    return None if made is None else str(made)
