"""Widgets on which files and folders of the file manager can be dropped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import QMimeData
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QWidget


class DropZone(QWidget):
    """A widget on which files and folders can be dropped; subclasses handle them."""

    def __init__(self) -> None:
        super().__init__()
        self.setAcceptDrops(True)

    def take(self, paths: Sequence[Path]) -> None:
        """Handle dropped files and folders."""
        raise TypeError(f"{type(self).__name__} does not say what to do with {len(paths)} files")

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        if event is not None and _paths(event.mimeData()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:
        if event is not None and (paths := _paths(event.mimeData())):
            event.acceptProposedAction()
            self.take(paths)


def _paths(data: QMimeData | None) -> list[Path]:
    """Return the dropped files and folders of this machine; anything else is ignored."""
    return [Path(url.toLocalFile()) for url in data.urls() if url.isLocalFile()] if data is not None else []
