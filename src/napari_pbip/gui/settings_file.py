"""Settings files of the window, with which the command line gives the same results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import napari.viewer
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_pbip.config import JobSettings
from napari_pbip.errors import OutputError, PbipError
from napari_pbip.gui.state.session import Session, session_of
from napari_pbip.gui.state.training import job_settings


def save(viewer: napari.viewer.Viewer) -> None:
    """Menu command: ask for a file and write the settings of all widgets into it."""
    _ask(viewer, "Save settings", QFileDialog.AcceptMode.AcceptSave, write_settings)


def load(viewer: napari.viewer.Viewer) -> None:
    """Menu command: ask for a settings file and show it in all widgets."""
    _ask(viewer, "Load settings", QFileDialog.AcceptMode.AcceptOpen, read_settings)


def write_settings(session: Session, path: Path) -> str:
    """Write the present settings of jobs to a file; return a message for the user.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    try:
        job_settings(session).write(path)
    except OutputError as error:
        raise OutputError(f"{path} cannot be written; choose another place.") from error
    return f"The settings are in {path}; napari-pbip train {path.name} --out MODEL runs them without a window."


def read_settings(session: Session, path: Path) -> str:
    """Use the settings of a file; return a message for the user.

    Raises
    ------
    ConfigError
        If the file is not a settings file or a value is invalid; the settings are then not changed.
    """
    session.settings = JobSettings.read(path)
    return f"The settings of {path} are shown in the widgets."


def _ask(
    viewer: napari.viewer.Viewer, title: str, mode: QFileDialog.AcceptMode, act: Callable[[Session, Path], str]
) -> None:
    session = session_of(viewer)

    def chosen(path: str) -> None:
        try:
            show_info(act(session, Path(path)))
        except PbipError as error:
            show_error(str(error))

    dialog = QFileDialog(viewer.window._qt_window, title, str(session.folder), "Settings (*.yaml *.yml)")
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    dialog.setAcceptMode(mode)
    dialog.setFileMode(
        QFileDialog.FileMode.AnyFile if mode is QFileDialog.AcceptMode.AcceptSave else QFileDialog.FileMode.ExistingFile
    )
    dialog.setDefaultSuffix("yaml")
    dialog.fileSelected.connect(chosen)
    dialog.open()
