"""The folders of results, in a project and in an output folder that the user names.

A result belongs to a slide by the slide's identity, which is recorded in the score store, and not by its name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from napari_pbip.errors import DataError, OutputError
from napari_pbip.files import safe_name
from napari_pbip.folders import STORE_MARKER
from napari_pbip.slides import SlideFacts
from napari_pbip.slides.regions import Regions

AREAS = "areas.csv"
OVERLAY = "overlay.png"
TISSUE = "tissue.png"
"""File name of the tissue mask of a slide in a project."""
REGIONS = "regions.geojson"
"""File name of the regions of a slide, beside its score store."""
OVERLAY_SIDE = 1600
"""Longer side of the overlay picture in pixels."""
_BESIDE = frozenset({AREAS, OVERLAY, TISSUE, REGIONS})
_STORE = ".ome.zarr"
DESCRIPTION = "/zarr.json"
"""What follows the path of a score store in that of the file that describes it."""
_IDENTITY_DIGITS = 12
"""Characters of the identity in a folder's name. With a million slides in a project, two of them share these in one of
five hundred projects."""


def stores_in(folder: Path) -> dict[Path, str | None]:
    """Return the score stores in a folder with the identities of their slides (None if damaged or just begun)."""
    stores = (marker.parent.parent for marker in sorted(folder.glob(f"*.ome.zarr/{STORE_MARKER}")))
    return {store: _identity(store) for store in stores}


def find_stores(place: Path) -> list[Path]:
    """Return the score stores at any depth in a folder, such as a project, or the store that it is itself, sorted."""
    if (place / STORE_MARKER).exists():
        return [place]
    found = []
    for path, folders, _ in os.walk(place):
        images = {name for name in folders if name.endswith(".ome.zarr")}
        folders[:] = [name for name in folders if name not in images]  # they have very many files
        found += [Path(path, name) for name in images if Path(path, name, STORE_MARKER).exists()]
    return sorted(found)


def store_for(folder: Path, name: str, identity: str) -> Path:
    """Return the path of the score store of a slide in a folder of results; it need not exist.

    An existing store is found by the identity that it records, because the slide may have been renamed.
    """
    found = next((path for path, known in stores_in(folder).items() if known == identity), None)
    return found or folder / f"{safe_name(name)}.ome.zarr"


def result_folder(results: Path, name: str, identity: str) -> Path:
    """Return the path of a slide's results in the folder of all results of a project; it need not exist.

    The folder's name contains the identity, because names repeat and files are moved and renamed. In projects of
    earlier versions, whose folders have only the name, the identity in the store decides.

    Parameters
    ----------
    results
        Folder with one folder per slide.
    name, identity
        Name and identity of the :class:`~napari_pbip.slides.Slide`.
    """
    folder = folder_name(name, identity, (found.name for found in results.glob(f"*{_ending(identity)}")))
    earlier = results / name
    if not (results / folder).exists() and identity in stores_in(earlier).values():
        return earlier
    return results / folder


def folder_name(name: str, identity: str, known: Iterable[str]) -> str:
    """Return the name of the folder of a slide's results, which is one of the known names if the slide has one.

    Parameters
    ----------
    name, identity
        Name and identity of the :class:`~napari_pbip.slides.Slide`, which may have been renamed.
    known
        Names of the folders that there are.
    """
    ending = _ending(identity)
    return min((one for one in known if one.endswith(ending)), default=f"{safe_name(name)}{ending}")


def _ending(identity: str) -> str:
    return f"-{identity[:_IDENTITY_DIGITS]}"


def complete_stores(names: Collection[str]) -> list[str]:
    """Return the score stores among the names of files, relative to a folder and with ``/``, sorted.

    Whoever copies a store copies the file that describes it last, so that a part of one is none.
    """
    found = (name.removesuffix(DESCRIPTION) for name in names if name.endswith(f"{_STORE}{DESCRIPTION}"))
    return sorted(store for store in found if f"{store}/{STORE_MARKER}" in names)


def files_of_results(names: Collection[str]) -> set[str]:
    """Return which of these files belong to complete results: those of score stores, and what lies beside these."""
    stores = frozenset(complete_stores(names))
    folders = {store.rpartition("/")[0] for store in stores}
    beside = {name for name in names if (parts := name.rpartition("/"))[2] in _BESIDE and parts[0] in folders}
    return beside | {name for name in names if _store_of(name) in stores}


def _store_of(name: str) -> str:
    """Return the store that a file lies in, or an empty text."""
    before, inside, _ = name.partition(f"{_STORE}/")
    return f"{before}{_STORE}" if inside else ""


def regions_in(folder: Path, slide: SlideFacts) -> Regions:
    """Read the regions of a slide from the file in its folder of results; without one, there are none.

    Raises
    ------
    OutputError
        If the file is damaged, or of another slide.
    """
    file = folder / REGIONS
    if not file.exists():
        return Regions()
    try:
        regions = Regions.read(file)
        regions.check_on(slide)
    except DataError as error:
        raise OutputError(f"The regions in {file} cannot be used: {error}") from error
    return regions


def _identity(path: Path) -> str | None:
    try:
        facts = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]["pbip"]
        return str(facts["slide"]["identity"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
