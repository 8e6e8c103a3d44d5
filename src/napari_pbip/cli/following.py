"""A job on the command line: how it is stopped, its figures as JSON."""

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
    """Show a job's events as progress bars; returns the summary of its last event.

    Ctrl+C stops the job, which keeps what is finished, and exits with code 130; SIGTERM likewise, with code 143.

    Parameters
    ----------
    job
        The job.
    resume
        How it is taken up again, for example "--resume"; empty if it keeps nothing that could be.
    """
    try:
        return run(Interface.COMMAND_LINE.job(lambda: job)).summary
    except (KeyboardInterrupt, Stopped) as stop:
        let_signals_kill()
        with suppress(OSError):  # the terminal may be what has gone
            say(f"Stopped; what was finished is kept, and {resume} goes on from there." if resume else "Stopped.")
        raise typer.Exit(stop.status if isinstance(stop, Stopped) else 130) from None


def report_json(path: Path | None, values: Mapping[str, Any]) -> None:
    """Write the figures if a file was named.

    Raises
    ------
    OutputError
        If it cannot be written; the figures are printed then.
    """
    if path is None:
        return
    try:
        write_json(path, values)
    except OutputError as error:
        typer.echo(json.dumps(values, indent=2))
        raise OutputError(f"{error} It is the file of --json; the figures are printed instead.") from error
    say(f"Written: {path}")
