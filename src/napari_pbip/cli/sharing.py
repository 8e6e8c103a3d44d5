"""What is passed on to others: ``pack``, ``unpack`` and ``crate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_pbip.cli.following import follow
from napari_pbip.cli.options import Overwrite
from napari_pbip.cli.terminal import say


def pack(
    run: Annotated[Path, typer.Argument(help="Folder of a training.")],
    out: Annotated[Path, typer.Option(help="File to write, such as model.zip.")],
    licence: Annotated[str, typer.Option(help="Terms under which others may use the model.")] = "",
    overwrite: Overwrite = False,
) -> None:
    """Pack a model into one file with a model card, without the tiles that it was trained on.

    Example: napari-pbip pack run/ --out model.zip --licence CC-BY-4.0
    """
    from napari_pbip.sharing.packing import pack as run_job

    summary = follow(run_job(run, out, licence, overwrite=overwrite))
    say(f"Packed {', '.join(summary['files'])}: {out}")


def unpack(
    file: Annotated[Path, typer.Argument(help="A file of 'pack'.")],
    out: Annotated[Path, typer.Option(help="Folder of the model, such as a new one in the models of a project.")],
    overwrite: Overwrite = False,
) -> None:
    """Unpack a model, which is then used like the folder of a training.

    Example: napari-pbip unpack model.zip --out project/models/skin
    """
    from napari_pbip.sharing.packing import unpack as run_job

    summary = follow(run_job(file, out, overwrite=overwrite))
    say(f"Unpacked: {out}" + (f" (licence: {summary['licence']})" if summary["licence"] else ""))


def crate(
    project: Annotated[Path, typer.Argument(help="Folder of the project.")],
    licence: Annotated[
        str, typer.Option(help="Terms under which others may use it, such as https://spdx.org/licenses/CC-BY-4.0")
    ],
    author: Annotated[str, typer.Option(help="Author of the whole; nobody is named without it.")] = "",
) -> None:
    """Describe a project as an RO-Crate, for data repositories: ro-crate-metadata.json in its folder.

    Example: napari-pbip crate project/ --licence https://spdx.org/licenses/CC-BY-4.0 --author "A. Müller"
    """
    from napari_pbip.sharing.crate import crate as run

    follow(run(project, licence, author))
    say(f"Written: {project / 'ro-crate-metadata.json'}")
