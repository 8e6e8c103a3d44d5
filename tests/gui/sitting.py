"""Sittings: somebody works in a window that is in a process of its own, in the language of a computer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.waiting import PATIENCE


def sitting(module: str, *arguments: object, **environment: str) -> Any:
    """Run a module that calls :func:`sit`, with arguments and environment variables; return what it prints."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=3 * PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def sit(
    work: Callable[[Any, Callable[..., None]], Any], study: Path, locale: str, size: tuple[int, int] | None = None
) -> None:
    """Open a window, work in it, print what the work returns as JSON, and close the window.

    Parameters
    ----------
    work
        Called with the viewer and a function that runs the event loop until a condition holds, or for a moment.
    study
        Folder in which the project that was used last is remembered.
    locale
        Language and country, such as ``de_DE``.
    size
        Width and height of the window in points.
    """
    import napari
    from napari.qt import get_qapp
    from qtpy.QtCore import QLocale
    from qtpy.QtWidgets import QMessageBox

    from napari_pbip.gui.sessions import session_of
    from napari_pbip.project import recent
    from tests.gui.qt_helpers import click

    recent._file = lambda: study / "last-project.txt"
    QLocale.setDefault(QLocale(locale))
    application = get_qapp()
    napari.settings.get_settings().application.confirm_close_window = False
    sys.excepthook = lambda kind, error, trace: (sys.__excepthook__(kind, error, trace), os._exit(3))

    def settle(until: Callable[[], Any] | None = None, seconds: float = PATIENCE) -> None:
        end = time.monotonic() + (seconds if until else 0.3)
        while not (until is not None and until()):
            application.processEvents()
            time.sleep(0.005)
            if time.monotonic() > end:
                assert until is None, f"still not so after {seconds} s"
                return

    viewer = napari.Viewer()
    if size is not None:
        viewer.window.resize(*size)
    session_of(viewer)
    settle()
    sys.stdout.write(json.dumps(work(viewer, settle)) + "\n")
    window = viewer.window._qt_window
    window.close()  # as its cross does
    for box in window.findChildren(QMessageBox):  # jobs are running
        click(next(button for button in box.buttons() if button.text().replace("&", "") == "Close anyway"))
    settle()
    application.quit()
