"""A job on the terminal: its events as progress bars, its figures as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from napari_pbip.events import Epoch, Finished, Job, Noted, RunStep, Started, Step, Warned
from napari_pbip.files import write_json

console = Console(stderr=True)
"""For what is said beside the result, which goes to the output proper."""


def follow(job: Job) -> Mapping[str, Any]:
    """Show a job's events as progress bars; returns the summary of its last event.

    Ctrl+C cancels the job, which keeps what is finished, and exits with code 130.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    summary: Mapping[str, Any] = {}
    with Progress(*columns, console=console) as progress:
        bar = None
        try:
            for event in job:
                match event:
                    case Started():
                        bar = progress.add_task(event.job, total=event.total, completed=event.done, note=event.unit)
                        if not console.is_terminal:  # a log, where bars are drawn once, at the end
                            progress.console.print(event.job, highlight=False)
                    case RunStep() if event.finished:
                        scores = "  ".join(f"{name} {value:.1f}" for name, value in event.values.items())
                        progress.console.print(f"{event.run}  {scores}", highlight=False)
                        if bar is not None:
                            progress.update(bar, completed=event.done, note="")
                    case Step() if bar is not None:
                        progress.update(bar, completed=event.done)
                        if isinstance(event, RunStep):
                            progress.update(bar, note=event.run)
                        if "loss" in event.values:
                            progress.update(bar, note=f"loss {event.values['loss']:.3f}")
                    case Epoch() if event.scores:
                        scores = "  ".join(f"{name} {value:.1f}" for name, value in event.scores.items())
                        best = "  (best so far)" if event.best else ""
                        progress.console.print(f"epoch {event.epoch}/{event.epochs}  {scores}{best}", highlight=False)
                    case Noted():
                        progress.console.print(event.message, markup=False, highlight=False, soft_wrap=True)
                    case Warned():
                        progress.console.print(f"[yellow]Note:[/] {event.message}", highlight=False)
                    case Finished():
                        summary = event.summary
                    case _:
                        pass
        except KeyboardInterrupt:
            job.close()
            progress.console.print("Stopped; what was finished is kept, and --resume goes on from there.")
            raise typer.Exit(130) from None
    return summary


def report_json(path: Path | None, values: Mapping[str, Any]) -> None:
    """Write the figures if a file was named."""
    if path is not None:
        write_json(path, values)
        console.print(f"Written: {path}", highlight=False)
