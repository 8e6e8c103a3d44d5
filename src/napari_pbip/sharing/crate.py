"""The description of a project as an RO-Crate: what is in its folder, what was made from what, when and by whom.

RO-Crate (https://w3id.org/ro/crate/1.1) describes research data as JSON-LD, which repositories read. The description is
the file ``ro-crate-metadata.json`` in the project folder; nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from napari_pbip.engine.jobs import job
from napari_pbip.engine.run_facts import MARKER, RunFacts, runs_in
from napari_pbip.errors import OutputError, PbipError
from napari_pbip.events import Finished, Job, Started, Step, Warned
from napari_pbip.files import write_json
from napari_pbip.project import BANK, FILE, MODELS, TILES
from napari_pbip.provenance import Made
from napari_pbip.results.label_files import FOLDER, open_labels
from napari_pbip.results.places import AREAS, OVERLAY, name_of_map
from napari_pbip.results.store import ScoreStore
from napari_pbip.sharing.slide import threshold_facts, thresholds_of
from napari_pbip.sharing.sources import Source
from napari_pbip.slides import SlideFacts
from napari_pbip.taxonomy import ClassDisplay

METADATA = "ro-crate-metadata.json"
_ABOUT = {
    FILE: ("the project: slides, settings, and how results are shown", "application/json"),
    TILES: ("tiles of slides with the classes that a person saw in them", ""),
    BANK: ("image bank: single-class tiles, their features, clusters and prototypes", ""),
    AREAS: ("area of each class in mm² and its share of the tissue", "text/csv"),
    OVERLAY: ("the slide with its labels in colour", "image/png"),
}


@job
def crate(project: Path | str, licence: str, author: str = "") -> Job:
    """Describe a project as an RO-Crate, in a file of its folder; an earlier description is replaced.

    Slides are named with their identity and not with their path, because they lie elsewhere.

    Parameters
    ----------
    project
        The project folder.
    licence
        Terms under which others may use the data; an address such as ``https://spdx.org/licenses/CC-BY-4.0``, or words.
    author
        Who is to be named as author of the whole; nobody if empty.

    Raises
    ------
    OutputError
        If the library rocrate is not installed, the folder holds no map or cannot be written, or no licence is given.
    ProjectError
        If the project file is damaged.
    """
    project = Path(project).absolute()
    if not licence.strip():
        raise OutputError("An RO-Crate states its licence; give one, such as https://spdx.org/licenses/CC-BY-4.0.")
    found = Source.find(project)
    written = _Crate(project, licence.strip(), author.strip(), found.classes)
    runs = runs_in(project / MODELS)
    maps = [*found.results, *(store for others in found.others.values() for store in others)]
    yield Started(f"Describing {project.name}", total=len(runs) + len(maps), unit="parts")
    for done, (name, facts) in enumerate(runs.items(), 1):
        if isinstance(facts, PbipError):
            yield Warned(f"The description leaves out the model {name}: {facts}")
        else:
            written.add_model(name, facts)
        yield Step(done)
    for done, path in enumerate(maps, len(runs) + 1):
        try:
            written.add_map(ScoreStore.open(path))
        except OutputError as error:
            yield Warned(f"The description leaves out {name_of_map(path)}: {error}")
        yield Step(done)
    write_json(project / METADATA, written.document)
    yield Finished(project / METADATA)


class _Crate:
    """An RO-Crate that is being written."""

    def __init__(self, project: Path, licence: str, author: str, classes: ClassDisplay) -> None:
        try:
            from rocrate.model.contextentity import ContextEntity
            from rocrate.rocrate import ROCrate
        except ImportError as error:
            raise OutputError(
                "RO-Crates need another library; run `pip install napari-pbip[rocrate]`, and try again."
            ) from error
        self._project, self._entity, self._classes = project, ContextEntity, classes
        self._crate = ROCrate(version="1.1")
        self._crate.name = project.name
        self._crate.description = "Tissue maps of slides by napari-pbip, and the tiles and models that made them."
        address = licence if licence.startswith(("https://", "http://")) else "#licence"
        self._crate.license = self._add(address, {"@type": "CreativeWork", "name": licence})
        if author:
            self._crate.root_dataset["author"] = self._person(author)
        for name in (FILE, TILES, BANK):
            self._part(project / name, *_ABOUT[name])

    @property
    def document(self) -> dict[str, Any]:
        """The contents of ``ro-crate-metadata.json``."""
        document: dict[str, Any] = self._crate.metadata.generate()
        return document

    def add_model(self, name: str, facts: RunFacts) -> None:
        """Add the folder of a training, and the training."""
        method = facts.settings.method
        folder = self._part(self._project / MODELS / name, f"model of the method {method.title or method.name}")
        self._part(self._project / MODELS / name / MARKER, "settings and facts of the training", "application/json")
        parts = [part for part in map(self._crate.get, (f"{TILES}/", f"{BANK}/")) if part is not None]
        made = None if facts.made is None else Made.model_validate(facts.made)
        self._made(f"training of {name}", parts, [folder], made, facts.versions.get("napari-pbip"))

    def add_map(self, store: ScoreStore) -> None:
        """Add the results of a slide, the slide, and the computation of its scores and its labels."""
        facts, folder = store.facts, store.path.parent
        made_from = [self._slide(facts.slide)]
        if (model := self._crate.get(f"{MODELS}/{quote(facts.model.run)}/")) is not None:
            made_from.append(model)
        results = [self._part(store.path, f"scores and labels of {facts.slide.name} (OME-Zarr 0.5)")]
        results += [self._part(folder / name, *_ABOUT[name]) for name in (AREAS, OVERLAY)]
        settings = {
            "microns per pixel of the slide": f"{facts.slide.mpp:.4g}",
            "microns per pixel of the model": f"{facts.grid.model_mpp:.4g}",
            "identity of the weights": facts.model.hash,
        }
        if (store.path / FOLDER).exists():
            labels = open_labels(store)[1]
            shown = thresholds_of(labels.thresholds, store.taxonomy, self._classes.of(store.taxonomy))
            settings |= threshold_facts(shown, labels.refined)
        results[0]["additionalProperty"] = [self._value(store, name, value) for name, value in settings.items()]
        made = [one for one in results if one is not None]
        self._made(f"map in {name_of_map(store.path)}", made_from, made, facts.made)

    def _part(self, path: Path, about: str, encoding: str = "") -> Any:
        """Add a file or folder of the project and return it; None if it does not exist."""
        place = path.relative_to(self._project).as_posix()
        described = {"name": place, "description": about} | ({"encodingFormat": encoding} if encoding else {})
        if path.is_dir():
            return self._crate.add_directory(path, place, properties=described)
        return self._crate.add_file(path, place, properties=described) if path.exists() else None

    def _slide(self, slide: SlideFacts) -> Any:
        facts = {"@type": "CreativeWork", "name": slide.name, "identifier": slide.identity}
        return self._add(f"#slide-{slide.identity}", facts)

    def _value(self, store: ScoreStore, name: str, value: str) -> Any:
        where = f"#{quote(name_of_map(store.path))}-{quote(name)}"
        return self._add(where, {"@type": "PropertyValue", "name": name, "value": value})

    def _made(
        self, what: str, made_from: Sequence[Any], results: Sequence[Any], made: Made | None, version: str | None = None
    ) -> None:
        """Add the action that made results from other things, as far as it is recorded."""
        known = version or (None if made is None else made.version)
        name = "napari-pbip" + (f" {known}" if known else "")
        about = {"@type": "SoftwareApplication", "name": name} | ({"softwareVersion": known} if known else {})
        action = self._crate.add_action(
            self._add(f"#{quote(name)}", about),
            identifier=f"#{quote(what)}",
            object=_one_or_all(made_from),
            result=_one_or_all(results),
            properties={"name": what} | ({} if made is None else {"startTime": made.time.isoformat()}),
        )
        if made is not None and made.operator:
            action["agent"] = self._person(made.operator)
        self._crate.root_dataset.append_to("mentions", action)

    def _person(self, name: str) -> Any:
        return self._add(f"#person-{quote(name)}", {"@type": "Person", "name": name})

    def _add(self, identifier: str, properties: dict[str, str]) -> Any:
        """Add what is not in the folder, once."""
        found = self._crate.get(identifier)
        return found or self._crate.add(self._entity(self._crate, identifier, properties=properties))


def _one_or_all(entities: Sequence[Any]) -> Any:
    """Return a single entity as itself, as RO-Crate recommends."""
    return entities[0] if len(entities) == 1 else list(entities)
