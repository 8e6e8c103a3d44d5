"""Messages about invalid settings: one sentence, with what to do."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from napari_pbip.config.annotations import alternatives, leaves, models_in
from napari_pbip.config.labels import fields


def sentence(model: type[BaseModel], error: ValidationError) -> str:
    """Return a sentence on one fault of a validation error; for a union, that of the type the value is most like."""
    fault = max(error.errors(), key=lambda fault: len(fault["loc"]))
    place = _Place(model, fault["loc"])
    where, given = ".".join(place.parts), fault["input"]
    match fault["type"]:
        case "missing" if place.models:
            first = next(iter(place.models[0].model_fields))
            return f"The section {where!r} is missing or empty; give its settings below it, such as '{where}.{first}'."
        case "missing":
            return f"The setting {where!r} is missing; give it a value."
        case "union_tag_not_found":
            return f"The setting '{where}.name' is missing; it is one of {_names(place.models)}."
        case "union_tag_invalid":
            name = fault["ctx"]["tag"]
            return f"The setting '{where}.name' cannot be {name!r}; it is one of {_names(place.models)}."
        case "model_type" | "model_attributes_type":
            return f"{where!r} is a section and cannot be {given!r} itself; {_below(place, where, given)}."
        case "extra_forbidden":
            return _unknown(model, place)
        case "string_type" | "path_type" if given is None or isinstance(given, bool | int | float):
            kind = "nothing" if given is None else "a truth value" if isinstance(given, bool) else "a number"
            return f"The setting {where!r} cannot be {given!r}, which YAML takes for {kind}; put the word into quotes."
    return f"The setting {where!r} cannot be {given!r}: {fault['msg']}."


class _Place:
    """The location of a fault in the settings, in the keys that the user writes.

    In Pydantic's locations, the name of the method follows ``method``, and the type that was tried follows a field of a
    union type.

    Attributes
    ----------
    parts
        The keys that lead to it.
    models
        Models that may be at this location; empty if it is not a section.
    section
        Models that may contain the last key: a single one if the section's ``name`` selects it.
    others
        All models that the section's ``name`` selects from.
    tag
        The section's ``name``; empty if there is only one model.
    """

    def __init__(self, model: type[BaseModel], place: Sequence[int | str]) -> None:
        self.parts: list[str] = []
        self.models: Sequence[type[BaseModel]] = [model]
        self.section: Sequence[type[BaseModel]] = []
        self.others: Sequence[type[BaseModel]] = []
        self.tag = ""
        parts = iter(place)
        for part in parts:
            self.parts.append(str(part))
            self.section = self.models
            field = next((m.model_fields[str(part)] for m in self.models if str(part) in m.model_fields), None)
            if field is None:
                self.models = []
                continue
            self.models = models_in(field.annotation)
            if field.discriminator is not None:
                if (tag := next(parts, None)) is not None:
                    self.tag, self.others = str(tag), self.models
                    self.models = [m for m in self.models if m.model_fields["name"].default == tag]
            elif not self.models and len(alternatives(field.annotation)) > 1:
                tried = list(parts)  # for a mapping, its key is between the types that were tried
                self.parts += [str(part) for part in tried[1:2]]
                self._strip_key(tried)
                return
            elif not self.models:
                rest = list(parts)
                self.parts += [str(part) for part in rest]
                self._strip_key(rest)
                return

    def _strip_key(self, rest: Sequence[int | str]) -> None:
        """Remove a wrong key of a mapping, which has no location of its own."""
        if "[key]" in rest:
            self.parts = [part for part in self.parts if part != "[key]"][:-1]


def _names(models: Sequence[type[BaseModel]]) -> str:
    return ", ".join(repr(model.model_fields["name"].default) for model in models)


def _below(place: _Place, where: str, given: Any) -> str:
    """Return how to write a value that was probably meant for a setting in a section."""
    fields = place.models[0].model_fields
    takes_text = [name for name, field in fields.items() if {str, Path} & set(leaves(field.annotation))]
    if "name" in fields:
        takes_text.insert(0, "name")
    if isinstance(given, str) and takes_text:
        name = takes_text[0]
        return f"write {place.parts[-1]}: {{{name}: {given}}}, or {where}.{name}={given}"
    return f"its settings go below it, such as '{where}.{next(iter(fields))}'"


def _unknown(model: type[BaseModel], place: _Place) -> str:
    where, (*parents, name) = ".".join(place.parts), place.parts
    if any(name in other.model_fields for other in place.others):
        return f"With {'.'.join(parents)}.name={place.tag} there is no setting {where!r}; leave it out."
    prefix = "".join(f"{part}." for part in parents)
    here = [prefix + field for section in place.section for field in section.model_fields]
    known = [*here, *(key for key, _ in fields(model) if not prefix or not key.startswith(prefix))]
    best = max(known, key=lambda key: _likeness(name, key, near=key in here))
    # if several other sections have this name, the user may mean any of them
    same = dict.fromkeys(key for key in known if key.rpartition(".")[2] == name)
    nearest = list(same) if best in same else [best]
    ones = "one is" if len(nearest) == 1 else "ones are"
    return f"Unknown setting {where!r}; the nearest valid {ones} {', '.join(map(repr, nearest))}."


def _likeness(name: str, key: str, *, near: bool) -> float:
    """Return how likely a name means a key: by similarity, or as initials (lr of learning_rate), and by section."""
    last = key.rpartition(".")[2]
    initials = "".join(word[:1] for word in last.split("_"))
    alike = 1.0 if name == initials else difflib.SequenceMatcher(None, name, last).ratio()
    return alike + 0.25 * near
