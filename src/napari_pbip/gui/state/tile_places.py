"""From a tile to its place on a slide of the project, and from there to the tile in the image bank."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error

from napari_pbip.bank import BankTile, Origin
from napari_pbip.bank.labelled_slides import corner
from napari_pbip.errors import DataError
from napari_pbip.gui.compat import camera_of
from napari_pbip.pictures import upright_size
from napari_pbip.project import ProjectSlide
from napari_pbip.slides import Position, SlideFacts

if TYPE_CHECKING:
    from napari_pbip.gui.state.session import Session

_TILE_ON_SCREEN = 250
"""Side on the screen, in pixels, of a tile that is brought into view."""
_PARTS = 4
"""Parts of the path of a tile's picture within the folder of labelled tiles."""


@dataclass(frozen=True, slots=True)
class _Target:
    """A square of a slide that is to be brought into view."""

    project: Path
    path: Path
    left: float
    """Micrometres from the left edge of the slide."""
    top: float
    side: float
    """Micrometres."""


class TilePlaces:
    """The places of tiles on the slides of a session's project."""

    def __init__(self, session: Session) -> None:
        self._session: Session = weakref.proxy(session)
        self._target: _Target | None = None
        session.project.changed.connect(self._arrive)

    def show_labelled(self, picture: Path) -> None:
        """Bring a tile that was labelled on a slide into view, given by its picture.

        Raises
        ------
        DataError
            If the tile has no label any more, or its slide is not in the project.
        """
        labelled, folder = self._session.labelling.labels.snapshot(), self._session.tiles_folder
        for slide, tiles in zip(labelled.slides, labelled.tiles, strict=True):
            for column, row in tiles:
                if folder / labelled.picture(slide, (column, row)) == picture:
                    self.show_square(slide, (column, row))
                    return
        raise DataError(f"{picture.name} has no label any more, so it is not shown.")

    def show_square(self, slide: SlideFacts, position: Position) -> None:
        """Bring a square of the grid of tiles of a slide into view; the slide is opened if it is not.

        Raises
        ------
        DataError
            If the slide is not in the project.
        """
        side = self._session.labelling.labels.size.microns
        known = [one for one in self._session.project.slides if one.identity == slide.identity]
        self._show(known, slide.name, position[0] * side, position[1] * side, side)

    def show(self, tile: BankTile) -> None:
        """Bring a tile of the image bank into view; its slide is opened if it is not.

        Raises
        ------
        DataError
            If it was not cut from a slide of the project, or its microns per pixel are not known.
        """
        path, origin = self._present(Path(tile.path)), tile.origin
        if origin is None:
            raise DataError(f"{path.name} is a picture of a folder; the slide it was cut from is not known.")
        own = self._session.tiles_folder.resolve() in path.parents
        mpp = self._session.labelling.labels.size.mpp if own else self._session.settings.data.mpp
        slides = [one for one in self._session.project.slides if one.name == origin.slide]
        slides.sort(key=lambda one: not _names(path, one.identity))  # if several have this name
        at = slides[0].mpp if slides else None
        if slides and (mpp is None or at is None):
            raise DataError(
                f"The place of {path.name} is not known; give the microns per pixel of the tiles in Label tiles, and "
                "of the slide in Slides."
            )
        self._show(slides, origin.slide, origin.x * (at or 0), origin.y * (at or 0), upright_size(path)[0] * (mpp or 0))

    def tile_at(self, position: Position) -> BankTile | None:
        """Return the tile of the image bank that was cut at a position of the present slide, or None."""
        facts, bank = self._session.labelling.facts, self._session.bank.bank
        if facts is None or bank is None:
            return None
        origin = Origin(facts.name, *corner(facts.grid(self._session.labelling.labels.size), position))
        tiles = [tile for tile in bank.tiles if tile.origin == origin]
        return max(tiles, key=lambda tile: _names(Path(tile.path), facts.identity), default=None)

    def _present(self, picture: Path) -> Path:
        """Return where a picture of the bank is now: tiles that were labelled on slides move with the project."""
        moved = self._session.tiles_folder.joinpath(*picture.parts[-_PARTS:])
        return moved if moved.exists() and not picture.exists() else picture

    def _show(self, slides: Sequence[ProjectSlide], name: str, left: float, top: float, side: float) -> None:
        if not slides:
            raise DataError(f"The slide {name} is not in this project; open it in Slides, or add it in Project.")
        session, slide = self._session, slides[0]
        target = _Target(session.folder, slide.path, left, top, side)
        if (layer := session.slides.of_path(slide.path)) is None:
            session.project.show(slide.path)  # it is opened in a thread
        elif layer is not session.current_slide:
            session.slides.show(layer)
        self._target = target
        self._arrive()

    def _arrive(self) -> None:
        """Move the view once the slide is open."""
        if self._target is None or self._session.project.opening:
            return
        target, self._target = self._target, None
        if target.project != self._session.folder:
            return
        if self._session.slides.of_path(target.path) is None:
            faults = self._session.project.faults
            show_error(" ".join(faults) or f"{target.path} is not there any more; find it in Project.")
            return
        camera = camera_of(self._session.viewer)
        camera.center = (target.top + target.side / 2, target.left + target.side / 2)
        camera.zoom = _TILE_ON_SCREEN / target.side


def _names(picture: Path, identity: str) -> bool:
    """Return whether a picture is in a folder of the tiles labelled on a slide, which has its identity in its name."""
    return any(folder.endswith(f"-{identity[:8]}") for folder in picture.parts)
