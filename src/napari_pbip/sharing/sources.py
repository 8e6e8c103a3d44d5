"""The results that a report is about: of one slide, or of all slides of a project."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from napari_pbip.config import ThresholdSettings
from napari_pbip.errors import OutputError
from napari_pbip.folders import STORE_MARKER
from napari_pbip.project import BANK, FILE, MODELS, RESULTS, Project, ProjectSlide, shown_classes
from napari_pbip.results.places import slide_folder, stores_in
from napari_pbip.results.store_facts import ModelFacts
from napari_pbip.taxonomy import ClassDisplay


@dataclass(frozen=True, slots=True)
class Source:
    """What a report is about."""

    folder: Path
    """The score store, or the project folder."""
    results: dict[Path, ThresholdSettings | None]
    """The score stores, each with the thresholds by which the project shows it, if it does."""
    slides: tuple[ProjectSlide, ...] = ()
    """The slides of a project, with and without a result."""
    others: dict[Path, dict[Path, str]] = field(default_factory=dict)
    """The titles of the other maps of the same slide, for each store for which there are some."""
    classes: ClassDisplay = field(default_factory=ClassDisplay)
    """The titles and colours of classes in the project."""

    @classmethod
    def find(cls, folder: Path) -> Source:
        """Find the results in a folder: a score store, an output folder of ``segment``, or a project.

        Raises
        ------
        OutputError
            If it is none of them, or there are no results.
        ProjectError
            If the project file is damaged.
        """
        if (folder / STORE_MARKER).exists():
            return cls(folder, {folder: None}, classes=shown_classes(folder))
        if (folder / FILE).exists() or (folder / RESULTS).is_dir():
            project = Project.open(folder)
            shown = {result.path: result.thresholds for result in project.results}
            results = folder / RESULTS
            maps = [slide.maps_in(results) for slide in project.slides]
            found = (
                [one.store for one in maps]
                if maps
                else [store for place in sorted(results.iterdir()) for store in stores_in(place)]
            )
            stores = {store: shown.get(store) for store in found if (store / STORE_MARKER).exists()}
            others = {one.store: one.others for one in maps}
            others = {store: rest for store, rest in others.items() if rest}
            source = cls(folder, stores, project.slides, others, project.classes)
        else:
            made = list(stores_in(folder))
            source = cls(folder, dict.fromkeys(made), classes=shown_classes(made[0]) if made else ClassDisplay())
        if not source.results:
            raise OutputError(
                f"{folder} holds no map of a slide; give the <slide>.ome.zarr of a segmented slide, or a project."
            )
        return source

    def runs(self, model: ModelFacts) -> list[Path]:
        """Return where the run of a model may be: in the project, and where it was when it was used."""
        return [
            *(place / MODELS / model.run for place in self._projects),
            *([Path(model.folder)] if model.folder else []),
        ]

    def banks(self, run: Path) -> list[Path]:
        """Return where the image bank of a run may be: in it, and in the project."""
        return [run / BANK, *(place / BANK for place in self._projects)]

    @property
    def _projects(self) -> list[Path]:
        """The project folder; of a store, the one in whose results it may be."""
        folders = (slide_folder(store.absolute().parent) for store in self.results)
        return [self.folder, *dict.fromkeys(place for folder in folders for place in folder.parents[1:2])]
