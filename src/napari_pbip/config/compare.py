"""The settings of a comparison: those that all runs share, and those that differ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from napari_pbip.config.base import Settings, anchor_paths, overlay
from napari_pbip.config.job import JobSettings
from napari_pbip.errors import ConfigError

Changes = dict[str, Any]
"""Settings by their dotted names, as with `--set`; each replaces the value or section of that name."""


class CompareSettings(Settings):
    """The axes of a comparison, of which every combination of choices is trained with every seed."""

    axes: Annotated[dict[str, dict[str, Changes]], Field(min_length=1)]
    """Axes by name, such as `method` or `encoder`; each has choices by name, and each choice its settings."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0, 1, 2, 3, 4)
    """Values of `train.seed`, with each of which every combination is trained; the bank has the seed `bank.seed`."""
    split: Literal["test", "val"] = "test"
    """The split of the tiles with masks that are scored."""
    pictures: Annotated[int, Field(ge=0)] = 4
    """Number of tiles whose maps are shown side by side in the report; these are the tiles with the most classes."""

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for axis, choices in self.axes.items():
            folders = [_folder_name(choice) for choice in choices]
            if not choices or not all(folders) or len(set(folders)) < len(folders):
                raise ValueError(f"the choices of {axis!r} need names that differ in their letters or digits")
        return self


class CompareJob(JobSettings):
    """A settings file with a section `compare`; its other settings are those of all runs."""

    compare: CompareSettings
    """The axes of the comparison."""

    @classmethod
    def read_values(cls, path: Path) -> dict[str, Any]:
        """Read the nested plain values of a YAML file; all relative paths are relative to its folder."""
        values = super().read_values(path)
        compare = cls.parse(values).compare
        for choices in compare.axes.values():
            for changes in choices.values():
                for key in changes:
                    place = overlay({}, {key: changes[key]})
                    anchor_paths(JobSettings, place, path.parent)
                    for part in key.split("."):
                        place = place[part]
                    changes[key] = place
        values["compare"]["axes"] = compare.axes
        return values


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison."""

    choices: tuple[str, ...]
    """Name of the choice on each axis."""
    seed: int
    settings: JobSettings

    @property
    def name(self) -> str:
        """Name of the run for the user."""
        return f"{', '.join(self.choices)}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Path of the run in the folder of runs."""
        return Path("_".join(map(_folder_name, self.choices)), f"seed{self.seed}")


def planned_runs(values: Mapping[str, Any]) -> tuple[CompareSettings, list[PlannedRun]]:
    """Return the runs of a comparison in the order of the file, with the seed changing fastest.

    Parameters
    ----------
    values
        Nested plain values of a :class:`CompareJob`.

    Raises
    ------
    ConfigError
        If the values, or those of a combination, are invalid, or the runs differ in their data folder.
    """
    compare = CompareJob.parse(values).compare
    shared = {key: value for key, value in values.items() if key != "compare"}
    runs = []
    for choices in product(*(axis.items() for axis in compare.axes.values())):
        names = tuple(name for name, _ in choices)
        for seed in compare.seeds:
            try:
                changed = shared
                for _, changes in choices:
                    changed = overlay(changed, changes)
                settings = JobSettings.parse(overlay(changed, {"train.seed": seed}))
            except ConfigError as error:
                raise ConfigError(f"{', '.join(names)}: {error}") from error
            runs.append(PlannedRun(names, seed, settings))
    if len({run.settings.data.folder for run in runs}) > 1:
        raise ConfigError("The runs of a comparison share one data folder; write a file for each data set.")
    return compare, runs


def _folder_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
