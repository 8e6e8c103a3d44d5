"""The question before maps of slides are deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qtpy.compat import isalive
from qtpy.QtWidgets import QWidget

from napari_pbip.errors import PbipError
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.widgets.question import ask
from napari_pbip.results.corrections import sittings_in
from napari_pbip.results.slide_maps import StoredMap

_NAMED = 3
"""Largest number of maps that are described one by one."""


@dataclass(frozen=True, slots=True)
class _About:
    """What the question says of a map."""

    slide: str
    made: str
    """When it was made, in UTC; empty if that is not known."""
    corrections: str
    """Who corrected it, when, and how much; empty if nobody did."""

    @property
    def line(self) -> str:
        """The slide, when the map was made, and its corrections."""
        made = f"made on {self.made} (UTC)" if self.made else "made at an unknown time"
        corrected = f", and corrected by hand: {self.corrections}" if self.corrections else ""
        return f"{self.slide}: {made}{corrected}."


def ask_to_delete(parent: QWidget, session: Session, stores: Mapping[Path, Path], title: str) -> None:
    """Delete maps if the user agrees; what the question says of them is read in a thread.

    Parameters
    ----------
    parent
        Over which the dialog opens.
    session
        The session.
    stores
        The score stores of the maps, by the paths of their slides.
    title
        What the maps are called.
    """
    folder = session.folder

    def then(maps: Sequence[_About]) -> None:
        if not isalive(parent) or folder != session.folder:  # type: ignore[no-untyped-call]  # qtpy's
            return
        what = f"the map of {maps[0].slide}" if len(maps) == 1 else f"the maps of {len(maps):,} slides"
        ask(
            parent,
            "Delete a map",
            f"Delete {what} by “{title}”?",
            {"Delete": lambda: session.maps.delete(stores)},
            _details(maps),
        )

    if stores:
        session.in_thread(lambda: [_about(slide, store) for slide, store in stores.items()], then)


def _details(maps: Sequence[_About]) -> str:
    corrected = [one for one in maps if one.corrections]
    named = sorted(maps, key=lambda one: not one.corrections)[:_NAMED]
    lines = [one.line for one in named]
    if len(maps) > _NAMED:
        lines.append(f"And {len(maps) - _NAMED:,} more.")
    if corrected:
        what = "The corrections are" if len(maps) == 1 else f"The corrections of {len(corrected):,} of them are"
        lines.append(f"{what} deleted, too.")
    lines.append("Undo brings everything back until the project is closed. Slides, regions and models stay.")
    return "\n".join(lines)


def _about(slide: Path, store: Path) -> _About:
    try:
        corrections = "; ".join(
            f"{one.who or 'somebody'} on {one.changes[-1][0]:%Y-%m-%d}, {sum(n for _, n in one.changes):,} cells"
            for one in sittings_in(store)
            if one.changes
        )
    except PbipError:
        corrections = "what was corrected cannot be read"
    return _About(slide.name, StoredMap.read(store).made, corrections)
