"""Settings files of the window, with which the command line gives the same results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import napari.viewer
from napari.utils.notifications import show_info

from napari_pbip.config import JobSettings
from napari_pbip.errors import OutputError, PbipError
from napari_pbip.gui.announcing import announce
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.state.training import job_settings
from napari_pbip.gui.widgets.file_dialogs import Mode, ask_for, ask_where_to_save

_FORMATS = {".yaml": "Settings (*.yaml)", ".yml": "Settings (*.yml)"}


def save(viewer: napari.viewer.Viewer) -> None:
    """Menu command: ask for a file and write the settings of all widgets into it."""
    start = session_of(viewer).folder / "settings"
    ask_where_to_save(
        viewer.window._qt_window, "Save settings", start, _FORMATS, lambda path: _do(viewer, write_settings, path)
    )


def load(viewer: napari.viewer.Viewer) -> None:
    """Menu command: ask for a settings file and show it in all widgets."""
    ask_for(
        viewer.window._qt_window,
        "Load settings",
        Mode.ExistingFile,
        lambda paths: _do(viewer, read_settings, paths[0]),
        start=session_of(viewer).folder,
        formats="Settings (*.yaml *.yml)",
    )


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


def _do(viewer: napari.viewer.Viewer, act: Callable[[Session, Path], str], path: Path) -> None:
    try:
        show_info(act(session_of(viewer), path))
    except PbipError as error:
        announce(error)
