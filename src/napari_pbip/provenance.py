"""Who made something, when, and with which version: recorded with every run, result and label image."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from napari_pbip import __version__

OPERATOR = "NAPARI_PBIP_OPERATOR"
"""Environment variable with the name of the person who works; it takes precedence over napari's preferences."""

_preferred = ""


def prefer_operator(name: str) -> None:
    """Name the person who works in a window, as napari's preferences say; an empty name names nobody."""
    global _preferred
    _preferred = name.strip()


def operator() -> str | None:
    """Return the name of the person who works, or None if nobody said it."""
    return os.environ.get(OPERATOR, "").strip() or _preferred or None


class Made(BaseModel):
    """The circumstances in which something was made."""

    model_config = ConfigDict(frozen=True)

    version: str
    """Version of napari-pbip."""
    time: datetime
    """In UTC, to the second."""
    operator: str | None = None
    """Who made it, if that was said."""

    @classmethod
    def now(cls) -> Made:
        """Return the present circumstances."""
        time = datetime.now(UTC).replace(microsecond=0)
        return cls(version=__version__, time=time, operator=operator())

    def __str__(self) -> str:
        who = f" by {self.operator}" if self.operator else ""
        return f"{self.time:%Y-%m-%d %H:%M} UTC{who}, napari-pbip {self.version}"
