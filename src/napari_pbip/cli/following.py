"""A job on the terminal: its events as progress bars, its figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from napari_pbip.cli.terminal import console, say
from napari_pbip.errors import OutputError
from napari_pbip.events import Epoch, Finished, Job, Noted, RunStep, Started, Step, Warned
from napari_pbip.files import write_json
from napari_pbip.signals import Stopped, let_signals_kill


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
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=console) as progress:
            return _shown(job, progress)
    except (KeyboardInterrupt, Stopped) as stop:
        job.close()
        let_signals_kill()
        with suppress(OSError):  # the terminal may be what has gone
            say(f"Stopped; what was finished is kept, and {resume} goes on from there." if resume else "Stopped.")
        raise typer.Exit(stop.status if isinstance(stop, Stopped) else 130) from None


def _shown(job: Job, progress: Progress) -> Mapping[str, Any]:
    """Go through a job to its end."""
    bar = None
    summary: Mapping[str, Any] = {}

    def line(*parts: str | tuple[str, str]) -> None:
        progress.console.print(Text.assemble(*parts), soft_wrap=True)

    for event in job:
        match event:
            case Started():
                bar = progress.add_task(event.job, total=event.total, completed=event.done, note=event.unit)
                if not console.is_terminal:  # a log, where bars are drawn once, at the end
                    line(event.job)
            case RunStep() if event.finished:
                line(f"{event.run}  {_figures(event.values)}")
                if bar is not None:
                    progress.update(bar, completed=event.done, note="")
            case Step() if bar is not None:
                progress.update(bar, completed=event.done)
                if isinstance(event, RunStep):
                    progress.update(bar, note=event.run)
                if "loss" in event.values:
                    progress.update(bar, note=f"loss {event.values['loss']:.3f}")
            case Epoch() if event.scores:
                best = "  (best so far)" if event.best else ""
                line(f"epoch {event.epoch}/{event.epochs}  {_figures(event.scores)}{best}")
            case Noted():
                line(event.message)
            case Warned():
                line(("Note:", "yellow"), f" {event.message}")
            case Finished():
                summary = event.summary
            case _:
                pass
    return summary


def _figures(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.1f}" for name, value in values.items())


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
