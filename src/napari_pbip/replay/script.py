"""The commands that make the image bank, the models and the maps of a project, found from the records in its folder.

```text
PROJECT/
  steps.sh                        the commands, which are run in the project folder
  steps/<bank, model or result>/  for each the settings, the labelled tiles, and the tissue mask that was used
```
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from napari_pbip.bank import ImageBank, LabelledTile, find_splits, load_tiles
from napari_pbip.bank.bank_folder import FACTS as BANK_FACTS
from napari_pbip.bank.bank_folder import read_facts
from napari_pbip.bank.layouts.tile_table import TABLE, write_tiles
from napari_pbip.config import (
    BankSettings,
    DataSettings,
    JobSettings,
    RefineSettings,
    SegmentSettings,
    ThresholdSettings,
    change_paths,
)
from napari_pbip.engine.run_facts import MARKER, RunFacts, runs_in
from napari_pbip.errors import BankError, ModelError, OutputError, PbipError
from napari_pbip.files import writing
from napari_pbip.project import BANK, MODELS, RESULTS, TILES, Project
from napari_pbip.results import ScoreStore, open_labels
from napari_pbip.results.places import OVERLAY, TISSUE, find_stores
from napari_pbip.results.planning import stored_tissue
from napari_pbip.results.store_facts import ModelFacts
from napari_pbip.slides import SlideFacts, open_slide
from napari_pbip.wording import Interface

SCRIPT, RECORDS = "steps.sh", "steps"
"""Names of the script, and of the folder of what its commands read, in a project folder."""
_SETTINGS = "settings.yaml"
_HEAD = """\
#!/bin/sh
# The commands by which napari-pbip made the image bank, the models and the maps of this project. They read the files in
# steps/. In a copy that has only what was made by hand, this runs them:
#   napari-pbip replay PROJECT --out COPY"""


def replay_command(project: Path) -> str:
    """Return the command line that makes a project again in a copy, to be run beside the project."""
    return f'napari-pbip replay "{project.name}" --out COPY'


@dataclass(frozen=True, slots=True)
class Command:
    """A command that makes something in a project folder, in which it is run."""

    arguments: tuple[str, ...]
    """Arguments of ``napari-pbip``."""
    out: Path
    """The folder that it writes, relative to the project folder."""
    steps: int = 0
    """Number of optimiser steps after which a training is done."""

    def left(self, project: Path) -> tuple[str, ...] | None:
        """Return the arguments that begin it or complete it in a project folder, or None if it is done.

        Raises
        ------
        ModelError
            If a training was begun whose facts are damaged.
        """
        out = project / self.out
        if self.arguments[0] != "train":
            last = BANK_FACTS if self.arguments[0] == "bank" else OVERLAY
            return None if (out / last).exists() else self.arguments
        if not (out / MARKER).exists():
            return self.arguments
        if RunFacts.read(out).step >= self.steps:
            return None
        return self.arguments if "--resume" in self.arguments else (*self.arguments, "--resume")

    def __str__(self) -> str:
        return shlex.join(("napari-pbip", *self.arguments))


@dataclass(frozen=True, slots=True)
class Script:
    """The commands that make a project again."""

    commands: tuple[Command, ...]
    """In the order in which they are to be run."""
    notes: tuple[str, ...]
    """What they make otherwise than it is in the project, or do not make, and why, as sentences."""
    missing: tuple[Path, ...]
    """Slides with a map that are not where they were."""

    @property
    def text(self) -> str:
        """The commands as a shell script, which people read."""
        notes = [f"# Note: {' '.join(Interface.COMMAND_LINE.sentence(note).split())}" for note in self.notes]
        return "\n".join((_HEAD, *notes, "set -e", 'cd "$(dirname "$0")"', *map(str, self.commands), ""))

    def write(self, project: Path) -> None:
        """Write the script into a project folder.

        Raises
        ------
        OutputError
            If the folder cannot be written.
        """
        with writing(project / SCRIPT) as temporary:
            temporary.write_text(self.text, encoding="utf-8", newline="\n")


def find_commands(project: Path, target: Path) -> Script:
    """Find the commands of a project, and write the files that they read.

    Parameters
    ----------
    project
        The project folder.
    target
        The project folder in which the commands are to be run, and to which the files are written.

    Raises
    ------
    ProjectError
        If the project file is damaged.
    """
    return _Finder(project.absolute(), target.absolute()).find()


class _Finder:
    """Finds the commands of a project, and writes what they read."""

    def __init__(self, project: Path, target: Path) -> None:
        self.project, self.target = project, target
        self.document = Project.open(project)
        self.commands: list[Command] = []
        self.notes: list[str] = []
        self.missing: list[Path] = []
        self._weights = cache(_weights)  # for this moment: a model may be trained again

    def find(self) -> Script:
        if (self.project / BANK / BANK_FACTS).exists():
            with self._noting("The image bank"):
                self._find_bank()
        for name, facts in reversed(runs_in(self.project / MODELS).items()):  # a model may start from an earlier one
            with self._noting(f"The model “{name}”"):
                self._find_model(name, facts)
        for store in find_stores(self.project / RESULTS):
            name = store.parent.relative_to(self.project / RESULTS).as_posix()
            with self._noting(f"The map “{name}”"):
                self._find_map(name, ScoreStore.open(store))
        return Script(tuple(self.commands), tuple(self.notes), tuple(self.missing))

    @contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        try:
            yield
        except PbipError as error:
            self.notes.append(f"{what} cannot be made again: {error}")

    def _find_bank(self) -> None:
        out, bank = Path(BANK), ImageBank.read(self.project / BANK)
        tiles = self._write_tiles(out, self.document.settings.data)
        data = DataSettings(folder=tiles, white_fraction=bank.white_fraction)
        file = self._write_settings(out, JobSettings(data=data, bank=bank.settings))
        self._add("bank", "build", tiles, "--out", self.target / out, "--job", file, "--update")

    def _find_model(self, name: str, facts: RunFacts | ModelError) -> None:
        if isinstance(facts, ModelError):
            raise facts
        out, settings = Path(MODELS, name), facts.settings
        bank = self._bank_of(name, facts)
        apart = () if bank["bank_folder"] is None else ("train_single",)
        labelled = {"folder": self._write_tiles(out, settings.data, *apart), "layout": "auto", "classes": None}
        if "bank" in bank:
            labelled["white_fraction"] = 1.0  # white tiles are not among those of the bank
        data = settings.data.model_copy(update=labelled)
        file = self._write_settings(out, settings.model_copy(update={"data": data, **bank}))
        lengths = [*facts.earlier, (facts.steps, facts.step)]
        for planned, done in lengths:
            if done < planned:
                self.notes.append(
                    f"The training of “{name}” was stopped after {done} of {planned} steps, and is run to its end, so "
                    "the model differs."
                )
        command = ("train", file, "--out", self.target / out)
        for planned, _ in facts.earlier:
            self._add(*command, "--set", f"train.steps={planned}", steps=planned)
        self._add(*command, *(("--resume",) if facts.earlier else ()), steps=facts.steps)

    def _find_map(self, name: str, store: ScoreStore) -> None:
        out, facts = Path(RESULTS, name), store.facts
        done, planned = store.progress
        if done < planned:
            self.notes.append(f"The map “{name}” has {done} of {planned} tiles, and all of them are computed.")
        known = (slide.path for slide in self.document.slides if slide.identity == facts.slide.identity)
        slide = next(known, facts.slide.path)
        if not slide.exists():
            self.missing.append(slide)
        of_scores: dict[str, Any] = {**facts.settings, "mpp": _mpp_to_give(slide, facts.slide)}
        tta = of_scores.pop("tta", False)
        if of_scores.get("tissue_mask") is not None:
            # the mask may have been corrected since; the store has the one that was used
            of_scores["tissue_mask"] = self.target / RECORDS / out / TISSUE
            stored_tissue(store).write(of_scores["tissue_mask"])
        try:
            labels = open_labels(store)[1]
            thresholds, crf = labels.thresholds, labels.refined
        except OutputError:  # there are none before the first stop
            thresholds, crf = ThresholdSettings(), False
        settings = JobSettings(
            segment=SegmentSettings.parse(of_scores), thresholds=thresholds, refine=RefineSettings(tta=tta, crf=crf)
        )
        model, file = self._model_of(name, facts.model), self._write_settings(out, settings)
        self._add("segment", slide, "--model", model, "--out", self.target / out, "--job", file, "--resume")

    # what a command reads ------------------------------------------------------------------------------------

    def _write_tiles(self, out: Path, data: DataSettings, *apart: str) -> Path:
        """Write the tiles from which something was made, but for these splits; return the path of their table."""
        record = self.project / out / TABLE
        if record.exists():
            data = DataSettings(folder=record)
        else:
            self.notes.append(
                f"{out.as_posix()} does not record its tiles, as an earlier version made it; those that are labelled "
                "now are used."
            )
        source = data.folder if data.folder is not None and data.folder.exists() else self.project / TILES
        others = {"train_single", "val"}.intersection(find_splits(source, data)).difference(apart)
        sets = {split: load_tiles(source, split, data) for split in ("train", *sorted(others))}
        folder = self.target / RECORDS / out
        write_tiles(
            folder, sets["train"].taxonomy, {split: map(self._moved_tile, tiles) for split, tiles in sets.items()}
        )
        return folder / TABLE

    def _bank_of(self, name: str, facts: RunFacts) -> dict[str, Any]:
        """Return the settings by which a training begins with the image bank that it had."""
        chosen, own = facts.settings.bank_folder, self.project / BANK
        recorded = facts.prototypes or {}
        if chosen is None or recorded.get("bank") is None:
            return {"bank_folder": None}
        for bank in (chosen, own):  # the second one if the project was moved
            if _identity(bank) == recorded["bank"]:
                return {"bank_folder": self._moved(bank)}
        if "bank_settings" in recorded:  # it has changed since, and the training builds it from the recorded tiles
            return {"bank_folder": None, "bank": BankSettings.parse(recorded["bank_settings"])}
        self.notes.append(f"The image bank was changed after the training of “{name}”, so the model differs.")
        return {"bank_folder": self._moved(own if _identity(own) else chosen)}

    def _model_of(self, name: str, model: ModelFacts) -> Path:
        """Return the model that computed the scores of a map."""
        own = Path(MODELS, model.run)
        run = next((run for run in (self.project / own, Path(model.folder)) if (run / MARKER).exists()), None)
        if run is None:
            raise ModelError(f"its model “{model.run}” does not exist any more.")
        if run == self.project / own and all(command.out != own for command in self.commands):
            raise ModelError(f"its model “{model.run}” cannot be made again.")
        if self._weights(run) != model.hash:
            self.notes.append(f"The model “{model.run}” was trained again after the map “{name}”, so the map differs.")
        return self._moved(run)

    def _moved(self, path: Path) -> Path:
        """Return the path in the target folder of something in the project that is there too when it is read."""
        path = Path(os.path.normpath(path.absolute()))
        there = any(path.is_relative_to(self.project / name) for name in (TILES, BANK, MODELS))
        return self.target / path.relative_to(self.project) if there else path

    def _moved_tile(self, tile: LabelledTile) -> LabelledTile:
        return replace(tile, path=self._moved(tile.path), mask=None if tile.mask is None else self._moved(tile.mask))

    # what is written -----------------------------------------------------------------------------------------

    def _write_settings(self, out: Path, settings: JobSettings) -> Path:
        file = self.target / RECORDS / out / _SETTINGS
        values = settings.model_dump(mode="json", exclude_unset=True)  # a map has nothing to do with a training
        change_paths(JobSettings, values, lambda _, path: self._relative(self._moved(Path(path)), file.parent))
        JobSettings.parse(values).write_given(file)
        return file

    def _add(self, *arguments: str | Path, steps: int = 0) -> None:
        words = [one if isinstance(one, str) else self._relative(one, self.target) for one in arguments]
        self.commands.append(Command(tuple(words), Path(words[words.index("--out") + 1]), steps))

    def _relative(self, path: Path, folder: Path) -> str:
        """Return a path relative to a folder if it lies in the target folder, else the absolute path."""
        return Path(os.path.relpath(path, folder)).as_posix() if path.is_relative_to(self.target) else str(path)


def _mpp_to_give(slide: Path, facts: SlideFacts) -> float | None:
    """Return the microns per pixel that a command has to give, or None if the slide itself still says the same."""
    if facts.mpp_from == "slide" and slide.exists():
        with open_slide(slide) as opened:
            if not opened.mpp_is_given and opened.mpp == facts.mpp:
                return None
    return facts.mpp


def _identity(bank: Path) -> str | None:
    try:
        return str(read_facts(bank)["identity"])
    except (BankError, KeyError, TypeError):
        return None


def _weights(run: Path) -> str:
    """Return the hash of the weights of a model."""
    from napari_pbip.engine.runs import run_identity  # torch takes seconds to load

    return run_identity(run)
