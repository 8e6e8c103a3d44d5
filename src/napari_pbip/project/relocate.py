"""Finding the slides of a project that lie elsewhere now."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from napari_pbip.errors import SlideError
from napari_pbip.project.file import ProjectSlide
from napari_pbip.slides import open_slide


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
    names = {path.name for path in wanted}
    found: dict[Path, Path] = {}
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(names.intersection(folders + files)):
            path = Path(place, name).absolute()
            identity = _identity(path)
            for earlier, slide in list(wanted.items()):
                if earlier.name == name and slide.identity == identity:
                    found[earlier] = path
                    del wanted[earlier]
                    break  # of equal slides in several folders, each is found once
        if not wanted:
            break
    return found


def _identity(path: Path) -> str | None:
    try:
        with open_slide(path) as slide:
            return slide.identity
    except SlideError:
        return None
