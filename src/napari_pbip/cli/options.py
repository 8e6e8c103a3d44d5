"""Options that several commands have, and the settings that they make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_pbip.config import JobSettings, override

JobFile = Annotated[Path | None, typer.Argument(help="Settings file (YAML); the options below go on top of it.")]
JobOption = Annotated[Path | None, typer.Option("--job", help="Settings file (YAML); the options go on top of it.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as train.batch_size=4.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")]
JsonOut = Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")]


def settings_from(file: Path | None, assignments: list[str] | None, options: Mapping[str, Any]) -> JobSettings:
    """Settings of a job file, with ``--set`` assignments and then options (None: not given) on top."""
    values = override(JobSettings.read_values(file) if file else {}, assignments or [])
    for key, value in options.items():
        if value is not None:
            *parents, last = key.split(".")
            place = values
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
    return JobSettings.parse(values)
