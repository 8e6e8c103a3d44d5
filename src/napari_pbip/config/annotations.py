"""Inspection of the types of settings."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Any, Union, cast, get_args, get_origin

from pydantic import BaseModel


def alternatives(annotation: Any) -> list[Any]:
    """Return the alternatives of a field's type, without None and without their annotations."""
    if get_origin(annotation) in (Union, UnionType):
        return [part for member in get_args(annotation) for part in alternatives(member)]
    if variants := _variants(annotation):
        return variants
    if hasattr(annotation, "__metadata__"):
        return alternatives(annotation.__origin__)
    return [] if annotation is NoneType else [annotation]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the settings models in a field's type."""
    return [part for part in leaves(annotation) if isinstance(part, type) and issubclass(part, BaseModel)]


def leaves(annotation: Any) -> list[Any]:
    """Return the types that an annotation consists of."""
    inner = get_args(annotation) or _variants(annotation)
    return [part for a in inner for part in leaves(a)] if inner else [annotation]


def _variants(annotation: Any) -> list[Any]:
    """Return the models that a base class stands for, such as the settings of all methods, including plugins."""
    is_one = isinstance(annotation, type) and "variants" in vars(annotation)
    return list(cast("Any", annotation).variants()) if is_one else []
