"""Plugins: methods, encoders and slide readers of other installed packages, found by their entry points.

The groups are ``napari_pbip.methods``, ``napari_pbip.encoders`` and ``napari_pbip.readers``. The how-to pages of the
documentation show an example of each.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from importlib.metadata import entry_points
from typing import Any, TypeVar

from napari_pbip.errors import PbipError

T = TypeVar("T")


class PluginWarning(UserWarning):
    """A plugin cannot be used; everything else can."""


def plugins(kind: str, ours: Collection[str], checked: Callable[[str, Any], T]) -> dict[str, T]:
    """Load the plugins in the group ``napari_pbip.<kind>s``, by name. It takes a while, so callers keep the result.

    A plugin that cannot be loaded, is not valid, or has a name that is taken is left out with a :class:`PluginWarning`.

    Parameters
    ----------
    kind
        ``method``, ``encoder`` or ``reader``.
    ours
        Names that are taken.
    checked
        Function that takes the name and the object of an entry point and returns the plugin; any error that it raises
        means that the plugin cannot be used.
    """
    found: dict[str, T] = {}
    for entry in entry_points(group=f"napari_pbip.{kind}s"):
        try:
            if entry.name in ours or entry.name in found:
                raise PbipError("another one has this name")
            found[entry.name] = checked(entry.name, entry.load())
        except Exception as error:  # noqa: BLE001 (whatever somebody's package raises)
            package = entry.dist.name if entry.dist else "unknown"
            why = str(error) if isinstance(error, PbipError) else f"{type(error).__name__}: {error}"
            warnings.warn(
                f"The {kind} {entry.name!r} of the package {package!r} is left out ({' '.join(why.split())}); repair "
                "or remove that package.",
                PluginWarning,
                stacklevel=2,
            )
    return found
