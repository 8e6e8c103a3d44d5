"""What other installed packages add: methods, encoders and slide readers, named by their entry points.

The groups are ``napari_pbip.methods``, ``napari_pbip.encoders`` and ``napari_pbip.readers``; the how-to pages of the
documentation show a package for each.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from importlib.metadata import entry_points
from typing import Any, TypeVar

from napari_pbip.errors import PbipError

T = TypeVar("T")


class PluginWarning(UserWarning):
    """Something of another package cannot be used; all else can."""


def plugins(kind: str, ours: Collection[str], checked: Callable[[str, Any], T]) -> dict[str, T]:
    """What packages register in the group ``napari_pbip.<kind>s``, by name; callers keep it, since it takes a while.

    What cannot be loaded, is not what it should be, or has a name that is taken is left out with a
    :class:`PluginWarning`.

    Parameters
    ----------
    kind
        ``method``, ``encoder`` or ``reader``.
    ours
        Names that are taken.
    checked
        Makes of the entry's name and of the object that it names what is returned; any error that it raises means that
        the object cannot be used.
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
                f"The {kind} {entry.name!r} of the package {package!r} is left out ({' '.join(why.split())}); mend or "
                "remove that package.",
                PluginWarning,
                stacklevel=2,
            )
    return found
