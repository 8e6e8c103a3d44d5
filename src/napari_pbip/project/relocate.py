"""Finding the slides of a project that lie elsewhere now."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from napari_pbip.errors import ProjectError, SlideError
from napari_pbip.project.file import ProjectSlide, project_of
from napari_pbip.results import ScoreStore
from napari_pbip.slides import SlideFacts, open_slide


def find_slides(missing: Sequence[ProjectSlide], folder: Path) -> dict[Path, Path]:
    """Find slides in a folder and all folders below it, by name and identity.

    Parameters
    ----------
    missing
        The slides.
    folder
        Where to look. Only files with the name of a slide are opened.

    Returns
    -------
    The present path of each slide that was found, by its earlier path.
    """
    wanted = {slide.path: slide for slide in missing}
    names = {_name(path) for path in wanted}
    found: dict[Path, Path] = {}
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(names.intersection(folders + files)):
            path = Path(place, name).absolute()
            identity = _identity(path)
            for earlier, slide in list(wanted.items()):
                if _name(earlier) == name and slide.identity == identity:
                    found[earlier] = path
                    del wanted[earlier]
                    break  # of equal slides in several folders, each is found once
        if not wanted:
            break
    return found


def slide_of_result(store: Path) -> SlideFacts:
    """Return the slide of a score store, with its path where the project in whose results the store lies has it now.

    That project knows where its slides were moved to; the store knows where its slide was.

    Raises
    ------
    OutputError
        If the folder is not a score store, or the store is damaged.
    """
    slide = ScoreStore.open(store).facts.slide
    try:
        project = project_of(store)
    except ProjectError:  # what the store says is left
        project = None
    known = () if project is None else project.slides
    path = next((one.path for one in known if one.identity == slide.identity and one.path.exists()), slide.path)
    return slide.model_copy(update={"path": path})


def _name(path: Path) -> str:
    """Return the name of a file, whose path may be one of Windows on another system."""
    return PureWindowsPath(path.name).name


def _identity(path: Path) -> str | None:
    try:
        with open_slide(path) as slide:
            return slide.identity
    except SlideError:
        return None
