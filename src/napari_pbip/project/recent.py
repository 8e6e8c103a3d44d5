"""The project that was used last, which the window offers when it starts."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import platformdirs

from napari_pbip.errors import OutputError
from napari_pbip.files import writing


def last_project() -> Path | None:
    """Return the project folder that was used last, or None if there was none or it does not exist any more."""
    try:
        folder = Path(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return folder if folder.is_dir() else None


def remember(folder: Path) -> None:
    """Remember a project folder as the one that was used last."""
    with suppress(OutputError), writing(_file()) as temporary:  # a convenience: no reason to disturb the user
        temporary.write_text(str(folder.absolute()), encoding="utf-8")


def _file() -> Path:
    return platformdirs.user_data_path("napari-pbip", appauthor=False) / "last-project.txt"
