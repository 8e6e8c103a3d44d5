"""A copy of a project that has only what people made by hand, in which the commands of the project are run."""

from __future__ import annotations

import shutil
from pathlib import Path

from napari_pbip.bank.curation import CURATION
from napari_pbip.config import change_paths
from napari_pbip.errors import OutputError, ProjectError
from napari_pbip.files import output_error, prepare_folder
from napari_pbip.project import BANK, RESULTS, TILES, Project
from napari_pbip.replay.script import RECORDS, SCRIPT, Script, find_commands
from napari_pbip.results.corrections import FOLDER as CORRECTIONS
from napari_pbip.results.places import REGIONS, TISSUE, find_stores


def begin_replay(project: Path, copy: Path) -> Script:
    """Copy what was made by hand in a project, and write the script for the copy; return what is to be run there.

    Labelled tiles, corrections of the image bank and of maps, tissue masks, regions and the project file are copied. A
    copy that was begun earlier is completed.

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
    script = find_commands(project, copy)
    if not script.commands:
        why = " ".join(script.notes) or "it holds no image bank, no model and no map."
        raise ProjectError(f"Nothing in {project} can be made again: {why}")
    if script.missing:
        raise ProjectError(
            f"{script.missing[0]} does not exist, and the project has a map of it; open the project in the window, "
            "which asks where its slides are now, and try again."
        )
    file = copy / SCRIPT
    if file.exists() and file.read_text(encoding="utf-8") != script.text:
        raise OutputError(
            f"{copy} was begun with other steps than the project has now; choose another folder, or delete that one."
        )
    script.write(copy)
    try:
        _copy_handmade(project, copy)
    except OSError as error:
        raise output_error(copy, error) from error
    return script


def _copy_handmade(project: Path, copy: Path) -> None:
    corrected = (store / CORRECTIONS for store in find_stores(project / RESULTS))
    for folder in filter(Path.exists, (project / TILES, *corrected)):
        there = copy / folder.relative_to(project)
        shutil.copytree(folder, there, ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)
    for path in (
        project / BANK / CURATION,
        *(project / RESULTS).glob(f"*/{TISSUE}"),
        *(project / RESULTS).glob(f"*/{REGIONS}"),
    ):
        if path.exists():
            place = copy / path.relative_to(project)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)

    def moved(_: str, path: str) -> str:
        return str(copy / Path(path).relative_to(project)) if Path(path).is_relative_to(project) else path

    values = Project.open(project).model_dump(mode="json")
    change_paths(Project, values, moved)
    Project.model_validate(values).write(copy)
