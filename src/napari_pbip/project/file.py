"""The file ``project.json`` of a project folder.

It is JSON as all facts that this package writes, because YAML takes words such as ``no`` and ``1e3`` for other values.
A path in it is relative to the project folder if it lies in the folder around the project, so that a project can be
moved alone or with the slides beside it; else it is absolute.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, ValidationError

from napari_pbip.bank.labelled_slides import LabelledSlides
from napari_pbip.bank.layouts.tile_table import TABLE
from napari_pbip.config import DataSettings, JobSettings, Settings, ThresholdSettings, change_paths
from napari_pbip.config.base import Fraction, Positive
from napari_pbip.config.faults import sentence
from napari_pbip.errors import DataError, ProjectError
from napari_pbip.files import write_json
from napari_pbip.results.places import find_stores, result_folder, slide_folder
from napari_pbip.results.slide_maps import SlideMaps
from napari_pbip.slides import Position, Slide, TileSize
from napari_pbip.slides.mpp import LARGEST, SMALLEST
from napari_pbip.taxonomy import UNASSIGNED, ClassDisplay, Colour, Title

FILE = "project.json"
TILES, BANK, MODELS, RESULTS = "tiles", "bank", "models", "results"
"""Names of the folders in a project folder."""
_FORMAT = 2
"""Since 2, slides say which of their maps is shown; a file of 1 is read as it is."""


class ProjectSlide(Settings):
    """A slide of a project."""

    path: Path
    name: str
    """Name of the slide, by which its results are named."""
    identity: str
    """Hash of the slide's content, by which it is recognised when it was moved."""
    mpp: Annotated[float, Field(ge=SMALLEST, le=LARGEST)] | None = None
    """Microns per level-0 pixel, or None if unknown."""
    mpp_from: Literal["slide", "user"] | None = None
    """Who says so: the file of the slide, or the user."""
    map: Path | None = None
    """Score store of the map that is shown and counted, or None for the first one."""
    open: bool = False
    """Whether it was open in the viewer."""

    @classmethod
    def of(cls, slide: Slide, *, is_open: bool = False) -> Self:
        """Return what is remembered of an open slide."""
        source = None if slide.mpp is None else "user" if slide.mpp_is_given else "slide"
        return cls(
            path=slide.path, name=slide.name, identity=slide.identity, mpp=slide.mpp, mpp_from=source, open=is_open
        )

    def maps_in(self, results: Path) -> SlideMaps:
        """Return the maps of the slide in the project's folder of results."""
        return SlideMaps.find(self.folder_in(results), self.name, self.identity, self.map)

    def folder_in(self, results: Path) -> Path:
        """Return the slide's folder in the project's folder of results; it need not exist."""
        return result_folder(results, self.name, self.identity)

    def store_in(self, results: Path) -> Path:
        """Return the score store of the map that is shown and counted; it need not exist."""
        return self.maps_in(results).store

    def give_mpp(self, slide: Slide) -> None:
        """Give an open slide the microns per pixel of the user, unless the file beside the slide gives others."""
        if self.mpp is not None and self.mpp_from == "user" and not slide.mpp_is_given:
            slide.give_mpp(self.mpp)


class ProjectResult(Settings):
    """How a result of a project is shown, and what was done with it."""

    path: Path
    """Path of the score store."""
    thresholds: ThresholdSettings
    hidden: frozenset[Annotated[int, Field(ge=1, le=UNASSIGNED)]] = frozenset()
    """Label values that are hidden."""
    opacity: Fraction = 0.5
    open: bool = False
    """Whether it was open in the viewer."""
    tuned: bool = False
    """Whether its labels were written at thresholds that the user chose."""
    exported: bool = False
    """Whether it was exported."""


class SlidesToSegment(Settings):
    """Slides that were to be segmented with one model and are not done, in their order."""

    model_config = ConfigDict(defer_build=True)  # because the settings of jobs are

    slides: tuple[Path, ...]
    model: Path
    """Folder of the model."""
    settings: JobSettings
    """The settings at the time when they were queued."""
    beside: bool = False
    """Whether their maps are made beside those of other models."""
    replace: bool = False
    """Whether their earlier maps are replaced."""


class SkippedTiles(Settings):
    """Tiles of a slide that were suggested for labels and skipped, so that they are not suggested again."""

    slide: str
    """Identity of the slide."""
    size: TileSize
    """Size of the tiles; with another one, these positions are other tissue."""
    positions: tuple[Position, ...]


class ProjectView(Settings):
    """What the window showed of a project beside its layers."""

    centre: tuple[float, float] | None = None
    """Middle of the canvas, y and x in micrometres, or in pixels of a slide whose microns per pixel are not known."""
    zoom: Positive | None = None
    """Screen pixels per micrometre, or per pixel of that slide."""
    step: str = ""
    """Page of the panel *Workflow*."""
    sorted_by: str = ""
    """Column by which the table of slides is sorted; empty if they are in the order in which they were added."""
    descending: bool = False
    filter: str = ""
    """Text by which the table is filtered."""


class Project(Settings):
    """What is remembered of a project folder beside its tiles, image bank, models and results. Paths are absolute."""

    model_config = ConfigDict(defer_build=True)  # because the settings of jobs are

    slides: tuple[ProjectSlide, ...] = ()
    """Each path occurs once."""
    current: Path | None = None
    """The slide in view."""
    results: tuple[ProjectResult, ...] = ()
    model: Path | None = None
    """Folder of the model that was chosen for the next slides."""
    settings: JobSettings = JobSettings()
    """The settings of the next jobs; those of each job that has run lie beside its result."""
    titles: Mapping[str, Title] = {}
    """Titles under which classes are shown, by their names."""
    colours: Mapping[str, Colour] = {}
    """Colours in which classes are shown, by their names, instead of those of models and labelled tiles."""
    queue: tuple[SlidesToSegment, ...] = ()
    """The slides that were to be segmented and are not done."""
    view: ProjectView = ProjectView()
    skipped: tuple[SkippedTiles, ...] = ()

    @property
    def classes(self) -> ClassDisplay:
        """The titles and colours in which classes are shown."""
        return ClassDisplay(titles=self.titles, colours=self.colours)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the file of a project folder; without one, return what the folder says by itself.

        Raises
        ------
        ProjectError
            If the file is damaged, or of a newer version of this package.
        """
        path = folder / FILE
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(settings=JobSettings(data=_labelled_tiles(folder / TILES)))
        except (OSError, ValueError, RecursionError) as error:
            raise _damaged(path) from error
        if not isinstance(document, dict) or not isinstance(version := document.pop("format", None), int):
            raise _damaged(path)
        if version > _FORMAT:
            raise ProjectError(f"{path} was written by a newer version of napari-pbip; update napari-pbip to open it.")
        change_paths(cls, document, lambda _, path: os.path.normpath(folder.absolute() / path))
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise _damaged(path, sentence(cls, error)) from error

    def write(self, folder: Path) -> None:
        """Write the file; it is replaced only when complete.

        Raises
        ------
        OutputError
            If the folder cannot be written.
        """
        values = self.model_dump(mode="json")
        change_paths(type(self), values, lambda _, path: _portable(Path(path), folder.absolute()))
        write_json(folder / FILE, {"format": _FORMAT, **values})


def shown_classes(store: Path) -> ClassDisplay:
    """Return the titles and colours of classes in the project in whose results a score store lies.

    There are none if it lies in no project.

    Raises
    ------
    ProjectError
        If the project file is damaged.
    """
    project = project_of(store)
    return ClassDisplay() if project is None else project.classes


def project_of(store: Path) -> Project | None:
    """Read the project in whose results a score store lies; return None if it lies in no project.

    Raises
    ------
    ProjectError
        If the project file is damaged.
    """
    results = slide_folder(store.absolute().parent).parent
    return Project.open(results.parent) if results.name == RESULTS else None


def counted_stores(place: Path) -> dict[Path, bool]:
    """Find the score stores in a folder, and whether each is counted: not if its project shows another of the slide.

    Raises
    ------
    ProjectError
        If the folder is a project whose file is damaged.
    """
    results = place / RESULTS
    slides = Project.open(place).slides if (place / FILE).exists() else ()
    others = {store for slide in slides for store in slide.maps_in(results).others}
    return {store: store not in others for store in find_stores(place)}


def _labelled_tiles(folder: Path) -> DataSettings:
    """Return the settings of the tiles that were labelled on slides, if there are some."""
    try:
        labelled = LabelledSlides.read(folder)
    except DataError:  # said where tiles are labelled
        labelled = None
    if labelled is None or not (folder / TABLE).exists():
        return DataSettings()
    return DataSettings(folder=folder, mpp=labelled.size.mpp)


def _portable(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix() if path.is_relative_to(folder.parent) else str(path)


def _damaged(path: Path, reason: str = "") -> ProjectError:
    why = f" ({reason[0].lower()}{reason[1:].rstrip('.')})" if reason else ""
    return ProjectError(
        f"{path} cannot be read{why} and is left as it is; restore it from a backup, or move it away to begin "
        "a new one: the tiles, image bank, models and results of the project stay."
    )
