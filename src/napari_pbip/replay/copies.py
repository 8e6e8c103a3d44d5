"""A copy of a project that has only what people made by hand, in which the commands of the project are run."""

from __future__ import annotations

import shutil
from pathlib import Path

from napari_pbip.bank.curation import CURATION
from napari_pbip.config import change_paths
from napari_pbip.errors import OutputError, ProjectError
from napari_pbip.files import output_error, prepare_folder
from napari_pbip.project import BANK, RESULTS, TILES, Project
from napari_pbip.replay.steps import RECORDS, SCRIPT, Steps, find_steps
from napari_pbip.results.places import TISSUE


def begin_replay(project: Path, copy: Path) -> Steps:
    """Copy what was made by hand in a project, and write its steps for the copy; return the commands to be run there.

    Labelled tiles, corrections of the image bank, tissue masks and the project file are copied. A copy that was begun
    earlier is completed.

    Parameters
    ----------
    project
        The project folder.
    copy
        The folder of the copy.

    Raises
    ------
    ProjectError
        If the project file is damaged, there is nothing to be made again, or a slide is missing.
    OutputError
        If the folder of the copy holds something else, or cannot be written.
    """
    project, copy = project.absolute(), copy.absolute()
    if project.resolve() == copy.resolve():
        raise OutputError(f"{copy} is the project itself; choose another folder for what is made again.")
    if not (copy / RECORDS).exists():
        prepare_folder(copy, RECORDS, overwrite=False)
    steps = find_steps(project, copy)
    if not steps.commands:
        why = " ".join(steps.notes) or "it holds no image bank, no model and no map."
        raise ProjectError(f"Nothing in {project} can be made again: {why}")
    if steps.missing:
        raise ProjectError(
            f"{steps.missing[0]} does not exist, of which the project has a map; open the project in the window, which "
            "asks where its slides are now, and try again."
        )
    script = copy / SCRIPT
    if script.exists() and script.read_text(encoding="utf-8") != steps.script:
        raise OutputError(
            f"{copy} was begun with other steps than the project has now; choose another folder, or delete that one."
        )
    steps.write(copy)
    try:
        _copy_handmade(project, copy)
    except OSError as error:
        raise output_error(copy, error) from error
    return steps


def _copy_handmade(project: Path, copy: Path) -> None:
    if (project / TILES).exists():
        shutil.copytree(project / TILES, copy / TILES, ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)
    for path in (project / BANK / CURATION, *(project / RESULTS).glob(f"*/{TISSUE}")):
        if path.exists():
            place = copy / path.relative_to(project)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)

    def moved(_: str, path: str) -> str:
        return str(copy / Path(path).relative_to(project)) if Path(path).is_relative_to(project) else path

    values = Project.open(project).model_dump(mode="json")
    change_paths(Project, values, moved)
    Project.model_validate(values).write(copy)
