"""A model packed into one file, which can be mailed or published, and unpacked elsewhere.

The file is a zip archive without compression:

```text
MODEL.zip
  README.md                the model card
  run.json                 facts of the run, without paths of the machine and names of tiles
  best.safetensors         the model (last.safetensors if the training was stopped before its first validation)
  exemplars.safetensors    of a linear probe, the cells that explain its maps
  packed.json              format, identity of the weights, licence, and the SHA-256 of each of the other files
```

Nothing in it is executed when it is read, and names in it are never used as paths: only these files are taken.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from napari_pbip.config import JobSettings, TrainedSettings, change_paths
from napari_pbip.engine.jobs import job
from napari_pbip.engine.run_facts import MARKER, RunFacts
from napari_pbip.errors import ModelError, OutputError
from napari_pbip.events import Finished, Job, Started, Step
from napari_pbip.files import writing
from napari_pbip.provenance import Made
from napari_pbip.results.store_facts import ModelFacts
from napari_pbip.sharing.model import ReportedModel

CARD, PACKED = "README.md", "packed.json"
WEIGHTS = ("best.safetensors", "last.safetensors", "exemplars.safetensors")
CONTENTS = (CARD, MARKER, *WEIGHTS)
LARGEST_TEXT = 16_000_000
"""Bytes of the largest file that is not weights."""
Place = Path | zipfile.Path
"""A folder on disk, or in an archive."""
_TAGS = ("digital-pathology", "histology", "weakly-supervised-segmentation")
_HUB_LICENCES = frozenset(
    {
        *("apache-2.0", "bsd-3-clause", "mit", "gpl-3.0"),
        *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"),
    }
)
"""Licences by which the hub can be searched; others are given by name."""
_NO_LICENCE = "none was given: ask those who trained the model before you use it"


class Packed(BaseModel):
    """The contents of ``packed.json``."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    name: str
    """Name of the run."""
    identity: str
    """Hash of the weights."""
    licence: str
    made: Made
    files: dict[str, Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]]
    """SHA-256 of each file."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a packed model."""

    packed: Packed
    texts: Mapping[str, str]
    """Texts of its text files, by name."""
    weights: Mapping[str, Path]
    """The files with its weights, by name."""

    @classmethod
    def of_run(cls, run: Path, licence: str) -> Self:
        """Return what of a run is packed; its weights are hashed.

        Raises
        ------
        ModelError
            If the folder is not a run, or its weights are missing or damaged.
        """
        from napari_pbip.engine.runs import available, run_identity  # torch takes seconds to load

        facts, identity = RunFacts.read(run), run_identity(run)
        best = f"{available(run, facts, 'best')}.safetensors"
        weights = {name: run / name for name in (best, WEIGHTS[-1]) if (run / name).exists()}
        texts = {CARD: _card(run, facts, identity, licence), MARKER: _without_paths(run)}
        hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
        hashes |= {name: file_hash(path) for name, path in weights.items()}
        packed = Packed(name=run.name, identity=identity, licence=licence, made=Made.now(), files=hashes)
        return cls(packed, texts | {PACKED: packed.model_dump_json(indent=2) + "\n"}, weights)

    @classmethod
    def of_folder(cls, folder: Path) -> Self:
        """Return the contents of a folder into which a packed model was unpacked with what describes it."""
        packed = read_packed(folder, folder)
        names = (PACKED, *(name for name in packed.files if name not in WEIGHTS))
        texts = {name: (folder / name).read_text(encoding="utf-8") for name in names}
        return cls(packed, texts, {name: folder / name for name in packed.files if name in WEIGHTS})


@job
def pack(run: Path | str, target: Path | str, licence: str = "", *, overwrite: bool = False) -> Job:
    """Pack a trained model into one file.

    Labelled tiles, the image bank and names of folders on this machine are left out, because they may name patients.
    Weights of an encoder that the model needs (ConStruct, linear probe, PBIP in which a probe has a share) are not
    packed either, as they often may not be passed on; the card names it.

    Parameters
    ----------
    run
        Folder of a training.
    target
        The file to write, by convention ``.zip``.
    licence
        Terms under which others may use the model, for the card.
    overwrite
        Whether an earlier file is replaced.

    Raises
    ------
    ModelError
        If the folder is not a run, or its weights are missing or damaged.
    OutputError
        If the file exists or cannot be written.
    """
    run, target = Path(run), Path(target)
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists already; use `overwrite=True` to replace it, or choose another name.")
    contents = Contents.of_run(run, licence)
    yield Started(f"Packing {run.name}", total=len(contents.weights), unit="files")
    with writing(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, text in contents.texts.items():
            archive.writestr(name, text)
        for done, (name, path) in enumerate(contents.weights.items(), 1):
            archive.write(path, name)
            yield Step(done)
    files = sorted((*contents.texts, *contents.weights))
    yield Finished(target, {"identity": contents.packed.identity, "files": files})


def read_packed(source: object, place: Place) -> Packed:
    """Return what a packed model in a folder says about itself.

    Raises
    ------
    ModelError
        If it says nothing, is of another format, or names other files than those of a model, or such as are not there.
    """
    if not (place / PACKED).is_file():
        raise no_model(source)
    try:
        packed = Packed.model_validate_json((place / PACKED).read_bytes())
    except ValidationError as error:
        raise ModelError(f"{source} is of another format than this version reads; update napari-pbip.") from error
    names = packed.files
    if set(names) - set(CONTENTS) or MARKER not in names or not all((place / name).is_file() for name in names):
        raise damaged(source)
    return packed


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def no_model(source: object) -> ModelError:
    """Return the error for what is not a packed model."""
    return ModelError(f"{source} is no packed model (it holds no {PACKED}); pack one with `pack()`.")


def damaged(source: object) -> ModelError:
    """Return the error for a packed model that is not what it says."""
    return ModelError(f"{source} is damaged or was changed, and is not unpacked; ask for it again.")


def _without_paths(run: Path) -> str:
    """Return ``run.json`` without what names folders of this machine or tiles."""
    document = json.loads((run / MARKER).read_text(encoding="utf-8"))
    change_paths(JobSettings, document["settings"], lambda _, path: path if path == "builtin" else None)
    for facts in (document.get("prototypes") or {}, document.get("fit") or {}):
        facts.pop("worst", None)
        facts.pop("slides", None)
        if facts.get("encoder"):
            facts["encoder"]["weights"] = None
    return json.dumps(document, indent=2) + "\n"


def _card(run: Path, facts: RunFacts, identity: str, licence: str) -> str:
    """Return the model card, as Markdown."""
    trained = isinstance(facts.settings.method, TrainedSettings)
    recorded = ModelFacts(hash=identity, run=run.name, backbone=facts.settings.backbone.name if trained else None)
    model = ReportedModel(recorded, run, "")
    rows = {**dict(model.card()), "licence": licence or _NO_LICENCE}
    if model.tiles is not None:
        counts = zip(model.tiles.taxonomy.names, model.tiles.counts, strict=True)
        rows["labelled tiles"] = f"{len(model.tiles):,}; " + ", ".join(f"{name} in {count:,}" for name, count in counts)
    rows["validation"] = model.validation
    table = "\n".join(f"| {name} | {_plain(value)} |" for name, value in rows.items())
    return (
        f"---\n{_metadata(licence)}---\n\n# {_plain(run.name)}\n\n"
        "A model of napari-pbip, which makes tissue maps of slides. "
        f"Its command `unpack` makes a folder of it.\n\n| | |\n|---|---|\n{table}\n"
    )


def _plain(text: str) -> str:
    """Return a text as it is shown in a field of a Markdown table."""
    return "".join(f"\\{c}" if c in r"\`*_[]<>|#" else c for c in " ".join(text.split()))


def _metadata(licence: str) -> str:
    """Return what the Hugging Face hub reads at the beginning of a card, as YAML."""
    known = licence.lower() if licence.lower() in _HUB_LICENCES else "other"
    named = {"license_name": licence} if licence and known == "other" else {}
    data = {"library_name": "napari-pbip", "license": known, **named, "tags": list(_TAGS)}
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
