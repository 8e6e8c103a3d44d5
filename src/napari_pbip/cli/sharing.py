"""What is passed on to others: ``pack``, ``push``, ``unpack`` and ``crate``."""

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


def push(
    model: Annotated[Path, typer.Argument(help="Folder of a training, or a file of 'pack'.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hugging Face hub.")],
    licence: Annotated[str, typer.Option(help="Terms under which others may use the model.")] = "",
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody see a new repository, which is private otherwise.")
    ] = False,
) -> None:
    """Upload a model to the Hugging Face hub with its model card, without the tiles that it was trained on.

    Log in first with 'hf auth login', or set HF_TOKEN to a token that may write.

    Examples:

    napari-pbip push run/ jane/skin --licence CC-BY-4.0

    napari-pbip push model.zip jane/skin --public
    """
    from napari_pbip.sharing.push import push as run_job

    summary = follow(run_job(model, repository, licence, public=public))
    say(f"Uploaded: {summary['address']} ({'private' if summary['private'] else 'public'})")


def unpack(
    file: Annotated[
        str, typer.Argument(metavar="FILE|hf://OWNER/NAME", help="A file of 'pack', or what 'push' uploaded.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the model, such as a new one in the models of a project.")],
    overwrite: Overwrite = False,
) -> None:
    """Unpack a model, which is then used like the folder of a training.

    Examples:

    napari-pbip unpack model.zip --out project/models/skin

    napari-pbip unpack hf://jane/skin --out project/models/skin
    """
    from napari_pbip.sharing.unpacking import unpack as run_job

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
