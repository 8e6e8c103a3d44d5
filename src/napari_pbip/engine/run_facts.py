"""The facts about a training run, which the window reads to list models without loading a network."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from napari_pbip.config import JobSettings, change_paths
from napari_pbip.config.methods import methods
from napari_pbip.errors import ConfigError, ModelError
from napari_pbip.files import write_json
from napari_pbip.taxonomy import Taxonomy

FORMAT = 1
MARKER = "run.json"


@dataclass
class RunFacts:
    """The contents of ``run.json``."""

    settings: JobSettings
    taxonomy: Taxonomy
    prototypes: dict[str, Any] | None = None
    """For a method with prototypes: identity of the bank (None if they are learned) and its settings, encoder, K per
    class, dimension; otherwise None."""
    fit: dict[str, Any] = field(default_factory=dict)
    """For a linear probe: encoder, strength of the penalty, number of tiles, and the result of cross-validation:
    balanced accuracy in percent, confusion of the classes (rows are labels), the numbers of correct and of all tiles of
    each slide, and the tiles with the largest loss. For PBIP in whose scores a probe has a share, the same of that
    probe, without the encoder, which is that of :attr:`prototypes`."""
    tile_size: int = 0
    """Side of the training tiles in pixels, which is also the default side of the squares that slides are read in."""
    device: str = ""
    steps: int = 0
    """Number of planned optimiser steps; for a linear probe, the number of tiles."""
    step: int = 0
    """Number of steps at the last save."""
    learning_rate: float | None = None
    """Peak learning rate of a training in steps; None in runs of earlier versions."""
    seconds: float = 0.0
    """Seconds of training, including those before it was resumed; 0 if they are not known."""
    earlier: list[tuple[int, int]] = field(default_factory=list)
    """Of each earlier length of a training that was made longer the planned steps, and those that were done by then."""
    epoch: int = 0
    """Number of finished epochs, including their validation."""
    best_epoch: int = 0
    best_score: float | None = None
    """Best validation mIoU in percent under ``train.select_by``; None without validation."""
    validations: list[dict[str, Any]] = field(default_factory=list)
    """Validation scores of each validated epoch."""
    versions: dict[str, str] = field(default_factory=dict)
    made: dict[str, Any] | None = None
    """When the training was begun, and by whom (:class:`~napari_pbip.provenance.Made`); None in earlier runs."""

    @property
    def encoder(self) -> dict[str, Any] | None:
        """The facts about the encoder (:class:`~napari_pbip.bank.EncoderFacts`), or None if none was used."""
        return (self.prototypes or self.fit).get("encoder")

    @property
    def finished(self) -> bool:
        """Whether all planned steps are done."""
        return 0 < self.steps == self.step

    def write(self, folder: Path) -> None:
        """Write ``run.json``."""
        facts = {k: v for k, v in asdict(self).items() if k not in ("settings", "taxonomy")}
        document = {
            "format": FORMAT,
            "settings": self.settings.model_dump(mode="json"),
            "classes": self.taxonomy.to_json(),
            **facts,
        }
        write_json(folder / MARKER, document)

    @classmethod
    def read(cls, folder: Path) -> RunFacts:
        """Read ``run.json``; its settings name the encoder that the training used.

        Raises
        ------
        ModelError
            If the folder is not a run, its facts are damaged or of a newer format, or its method is not installed.
        """
        path = folder / MARKER
        if folder.is_file():
            raise ModelError(
                f"{folder} is a file; give the folder that the training wrote, such as {folder.parent}, or unpack a "
                "packed model with `unpack()`."
            )
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ModelError(
                f"{folder} is no trained model (it holds no {MARKER}); give the folder that a training wrote."
            ) from None
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} cannot be read; train the model again or restore the file.") from error
        if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
            raise ModelError(f"{path} is of another format than this version of napari-pbip reads; update napari-pbip.")
        try:
            values = document.pop("settings")
            change_paths(JobSettings, values, lambda _, path: _found(path, folder))
            facts = cls(JobSettings(), Taxonomy.from_json(document.pop("classes")), **document)
            if facts.encoder:  # the settings may have left the encoder to the bank
                values.setdefault("bank", {})["encoder"] = facts.encoder["name"]
            if method := methods().get(values.get("method", {}).get("name")):
                values["method"] = {**method.before_added, **values["method"]}
            facts.settings = JobSettings.parse(values)
            return facts
        except ConfigError as error:
            raise ModelError(
                f"{folder} was trained with settings that are not known here ({str(error).rstrip('.')}); install the "
                "package that its method comes from, or update napari-pbip."
            ) from error
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path} is damaged; train the model again or restore the file.") from error


def _found(path: str, run: Path) -> str:
    """Return a path of the settings; in runs of earlier versions it may be relative to an earlier working folder."""
    places = (place / path for place in (*run.absolute().parents, Path.cwd()))
    return path if Path(path).is_absolute() else str(next((place for place in places if place.exists()), path))


def as_begun(settings: JobSettings, earlier: JobSettings | None) -> JobSettings:
    """Return settings with the defaults of the version that began a run, where these have changed since.

    Parameters
    ----------
    settings
        Settings of which some may not be given.
    earlier
        Settings of the run, or None if there is none.
    """
    if earlier is None or "stain_augmentation" in settings.train.model_fields_set:
        return settings
    strength = earlier.train.stain_augmentation
    return settings.model_copy(update={"train": settings.train.model_copy(update={"stain_augmentation": strength})})


def runs_in(folder: Path) -> dict[str, RunFacts | ModelError]:
    """Return the runs in a folder by name, newest first, each with its facts or its error."""
    found: dict[str, RunFacts | ModelError] = {}
    markers = folder.glob(f"*/{MARKER}")
    for marker in sorted(markers, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            found[marker.parent.name] = RunFacts.read(marker.parent)
        except ModelError as error:
            found[marker.parent.name] = error
    return found
