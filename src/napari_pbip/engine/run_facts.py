"""What a training run says about itself, without loading a network: the window lists models by it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from napari_pbip.config import JobSettings, change_paths
from napari_pbip.errors import ConfigError, ModelError
from napari_pbip.files import write_json
from napari_pbip.taxonomy import Taxonomy

FORMAT = 1
MARKER = "run.json"


@dataclass
class RunFacts:
    """What ``run.json`` holds."""

    settings: JobSettings
    taxonomy: Taxonomy
    prototypes: dict[str, Any] | None = None
    """Of a method with prototypes: identity of the bank (None: they are learned), encoder, K per class, dimension."""
    fit: dict[str, Any] = field(default_factory=dict)
    """Of a method that is fitted: encoder, strength of the penalty, how many tiles, and what cross-validation says:
    balanced accuracy in percent, confusion of the classes (rows: as labelled), and the tiles with the largest loss."""
    tile_size: int = 0
    """Side of the training tiles, pixels; slides are read in squares of this size by default.
    A probe's are 224 at least."""
    device: str = ""
    steps: int = 0
    """Optimiser steps planned; tiles, of a method that is fitted."""
    step: int = 0
    """Steps done at the last save."""
    seconds: float = 0.0
    """Time spent training, over all sittings."""
    epoch: int = 0
    """Epochs ended, validation included."""
    best_epoch: int = 0
    best_score: float | None = None
    """Validation mIoU in percent under ``train.select_by``; None when nothing validates."""
    validations: list[dict[str, Any]] = field(default_factory=list)
    """Scores of each validated epoch."""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def encoder(self) -> dict[str, Any] | None:
        """What is remembered of the encoder (:class:`~napari_pbip.bank.EncoderFacts`), if one took part."""
        return (self.prototypes or self.fit).get("encoder")

    @property
    def finished(self) -> bool:
        """Whether all planned steps were done."""
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
            If the folder is no run, its facts are damaged or of a newer format, or its method is not installed.
        """
        path = folder / MARKER
        if folder.is_file():
            raise ModelError(f"{folder} is a file; give the folder that the training wrote, such as {folder.parent}.")
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ModelError(
                f"{folder} is no trained model (it holds no {MARKER}); give the --out of a training."
            ) from None
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} cannot be read; train the model again or restore the file.") from error
        if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
            raise ModelError(f"{path} is of another format than this version of napari-pbip reads; update napari-pbip.")
        try:
            values = document.pop("settings")
            change_paths(JobSettings, values, lambda _, path: _found(path, folder))
            facts = cls(JobSettings(), Taxonomy.from_json(document.pop("classes")), **document)
            if facts.encoder:  # the bank decides, where the settings do not name one
                values.setdefault("bank", {})["encoder"] = facts.encoder["name"]
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
    """A path of the settings; runs of earlier versions may have one that counts from the folder they were begun in."""
    places = (place / path for place in (*run.absolute().parents, Path.cwd()))
    return path if Path(path).is_absolute() else str(next((place for place in places if place.exists()), path))


def runs_in(folder: Path) -> dict[str, RunFacts | ModelError]:
    """The runs in a folder by name, newest first, each with its facts or what is wrong with it."""
    found: dict[str, RunFacts | ModelError] = {}
    markers = folder.glob(f"*/{MARKER}")
    for marker in sorted(markers, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            found[marker.parent.name] = RunFacts.read(marker.parent)
        except ModelError as error:
            found[marker.parent.name] = error
    return found
