"""The settings by name, and what they are called in a form."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from napari_pbip.config.annotations import models_in


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted names of all settings of a model and its sections, with their fields."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        for part in models_in(field.annotation):
            yield from fields(part, f"{prefix}{name}.")


def label(dotted: str, field: FieldInfo | None = None) -> str:
    """Return the label of a setting or section in forms: the title of its field, or else its name in words.

    "Learning rate" is that of ``train.learning_rate``; a section's ``name`` has the label of the section.
    """
    *_, name = dotted.removesuffix(".name").split(".")
    return (field and field.title) or name.replace("_", " ").capitalize()
