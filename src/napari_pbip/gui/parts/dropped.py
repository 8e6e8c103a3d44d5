"""What is dropped on a widget: files and folders of the file manager."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QMimeData


def dropped_paths(data: QMimeData | None) -> list[Path]:
    """Files and folders on this machine; other things that can be dropped are left out."""
    return [Path(url.toLocalFile()) for url in data.urls() if url.isLocalFile()] if data is not None else []
