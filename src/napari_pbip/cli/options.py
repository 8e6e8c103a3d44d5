"""Options that several commands share, and the settings made from them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_pbip.config import JobSettings, Settings, anchor_paths, overlay, override
from napari_pbip.errors import OutputError
from napari_pbip.files import require_path

JobFile = Annotated[Path | None, typer.Argument(help="Settings file (YAML); the options below override it.")]
JobOption = Annotated[Path | None, typer.Option("--job", help="Settings file (YAML); the options override it.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as train.batch_size=4.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")]
Last = Annotated[bool, typer.Option("--last", help="The last model instead of the best.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or auto.")]
Scheduler = Annotated[
    str | None,
    typer.Option(help="local:N, for N processes, or the address of a dask scheduler; by default in this process."),
]
EncoderWeights = Annotated[Path | None, typer.Option(help="Folder with the encoder's weights.")]


def _can_be_written(path: Path | None) -> Path | None:
    """Check the file of ``--json`` before a job that may take hours.

    Raises
    ------
    OutputError
        If it is a folder or an address, or the folder it is in cannot be written.
    """
    if path is None:
        return None
    require_path(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give --json the name of a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); give --json another file.") from error
    return path


JsonOut = Annotated[
    Path | None, typer.Option("--json", help="Also write the figures to this JSON file.", callback=_can_be_written)
]


def settings_from(file: Path | None, assignments: list[str] | None, options: Mapping[str, Any]) -> JobSettings:
    """Return the settings of a job file, changed by ``--set`` assignments and then by options that are not None."""
    return JobSettings.parse(values_from(JobSettings, file, assignments, options))


def values_from(
    model: type[Settings], file: Path | None, assignments: list[str] | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the nested plain values of settings that :func:`settings_from` validates.

    Relative paths in the file are relative to its folder, and others to the working folder. All are made absolute, so
    that the settings recorded with a run are valid in any working folder.
    """
    values = override(model.read_values(file) if file else {}, assignments or [])
    values = overlay(values, {key: value for key, value in options.items() if value is not None})
    anchor_paths(model, values, Path.cwd())
    return values
