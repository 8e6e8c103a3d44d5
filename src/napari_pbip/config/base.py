"""What every settings model is: validated, frozen, read from and written to YAML."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Self, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_pbip.errors import ConfigError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
FourStages = tuple[Weight, Weight, Weight, Weight]


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused, one-line descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Settings from nested plain values.

        Raises
        ------
        ConfigError
            One sentence that names the field and what is wrong; an unknown key comes with the nearest valid one.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(_sentence(cls, error)) from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """Settings of a YAML file; see :meth:`read_values` for its paths and its errors."""
        return cls.parse(cls.read_values(path))

    @classmethod
    def read_values(cls, path: Path) -> dict[str, Any]:
        """The nested plain values of a YAML settings file.

        Relative paths in the file count from the file's own folder, wherever it is run from.

        Raises
        ------
        ConfigError
            If the file cannot be read or is no YAML mapping.
        """
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise ConfigError(f"The settings file {path} cannot be read: {error.strerror}.") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"The settings file {path} is not valid YAML: {' '.join(str(error).split())}.") from error
        if not isinstance(values, dict):
            raise ConfigError(f"The settings file {path} holds no 'key: value' lines at its top level.")
        anchor_paths(cls, values, path.parent)
        return values

    def write(self, path: Path) -> None:
        """Write as YAML that :meth:`read` turns into equal settings."""
        path.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def override(values: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """``values`` with ``key.sub=value`` assignments put in; each value is read as YAML.

    Raises
    ------
    ConfigError
        If an assignment has no ``=``, its value is no YAML, or it goes through a key that holds no mapping.
    """
    changes = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set needs key=value, such as train.epochs=4, not {assignment!r}.")
        try:
            changes[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"The value of --set {assignment!r} cannot be read.") from error
    return overlay(values, changes)


def overlay(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with changes put in, each a dotted key and what takes the place of all that lies there.

    Raises
    ------
    ConfigError
        If a key goes through one that holds no mapping.
    """
    merged = _copy(values)
    for key, value in changes.items():
        *parents, last = key.split(".")
        place = merged
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{key}: {parent!r} is a single value and has nothing below it.")
        place[last] = _copy(value) if isinstance(value, Mapping) else value
    return merged


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def anchor_paths(model: type[BaseModel], values: dict[str, Any], folder: Path) -> None:
    """Make the relative paths among the values count from a folder."""
    for name, field in model.model_fields.items():
        value = values.get(name)
        kinds = _leaves(field.annotation)
        if isinstance(value, str) and Path in kinds and value not in kinds:  # words such as "builtin" are no paths
            values[name] = str(folder / Path(value).expanduser())
        elif isinstance(value, dict):
            for part in _models_in(field.annotation):
                anchor_paths(part, value, folder)


def _sentence(model: type[BaseModel], error: ValidationError) -> str:
    """One fault of a validation error as a sentence: of a value of several types that of the type it is most like."""
    fault = max(error.errors(), key=lambda fault: len(fault["loc"]))
    where = ".".join(str(part) for part in _without_tags(model, fault["loc"]))
    if fault["type"] == "missing":
        return f"The setting {where!r} is missing; give it a value."
    if fault["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(where, _keys(model), n=1, cutoff=0.0)
        return f"Unknown setting {where!r}; the nearest valid one is {nearest[0]!r}."
    return f"The setting {where!r} cannot be {fault['input']!r}: {fault['msg']}."


def _without_tags(model: type[BaseModel], place: Sequence[int | str]) -> Iterator[int | str]:
    """A place in the settings as a user writes it.

    Pydantic puts the kind of a method after ``method``, and after a field of several types the one that it tried.
    """
    models: Sequence[type[BaseModel]] = [model]
    parts = iter(place)
    for part in parts:
        yield part
        field = next((m.model_fields[str(part)] for m in models if str(part) in m.model_fields), None)
        if field is None:
            continue
        models = _models_in(field.annotation)
        if field.discriminator is not None:
            next(parts, None)
        elif not models and len(alternatives(field.annotation)) > 1:
            yield from islice(parts, 1, 2)  # a key, where the value is a mapping; what was tried for it is below
            return


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of all settings below a model."""
    found = []
    for name, field in model.model_fields.items():
        found.append(prefix + name)
        for part in _models_in(field.annotation):
            found += _keys(part, f"{prefix}{name}.")
    return found


def alternatives(annotation: Any) -> list[Any]:
    """The alternatives of a field's type, without None and without what is said of each."""
    if get_origin(annotation) in (Union, UnionType):
        return [part for member in get_args(annotation) for part in alternatives(member)]
    if hasattr(annotation, "__metadata__"):
        return alternatives(annotation.__origin__)
    return [] if annotation is NoneType else [annotation]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    return [part for part in _leaves(annotation) if isinstance(part, type) and issubclass(part, BaseModel)]


def _leaves(annotation: Any) -> list[Any]:
    """The types an annotation is made of."""
    inner = get_args(annotation)
    return [part for a in inner for part in _leaves(a)] if inner else [annotation]
