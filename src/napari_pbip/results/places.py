"""Where the results of slides lie: in a project, and in a folder that the user names.

A result belongs to a slide by what the slide is, which the score store in it says, and not by a name.
"""

from __future__ import annotations

import json
from pathlib import Path

from napari_pbip.files import safe_name
from napari_pbip.folders import STORE_MARKER

AREAS = "areas.csv"
OVERLAY = "overlay.png"
OVERLAY_SIDE = 1600
"""Longest side of the overlay picture, pixels."""
_IDENTITY_DIGITS = 12
"""Of the identity in the name of a folder: among a million slides two share them once in five hundred projects."""


def stores_in(folder: Path) -> dict[Path, str | None]:
    """The score stores directly in a folder, each with the identity of its slide (None: damaged, or hardly begun)."""
    stores = (marker.parent.parent for marker in sorted(folder.glob(f"*.ome.zarr/{STORE_MARKER}")))
    return {store: _identity(store) for store in stores}


def store_for(folder: Path, name: str, identity: str) -> Path:
    """Where the score store of a slide lies in a folder of results, or will lie.

    A store belongs to its slide by what it says, not by its name: a slide may have been renamed since.
    """
    found = next((path for path, known in stores_in(folder).items() if known == identity), None)
    return found or folder / f"{safe_name(name)}.ome.zarr"


def result_folder(results: Path, name: str, identity: str) -> Path:
    """Where the results of a slide lie in the folder of all results of a project, or will lie.

    By what the slide is: names repeat, and files are moved and renamed. In projects of before, whose folders have but
    the name, they are found by what the store in it says.

    Parameters
    ----------
    results
        One folder a slide.
    name, identity
        Those of the :class:`~napari_pbip.slides.Slide`.
    """
    ending = f"-{identity[:_IDENTITY_DIGITS]}"
    if found := sorted(results.glob(f"*{ending}")):
        return found[0]
    earlier = results / name
    if identity in stores_in(earlier).values():
        return earlier
    return results / f"{safe_name(name)}{ending}"


def _identity(path: Path) -> str | None:
    try:
        facts = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]["pbip"]
        return str(facts["slide"]["identity"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
