"""Jobs on the command line: their progress, stopping them, and their summary as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from napari_pbip.cli.terminal import say
from napari_pbip.errors import OutputError
from napari_pbip.events import Job
from napari_pbip.files import write_json
from napari_pbip.progress import run
from napari_pbip.signals import Stopped, let_signals_kill
from napari_pbip.wording import Interface


def follow(job: Job, resume: str = "") -> Mapping[str, Any]:
    """Run a job with progress bars; return the summary of its last event.

    Ctrl+C stops the job, which keeps what is finished, and exits with code 130; SIGTERM likewise, with code 143.

    Parameters
    ----------
    job
        The job.
    resume
        Option that resumes the job, for example ``--resume``; empty if it cannot be resumed.
    """
    try:
        return run(Interface.COMMAND_LINE.job(lambda: job)).summary
    except (KeyboardInterrupt, Stopped) as stop:
        let_signals_kill()
        with suppress(OSError):  # the terminal may have been closed
            say(f"Stopped; what was finished is kept, and {resume} continues from there." if resume else "Stopped.")
        raise typer.Exit(stop.status if isinstance(stop, Stopped) else 130) from None


def report_json(path: Path | None, values: Mapping[str, Any]) -> None:
    """Write the values to a JSON file if a path is given.

    Raises
    ------
    OutputError
        If the file cannot be written; the values are then printed.
    """
    if path is None:
        return
    try:
        write_json(path, values)
    except OutputError as error:
        typer.echo(json.dumps(values, indent=2))
        raise OutputError(f"{error} It is the file of --json; the figures are printed instead.") from error
    say(f"Written: {path}")
