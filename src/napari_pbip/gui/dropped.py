"""What is dropped on a widget: files and folders of the file manager."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QMimeData

from napari_pbip.slides import is_slide


def dropped_paths(data: QMimeData | None) -> list[Path]:
    """Files and folders on this machine; other things that can be dropped are left out."""
    return [Path(url.toLocalFile()) for url in data.urls() if url.isLocalFile()] if data is not None else []


def slides_in(path: Path) -> list[Path]:
    """A slide itself, or the slides directly in a folder that is none (a DICOM or OME-Zarr folder is one).

    Opens every file of a folder, which may take seconds. A folder without slides comes back itself: whoever opens it
    says what is wrong.
    """
    if not path.is_dir() or is_slide(path):
        return [path]
    return [one for one in sorted(path.iterdir()) if is_slide(one)] or [path]
