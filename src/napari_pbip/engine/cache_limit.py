"""The limit of a cache on disk: what was used least recently is deleted first."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

_LEFT = 0.9
"""Share of the limit that is left after something was deleted."""


@dataclass(frozen=True, slots=True)
class Cached:
    """A file or folder of a cache."""

    path: Path
    size: int
    """Bytes."""
    used: float
    """When it was used last, in seconds since 1970."""


def keep_within(limit: float, cached: Collection[Cached], delete: Callable[[Path], bool]) -> None:
    """Delete what was used least recently if a cache exceeds its limit.

    Parameters
    ----------
    limit
        Bytes at most.
    cached
        All that is in the cache.
    delete
        Deletes a file or folder, and returns False if it has to stay because it is in use.
    """
    held = sum(one.size for one in cached)
    if held <= limit:
        return
    for one in sorted(cached, key=lambda one: (one.used, one.path)):
        if held <= limit * _LEFT:
            break
        if delete(one.path):
            held -= one.size
