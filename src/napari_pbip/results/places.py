"""The folders of results, in a project and in an output folder that the user names.

A result belongs to a slide by the slide's identity, which is recorded in the score store, and not by its name.

A slide may have several maps (:mod:`napari_pbip.results.slide_maps`). The first one lies in the slide's folder, and
each further one in a folder in :data:`FURTHER_MAPS` there. What belongs to the slide and not to a map, such as its
regions, is in the slide's folder alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

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
"""File name of the regions of a slide in its folder of results."""
FURTHER_MAPS = "further-maps"
"""Name of the folder, in a slide's folder of results, with a folder for each further map."""
REMOVED_MAPS = "removed-maps"
"""Name of the folder there with the maps that were deleted and can still be put back; they count nowhere."""
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
        folders[:] = [name for name in folders if name not in images and not is_removed(name)]  # images have many files
        found += [Path(path, name) for name in images if Path(path, name, STORE_MARKER).exists()]
    return sorted(found)


def store_for(folder: Path, name: str, identity: str) -> Path:
    """Return the path of the score store of a slide in a folder of results; it need not exist.

    An existing store is found by the identity that it records, because the slide may have been renamed.
    """
    found = next((path for path, known in stores_in(folder).items() if known == identity), None)
    return found or folder / f"{safe_name(name)}.ome.zarr"


def slide_folder(folder: Path) -> Path:
    """Return a slide's folder of results, given the folder of one of its maps."""
    return folder.absolute().parents[1] if is_further(folder) else folder


def name_of_map(store: Path) -> str:
    """Return the name of the folder of a map; if it is a further one, with that of its slide's folder before it."""
    folder = store.absolute().parent
    return folder.relative_to(slide_folder(folder).parent).as_posix()


def is_further(folder: Path) -> bool:
    """Return whether a folder is that of a further map of a slide."""
    return folder.absolute().parent.name == FURTHER_MAPS


def is_removed(name: str) -> bool:
    """Return whether a folder of this name has deleted maps, which may be about to be deleted for good."""
    return name.startswith(REMOVED_MAPS)


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
    return sorted(
        store for store in found if f"{store}/{STORE_MARKER}" in names and not any(map(is_removed, store.split("/")))
    )


def files_of_results(names: Collection[str]) -> set[str]:
    """Return which of these files belong to complete results: those of score stores, and what lies beside these."""
    stores = frozenset(complete_stores(names))
    folders = {Path(store).parent for store in stores}
    folders |= {folder.parent.parent for folder in folders if folder.parent.name == FURTHER_MAPS}
    beside = {name for name in names if name.rpartition("/")[2] in _BESIDE and Path(name).parent in folders}
    return beside | {name for name in names if _store_of(name) in stores}


def _store_of(name: str) -> str:
    """Return the store that a file lies in, or an empty text."""
    before, inside, _ = name.partition(f"{_STORE}/")
    return f"{before}{_STORE}" if inside else ""


def regions_file(folder: Path) -> Path:
    """Return the path of the regions of a slide, given the folder of one of its maps; it need not exist."""
    return slide_folder(folder) / REGIONS


def regions_in(folder: Path, slide: SlideFacts) -> Regions:
    """Read the regions of a slide, given the folder of one of its maps; without the file, there are none.

    Raises
    ------
    OutputError
        If the file is damaged, or of another slide.
    """
    file = regions_file(folder)
    if not file.exists():
        return Regions()
    try:
        regions = Regions.read(file)
        regions.check_on(slide)
    except DataError as error:
        raise OutputError(f"The regions in {file} cannot be used: {error}") from error
    return regions


def _identity(path: Path) -> str | None:
    slide = facts_on_disk(path).get("slide")
    identity = slide.get("identity") if isinstance(slide, dict) else None
    return identity if isinstance(identity, str) and identity else None


def facts_on_disk(store: Path) -> dict[str, Any]:
    """Return the facts of a store as they are on disk; none if they are damaged or just begun."""
    try:
        facts = json.loads((store / "zarr.json").read_text(encoding="utf-8"))["attributes"]["pbip"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}
