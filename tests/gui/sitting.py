"""Sittings: somebody works in a window that is in a process of its own, in the language of a computer."""

from __future__ import annotations

import atexit
import json
import os
import runpy
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.forking import forking
from tests.waiting import PATIENCE

MODULES = "napari_pbip.gui.workflow_panel", "napari_pbip.engine.training.train", "napari_pbip.engine.inference.segment"


def sitting(module: str, what: str, study: Path, locale: str, *arguments: object, **environment: str) -> Any:
    """Run a module that calls :func:`sit`, with these arguments and environment variables; return what it prints.

    It is a process of its own, which knows nothing of another sitting but need not load its modules again. As on a
    computer in that language, its environment has the locale, too. If the system has that locale, Qt also sets it for
    the C library, so that numbers are written with a comma below Python, too; small systems lack it.
    """
    posix = "C" if locale == "C" else f"{locale}.UTF-8"
    environment = {"LANG": posix, "LC_ALL": posix} | environment
    with tempfile.TemporaryDirectory() as folder:
        values = module, [what, str(study), locale, *map(str, arguments)], dict(os.environ) | environment, Path(folder)
        process = forking(*MODULES).Process(target=_run, args=values)
        process.start()
        process.join(3 * PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
        assert process.exitcode == 0, (Path(folder) / "err").read_text()
        return json.loads((Path(folder) / "out").read_text().splitlines()[-1])


def _run(module: str, arguments: list[str], environment: dict[str, str], folder: Path) -> None:
    """Run a module as ``python -m`` does."""
    os.environ.clear()
    os.environ.update(environment)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__")
    atexit._run_exitfuncs()  # which multiprocessing leaves out
    sys.stdout.flush()


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
    if sys.platform == "linux":
        assert QLocale.system().name() == locale, QLocale.system().name()
    else:  # the system is asked, and not the environment
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
