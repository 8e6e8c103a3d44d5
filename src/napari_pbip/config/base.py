"""The base class of settings models, which are validated, frozen, and read from and written to YAML."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_pbip.config.annotations import leaves, models_in
from napari_pbip.config.faults import sentence
from napari_pbip.config.yaml_text import read_yaml
from napari_pbip.errors import ConfigError
from napari_pbip.files import writing

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
FourStages = tuple[Weight, Weight, Weight, Weight]


class Settings(BaseModel):
    """Base class of all settings, which are frozen and refuse unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Make settings from nested plain values; a section that is None counts as left out.

        Raises
        ------
        ConfigError
            If a value or key is invalid; the message names the field and, for an unknown key, the nearest valid one.
        """
        try:
            return cls.model_validate(_without_empty_sections(cls, values))
        except ValidationError as error:
            raise ConfigError(sentence(cls, error)) from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read settings from a YAML file; see :meth:`read_values` for its paths and errors."""
        return cls.parse(cls.read_values(path))

    @classmethod
    def read_values(cls, path: Path) -> dict[str, Any]:
        """Read the nested plain values of a YAML settings file.

        Relative paths in the file are relative to the folder of the file, not to the working folder.

        Raises
        ------
        ConfigError
            If the file cannot be read or is not a YAML mapping.
        """
        if path.is_dir():
            raise ConfigError(
                f"{path} is a folder where a settings file (YAML) is expected; name a folder of tiles with "
                "`data.folder`."
            )
        try:
            values = read_yaml(path.read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise ConfigError(f"The settings file {path} cannot be read: {error.strerror}.") from error
        except ValueError as error:  # also raised if the file is not text
            raise ConfigError(f"The settings file {path} is not valid YAML: {error}.") from error
        if not isinstance(values, dict):
            raise ConfigError(f"The settings file {path} holds no 'key: value' lines at its top level.")
        anchor_paths(cls, values, path.parent)
        return values

    def write(self, path: Path) -> None:
        """Write the settings as YAML for :meth:`read`; the file is replaced only when complete.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        _write_yaml(path, self.model_dump(mode="json"))

    def write_given(self, path: Path) -> None:
        """Write the settings that were given, without the defaults of others; else as :meth:`write` does."""
        _write_yaml(path, self.model_dump(mode="json", exclude_unset=True))


def _write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    with writing(path) as temporary:
        temporary.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def override(values: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return ``values`` changed by assignments ``key.sub=value``, whose values are read as YAML.

    Raises
    ------
    ConfigError
        If an assignment has no ``=``, its value is not YAML, or a key on its way is not a mapping.
    """
    changes = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set needs key=value, such as train.epochs=4, not {assignment!r}.")
        try:
            changes[key.strip()] = read_yaml(text)
        except ValueError as error:
            raise ConfigError(f"The value of --set {assignment!r} cannot be read: {error}.") from error
    return overlay(values, changes)


def overlay(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` with changes, each of which replaces the value or section of a dotted key.

    Raises
    ------
    ConfigError
        If a key on the way to the last one is not a mapping.
    """
    merged = _copy(values)
    for key, value in changes.items():
        *parents, last = key.split(".")
        place = merged
        for parent in parents:
            if place.get(parent) is None:  # an empty section
                place[parent] = {}
            if not isinstance(place[parent], dict):
                raise ConfigError(
                    f"{key!r} cannot be set: {parent!r} is {place[parent]!r} in the settings, which has nothing "
                    "below it; give the settings of a section below its name."
                )
            place = place[parent]
        place[last] = _copy(value) if isinstance(value, Mapping) else value
    return merged


def first_difference(
    before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> tuple[str, Any, Any] | None:
    """Return dotted key and both values of the first entry in which nested plain values differ, or None."""
    for key in [*before, *(key for key in now if key not in before)]:
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            if (found := first_difference(old, new, f"{prefix}{key}.")) is not None:
                return found
        elif old != new:
            return f"{prefix}{key}", old, new
    return None


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def anchor_paths(model: type[BaseModel], values: dict[str, Any], folder: Path) -> None:
    """Make relative paths among the values relative to a folder.

    Raises
    ------
    ConfigError
        If a path contains a control character such as a tab, to which YAML converts a backslash in double quotes.
    """

    def anchored(where: str, path: str) -> str:
        if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in path):
            raise ConfigError(
                f"The path {path!r} of the setting {where!r} holds a character that no path has: in double quotes "
                "a backslash is special; write the path in single quotes or in none."
            )
        return str(folder.absolute() / os.path.expanduser(path))  # noqa: PTH111 - that of Path fails for a user that there is not

    change_paths(model, values, anchored)


def change_paths(
    model: type[BaseModel], values: dict[str, Any], change: Callable[[str, str], str | None], prefix: str = ""
) -> None:
    """Change all paths among nested plain values.

    Parameters
    ----------
    model
        The settings model of the values.
    values
        The values, which are changed in place.
    change
        Function that takes the dotted name of the setting and its path, and returns the new path, or None for no path.
    prefix
        Prefix of the dotted names.
    """
    for name, field in model.model_fields.items():
        value, where = values.get(name), prefix + name
        kinds = leaves(field.annotation)
        sections = [one for one in (value if isinstance(value, list | tuple) else [value]) if isinstance(one, dict)]
        if sections:
            for part in models_in(field.annotation):
                for section in sections:
                    change_paths(part, section, change, f"{where}.")
        elif Path in kinds and isinstance(value, list | tuple):
            values[name] = [change(where, str(one)) if isinstance(one, str | Path) else one for one in value]
        elif Path in kinds and isinstance(value, str | Path) and value not in kinds:  # "builtin" is not a path
            values[name] = change(where, str(value))


def _without_empty_sections(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values without empty sections, such as those whose lines are all commented out."""
    kept = {}
    for name, value in values.items():
        field = model.model_fields.get(name) if isinstance(name, str) else None
        sections = models_in(field.annotation) if field else []
        if sections and isinstance(value, Mapping):
            value = _without_empty_sections(sections[0], value)
        if not sections or value is not None:
            kept[name] = value
    return kept
