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
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from napari_pbip.config import JobSettings, TrainedSettings, change_paths
from napari_pbip.engine.jobs import job
from napari_pbip.engine.run_facts import MARKER, RunFacts
from napari_pbip.errors import ModelError, OutputError
from napari_pbip.events import Finished, Job, Started, Step
from napari_pbip.files import prepare_folder, writing, writing_folder
from napari_pbip.provenance import Made
from napari_pbip.results.store_facts import ModelFacts
from napari_pbip.sharing.model import ReportedModel

CARD, PACKED = "README.md", "packed.json"
_WEIGHTS = ("best.safetensors", "last.safetensors", "exemplars.safetensors")
_CONTENTS = (CARD, MARKER, *_WEIGHTS)
_LARGEST_TEXT = 16_000_000
"""Bytes of the largest file that is not weights."""
_CHUNK = 1 << 22
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


@job
def pack(run: Path | str, target: Path | str, licence: str = "", *, overwrite: bool = False) -> Job:
    """Pack a trained model into one file.

    Labelled tiles, the image bank and names of folders on this machine are left out, because they may name patients.
    Weights of an encoder that the model needs (ConStruct, linear probe) are not packed either, as they often may not be
    passed on; the card names it.

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
    from napari_pbip.engine.runs import available, run_identity  # torch takes seconds to load

    run, target = Path(run), Path(target)
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists already; use `overwrite=True` to replace it, or choose another name.")
    facts, identity = RunFacts.read(run), run_identity(run)
    best = f"{available(run, facts, 'best')}.safetensors"
    weights = [name for name in (best, _WEIGHTS[-1]) if (run / name).exists()]
    yield Started(f"Packing {run.name}", total=len(weights) + 1, unit="files")
    texts = {CARD: _card(run, facts, identity, licence), MARKER: _without_paths(run)}
    hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    with writing(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
        for done, name in enumerate(weights, 1):
            with (run / name).open("rb") as file:
                hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
            archive.write(run / name, name)
            yield Step(done)
        packed = Packed(name=run.name, identity=identity, licence=licence, made=Made.now(), files=hashes)
        archive.writestr(PACKED, packed.model_dump_json(indent=2) + "\n")
    yield Finished(target, {"identity": identity, "files": sorted((*hashes, PACKED))})


@job
def unpack(file: Path | str, out: Path | str, *, overwrite: bool = False) -> Job:
    """Unpack a model into a folder, which is then used like that of a training.

    Parameters
    ----------
    file
        A file of :func:`pack`.
    out
        The folder to write, such as a new one in ``models`` of a project.
    overwrite
        Whether an earlier run is replaced.

    Raises
    ------
    ModelError
        If the file is not a packed model, or is damaged, or was changed.
    OutputError
        If the folder exists or cannot be written.
    """
    from napari_pbip.engine.runs import run_identity  # torch takes seconds to load

    file, out = Path(file), Path(out)
    try:
        with zipfile.ZipFile(file) as archive:
            packed = _read_packed(file, archive)
            if not (overwrite and (out / MARKER).exists()):  # which is kept until the new one is complete
                prepare_folder(out, MARKER, overwrite=False)
            yield Started(f"Unpacking {packed.name}", total=len(packed.files), unit="files")
            with writing_folder(out) as begun:
                for done, (name, expected) in enumerate(packed.files.items(), 1):
                    for _ in _copy(archive, name, begun / name):
                        yield Step(done - 1)
                    with (begun / name).open("rb") as copied:
                        if hashlib.file_digest(copied, "sha256").hexdigest() != expected:
                            raise _damaged(file)
                    yield Step(done)
                if run_identity(begun) != packed.identity:
                    raise _damaged(file)
    except FileNotFoundError:
        raise ModelError(f"There is no file {file}; check the path.") from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise _damaged(file) from error
    yield Finished(out, {"identity": packed.identity, "licence": packed.licence})


def _read_packed(file: Path, archive: zipfile.ZipFile) -> Packed:
    """Return what a packed model says about itself, after a check that it holds nothing else and is no larger."""
    held = {entry.filename: entry for entry in archive.infolist()}
    if PACKED not in held or len(held) != len(archive.infolist()):
        raise ModelError(f"{file} is no packed model (it holds no {PACKED}); pack one with `pack()`.")
    # without compression nothing is larger than it is in the archive
    plain = all(entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1 for entry in held.values())
    small = all(entry.file_size <= _LARGEST_TEXT for name, entry in held.items() if name not in _WEIGHTS)
    whole = sum(entry.file_size for entry in held.values()) <= file.stat().st_size
    if not (plain and small and whole):
        raise _damaged(file)
    try:
        packed = Packed.model_validate_json(archive.read(PACKED))
    except ValidationError as error:
        raise ModelError(f"{file} is of another format than this version reads; update napari-pbip.") from error
    if {MARKER, *packed.files} - set(_CONTENTS) or MARKER not in packed.files or packed.files.keys() - held.keys():
        raise _damaged(file)
    return packed


def _copy(archive: zipfile.ZipFile, name: str, target: Path) -> Iterator[None]:
    with archive.open(name) as source, target.open("wb") as copy:
        while chunk := source.read(_CHUNK):
            copy.write(chunk)
            yield


def _damaged(file: Path) -> ModelError:
    return ModelError(f"{file} is damaged or was changed, and is not unpacked; ask for it again.")


def _without_paths(run: Path) -> str:
    """Return ``run.json`` without what names folders of this machine or tiles."""
    document = json.loads((run / MARKER).read_text(encoding="utf-8"))
    change_paths(JobSettings, document["settings"], lambda _, path: path if path == "builtin" else None)
    for facts in (document.get("prototypes") or {}, document.get("fit") or {}):
        facts.pop("worst", None)
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
        f"# {_plain(run.name)}\n\nA model of napari-pbip, which makes tissue maps of slides. "
        f"Its command `unpack` makes a folder of it.\n\n| | |\n|---|---|\n{table}\n"
    )


def _plain(text: str) -> str:
    """Return a text as it is shown in a field of a Markdown table."""
    return "".join(f"\\{c}" if c in r"\`*_[]<>|#" else c for c in " ".join(text.split()))
