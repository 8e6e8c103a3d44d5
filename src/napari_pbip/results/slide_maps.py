"""The maps of a slide on disk: which there are, which one is counted, and where another one is made.

A slide may have several maps, by different models or by one model with different settings. Each lies in a folder of its
own: the first one in the slide's folder of results, and each further one in a numbered folder in
:data:`~napari_pbip.results.places.FURTHER_MAPS` there. A folder does not say what made its map, so that a map can be
replaced by that of another model; the score store does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

from pydantic.fields import FieldInfo

from napari_pbip.config import RefineSettings, SegmentSettings, first_difference
from napari_pbip.config.labels import fields, label
from napari_pbip.folders import STORE_MARKER
from napari_pbip.results.places import FURTHER_MAPS, REMOVED_MAPS, facts_on_disk, is_further, store_for, stores_in

FIRST = "1"
"""Number of the map in the slide's folder itself."""
_NAMED = 2
"""Largest number of settings in the title of a map."""


@dataclass(frozen=True, slots=True)
class StoredMap:
    """A map of a slide on disk, and what its score store records; empty if that is damaged or missing."""

    store: Path
    """Path of the score store."""
    model: str
    """Name of the model that made it."""
    weights: str
    """Hash of the model's weights."""
    made: str
    """When it was begun: date and time in UTC."""
    settings: Mapping[str, Any] = field(hash=False)
    """The settings that its scores depend on."""

    @classmethod
    def read(cls, store: Path) -> Self:
        """Read what a score store records of its model."""
        facts = facts_on_disk(store)
        model, made, settings = (_mapping(facts.get(name)) for name in ("model", "made", "settings"))
        time = _text(made, "time")[: len("2026-01-01T00:00:00")].replace("T", " ")
        return cls(store, _text(model, "run"), _text(model, "hash"), time, settings)


@dataclass(frozen=True, slots=True)
class SlideMaps:
    """The maps of a slide in its folder of results."""

    folder: Path
    """The slide's folder of results; it need not exist."""
    maps: tuple[StoredMap, ...]
    """The first one first, also damaged ones."""
    store: Path
    """Score store of the map that is counted: the chosen one, or else the first one. Without a map, it is the path of
    the first one that is to be made."""

    @classmethod
    def find(cls, folder: Path, name: str, identity: str, chosen: Path | None = None) -> Self:
        """Find the maps of a slide.

        Parameters
        ----------
        folder
            The slide's folder of results (:func:`~napari_pbip.results.places.result_folder`).
        name, identity
            Name and identity of the :class:`~napari_pbip.slides.Slide`.
        chosen
            Score store of the map that was chosen to be counted, or None if none was; it may have been deleted since.
        """
        folders = (folder, *sorted((folder / FURTHER_MAPS).glob("*"), key=_by_number))
        stores = [store_for(one, name, identity) for one in folders]
        first = stores[0]
        stores = [store for store in stores if (store / STORE_MARKER).exists()]
        wanted = None if chosen is None else chosen.resolve()
        counted = next((store for store in stores if store.resolve() == wanted), stores[0] if stores else first)
        return cls(folder, tuple(map(StoredMap.read, stores)), counted)

    @property
    def titles(self) -> dict[Path, str]:
        """What to call each map: the name of its model, and what tells several by models of one name apart."""
        groups: dict[str, list[StoredMap]] = {}
        for one in self.maps:
            groups.setdefault(one.model, []).append(one)
        apart = {store: words for maps in groups.values() for store, words in _apart(maps).items()}
        names = [", ".join(filter(None, (one.model or "unknown model", apart[one.store]))) for one in self.maps]
        return {one.store: name for one, name in zip(self.maps, names, strict=True)}

    @property
    def others(self) -> dict[Path, str]:
        """The titles of the maps that are not counted."""
        return {store: title for store, title in self.titles.items() if store != self.store}

    def folder_for(self, weights: str, settings: Mapping[str, Any], *, beside: bool = False) -> Path:
        """Return the folder in which a model segments the slide; it need not exist.

        It is that of the map by the same model with the same settings, if there is one. Otherwise it is a new one if
        the map is to be made beside the others, and if not, that of the map that it would replace: one by the same
        model, else the counted one.

        Parameters
        ----------
        weights
            Hash of the model's weights.
        settings
            The settings that scores depend on (:func:`~napari_pbip.results.store_facts.settings_of_scores`).
        beside
            Whether the map is made beside those by other models or with other settings.
        """
        by_model = [one for one in self.maps if one.weights == weights]
        by_model.sort(key=lambda one: one.store != self.store)
        same = [one for one in by_model if first_difference(one.settings, settings) is None]
        if same or (by_model and not beside):
            return (same or by_model)[0].store.parent
        return self.store.parent if self.maps and not beside else self.free_folder()

    def free_folder(self) -> Path:
        """Return the folder of one more map, in which none lies and from which none was removed; it need not exist."""
        if not stores_in(self.folder) and not (self.folder / REMOVED_MAPS / FIRST).exists():
            return self.folder
        numbers = map(str, itertools.count(2))
        places = (FURTHER_MAPS, REMOVED_MAPS)
        return (
            self.folder
            / FURTHER_MAPS
            / next(number for number in numbers if not any((self.folder / place / number).exists() for place in places))
        )


def _by_number(folder: Path) -> tuple[bool, int, str]:
    """Sort numbered folders as numbers, and those of earlier versions, which are named by their models, after them."""
    number = folder.name.isdecimal()
    return not number, int(folder.name) if number else 0, folder.name


def _apart(maps: Sequence[StoredMap]) -> dict[Path, str]:
    """Return what tells maps apart: a setting or two, else when they were made, else the numbers of their folders."""
    if len(maps) == 1:
        return {maps[0].store: ""}
    settings = [dict(_flat(one.settings)) for one in maps]
    keys = [key for key in _known_settings() if len({str(one.get(key)) for one in settings}) > 1]
    candidates = [
        [one.made for one in maps],
        [f"map {one.store.parent.name if is_further(one.store.parent) else FIRST}" for one in maps],
    ]
    if len(keys) <= _NAMED and len({one.weights for one in maps}) == 1:
        candidates.insert(0, [" and ".join(_words(key, one.get(key)) for key in keys) for one in settings])
    chosen = next(words for words in candidates if all(words) and len({*words}) == len(maps))
    return {one.store: words for one, words in zip(maps, chosen, strict=True)}


@cache
def _known_settings() -> Mapping[str, FieldInfo]:
    """Return the settings that scores depend on, by their names in the facts of a store."""
    return {**dict(fields(SegmentSettings)), "tta": RefineSettings.model_fields["tta"]}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of each setting."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _words(key: str, value: Any) -> str:
    """Return a setting and its value in words, such as ``overlap 32``."""
    name = label(key, _known_settings()[key])
    if key == "tta":  # only there if it is on
        return f"{'with' if value else 'without'} {name.lower()}"
    return f"{name[0].lower()}{name[1:]} {'default' if value is None else value}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""
