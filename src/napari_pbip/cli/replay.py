"""``napari-pbip replay``: make the image bank, the models and the maps of a project again."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path
from typing import Annotated

import typer

from napari_pbip.cli.terminal import say
from napari_pbip.wording import Interface


def replay(
    context: typer.Context,
    project: Annotated[Path, typer.Argument(help="Folder of the project.")],
    out: Annotated[Path, typer.Option(help="Folder in which everything is made again.")],
) -> None:
    """Make a project's image bank, models and maps again, from a copy of what was made by hand in it.

    What is done in the folder already is not repeated. The commands are in its steps.sh.

    Example: napari-pbip replay project/ --out again/
    """
    from napari_pbip.replay import begin_replay

    script = begin_replay(project, out)
    for note in script.notes:
        say(f"Note: {Interface.COMMAND_LINE.sentence(note)}")
    program = context.find_root().command
    with chdir(out):
        for command in script.commands:
            if (arguments := command.left(Path())) is None:
                say(f"Done: {command.out}")
                continue
            say(f"{command}")
            if status := program.main(list(arguments), standalone_mode=False):
                say("napari-pbip replay continues there when it is called again.")
                raise typer.Exit(status)
    say(f"Everything is made again in {out}")
