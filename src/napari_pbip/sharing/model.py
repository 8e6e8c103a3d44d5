"""What a report says about the model of its maps: how it was trained, how well it did, and what it learned from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from napari_pbip.bank import ImageBank, TileSet, load_tiles
from napari_pbip.bank.bank_folder import thumbnail_path
from napari_pbip.bank.layouts.tile_table import TABLE
from napari_pbip.config import DataSettings, PbipSettings, ProbeSettings
from napari_pbip.document import Cell, Facts, Part, Picture, Pictures, Section, Table, Text
from napari_pbip.engine.run_facts import RunFacts
from napari_pbip.errors import BankError, DataError
from napari_pbip.pictures import read_rgb
from napari_pbip.provenance import Made
from napari_pbip.results.store_facts import ModelFacts
from napari_pbip.taxonomy import ClassDisplay

_EXAMPLES = 8
"""Number of tiles of a cluster, or of a class, that are shown."""
_NOT_SCORED = "The model was not scored on tiles with masks: how often its maps are right is not known."
_MEASURES = {"miou": "mIoU", "fwiou": "FwIoU", "biou": "boundary IoU", "dice": "Dice"}
_PROTOCOLS = {
    "oracle": "oracle (with the true image-level labels)",
    "predicted": "predicted (by the model alone, as on a slide)",
}


@dataclass(frozen=True)
class ReportedModel:
    """The model that computed the scores of some slides."""

    recorded: ModelFacts
    """What the results record of it."""
    run: Path | None
    """Folder of the run, if it is there and its weights are those that computed the scores."""
    missing: str
    """Why there is no run, as a sentence."""
    banks: tuple[Path, ...] = ()
    """Where its image bank may be."""
    classes: ClassDisplay = field(default_factory=ClassDisplay)
    """The titles and colours in which its classes are shown."""

    @cached_property
    def facts(self) -> RunFacts | None:
        """The facts of the run.

        Raises
        ------
        ModelError
            If they are damaged.
        """
        return None if self.run is None else RunFacts.read(self.run)

    @cached_property
    def tiles(self) -> TileSet | None:
        """The labelled tiles that it was trained on, if they are recorded and can be read."""
        if self.run is None:
            return None
        try:
            tiles = load_tiles(self.run, settings=DataSettings(folder=self.run / TABLE))
        except DataError:
            return None
        return replace(tiles, taxonomy=self.classes.of(tiles.taxonomy))

    @cached_property
    def bank(self) -> tuple[Path, ImageBank] | None:
        """The image bank whose prototypes it has, if it is still there."""
        identity = self.facts.prototypes.get("bank") if self.facts is not None and self.facts.prototypes else None
        for folder in self.banks if identity else ():
            try:
                bank = ImageBank.read(folder)
            except BankError:
                continue
            if bank.identity == identity:
                return folder, replace(bank, taxonomy=self.classes.of(bank.taxonomy))
        return None

    @property
    def probe_share(self) -> float:
        """Share of a linear probe in the scores of another method."""
        method = None if self.facts is None else self.facts.settings.method
        return method.options()["probe_share"] if isinstance(method, PbipSettings) else 0.0

    def section(self) -> Section:
        """Return the section on this model."""
        parts: list[Part] = []
        if self.facts is None:
            parts.append(Text(f"What is known of the model is what its results record: {self.missing}", "warning"))
        parts += [Facts(dict(self.card())), *self._training_tiles(), *self._validation(), *self._prototypes()]
        return Section(f"The model {self.recorded.run}", parts, new_page=True)

    def card(self) -> Iterator[tuple[str, str]]:
        """Yield the facts of the model card by name."""
        recorded, facts = self.recorded.model_dump(), self.facts
        yield "intended use", "Research. It is no medical device, and not for diagnosis."
        yield "weights", self.recorded.hash
        if facts is None:
            yield from ((name, str(recorded[name])) for name in ("method", "backbone") if recorded.get(name))
            yield "versions", versions(recorded.get("versions") or {})
            return
        settings = facts.settings
        preset = getattr(settings.method, "preset", None)
        yield "method", (settings.method.title or settings.method.name) + (f", preset {preset}" if preset else "")
        if self.probe_share:
            tiles = f", from {facts.fit['tiles']:,} single-class tiles" if facts.fit else ""
            yield "linear probe", f"{self.probe_share:g} of the scores{tiles}"
        if recorded.get("backbone"):
            start = settings.backbone.weights
            if start is None:
                begun = "random values"
            else:  # of a path only the name, because the card leaves the machine
                begun = "ImageNet weights" if start == "builtin" else f"the weights {start.name}"
            yield "backbone", f"{settings.backbone.name}, from {begun}"
        if facts.encoder:
            yield "encoder", f"{facts.encoder['name']} (weights {facts.encoder['weights_hash']})"
        if facts.prototypes:
            yield (
                "prototypes",
                f"{sum(facts.prototypes['k'])}, of the image bank {facts.prototypes.get('bank') or '(learned)'}",
            )
        yield "classes", ", ".join(self.classes.of(facts.taxonomy).names)
        size = f"{facts.tile_size} x {facts.tile_size} pixels"
        mpp = settings.data.mpp
        yield (
            "training tiles",
            f"{size} at {mpp:g} µm per pixel" if mpp else f"{size}; their microns per pixel are not known",
        )
        if isinstance(settings.method, ProbeSettings):
            yield "fit", f"logistic regression on {facts.steps:,} tiles"
        else:
            steps = f"{facts.step:,} of {facts.steps:,} steps" if facts.step < facts.steps else f"{facts.steps:,} steps"
            took = f" in {facts.seconds / 60:.0f} minutes" if facts.seconds else ""
            yield "training", f"{steps} of {settings.train.batch_size} tiles{took} on {facts.device}"
        if facts.made is not None:
            yield "trained", str(Made.model_validate(facts.made))
        yield "seed", str(settings.train.seed)
        yield "versions", versions(facts.versions)

    def _training_tiles(self) -> Iterator[Part]:
        if (tiles := self.tiles) is None:
            return
        rows: list[list[Cell | str]] = [
            [Cell(one.name, "#{:02x}{:02x}{:02x}".format(*one.rgb)), f"{count:,}", f"{single:,}"]
            for one, count, single in zip(tiles.taxonomy, tiles.counts, tiles.alone, strict=True)
        ]
        slides = Counter(tile.origin.slide for tile in tiles if tile.origin is not None)
        origin = ", ".join(f"{name} ({count:,})" for name, count in slides.most_common())
        note = f"Tiles were cut from {origin}. Maps of these slides may be better than those of others."
        parts: list[Part] = [Table(["class", "tiles with it", "with it alone"], rows)]
        yield Section("Training data", [*parts, *([Text(note, "note")] if origin else [])])

    @property
    def _scored(self) -> dict[str, Any] | None:
        """The metrics of the best epoch, if there were masks."""
        facts = self.facts
        found = () if facts is None else (one for one in facts.validations if one["epoch"] == facts.best_epoch)
        return next(iter(found), None)

    @property
    def validation(self) -> str:
        """How well the model did, in a sentence."""
        if (scored := self._scored) is None:
            return _NOT_SCORED
        return ", ".join(
            f"{words}: mIoU {_percent(scored[protocol]['miou'])} %" for protocol, words in _PROTOCOLS.items()
        )

    def _validation(self) -> Iterator[Part]:
        facts = self.facts
        if facts is None:
            return
        parts: list[Part] = []
        if (accuracy := facts.fit.get("balanced_accuracy")) is not None:
            whose = " by the linear probe" if self.probe_share else ""
            parts.append(Text(f"Balanced accuracy of whole tiles in cross-validation{whose}: {accuracy:.1f} %."))
        scored = self._scored
        if scored is None:
            parts.append(Text(_NOT_SCORED, "warning"))
        else:
            names = facts.taxonomy.names
            rows = [
                [words, *(_percent(scored[protocol][measure]) for measure in _MEASURES)]
                + [_percent(scored[protocol]["per_class"][name]["iou"]) for name in names]
                for protocol, words in _PROTOCOLS.items()
            ]
            header = [
                "validation tiles",
                *_MEASURES.values(),
                *(f"IoU {name}" for name in self.classes.of(facts.taxonomy).names),
            ]
            note = (
                f"Percent, on tiles with masks, after epoch {facts.best_epoch} of {facts.epoch}. The best epoch was "
                "chosen on the same tiles, so that these figures are a little too good."
            )
            parts += [Table(header, rows), Text(note, "note")]
        yield Section("Validation", parts)

    def _prototypes(self) -> Iterator[Part]:
        if self.bank is not None:
            yield self._of_bank(*self.bank)
        elif self.tiles is not None:
            yield self._of_tiles(self.tiles)

    def _of_bank(self, folder: Path, bank: ImageBank) -> Section:
        parts: list[Part] = [
            Text(
                "Of each cluster of tiles that look alike, those nearest to its centre. The mean of their features is "
                "the prototype with which every place of a slide is compared.",
                "note",
            )
        ]
        for cluster in bank.clusters():
            first = sum(bank.k[: bank.taxonomy.index(cluster.class_name)])
            paths = [thumbnail_path(folder, tile) for tile in bank.nearest(cluster.subclass)[:_EXAMPLES]]
            warning = f". {cluster.warning}" if cluster.warning else ""
            words = f"{cluster.tiles} tiles, similarity {cluster.similarity:.2f}, purity {cluster.purity:.0%}{warning}"
            title = f"{cluster.class_name}, cluster {1 + cluster.subclass - first}"
            parts.append(Section(title, [Text(words, "note"), _small(paths)]))
        return Section("What it learned from: prototypes", parts)

    def _of_tiles(self, tiles: TileSet) -> Section:
        parts: list[Part] = []
        for n, name in enumerate(tiles.taxonomy.names):
            paths = [tile.path for tile in tiles if tile.class_index == n][:_EXAMPLES]
            parts.append(Section(name, [_small(paths)]))
        return Section("What it learned from: labelled tiles", parts)


def versions(found: dict[str, Any]) -> str:
    """Return versions of packages as a text."""
    return ", ".join(f"{name} {value}" for name, value in found.items()) or "not recorded"


def _small(paths: Sequence[Path]) -> Part:
    pictures = []
    for path in paths:
        try:
            pictures.append(Picture.of(read_rgb(path), ""))
        except DataError:  # it was deleted, or lies elsewhere now
            continue
    return (
        Pictures(pictures, "small") if pictures else Text("The pictures of these tiles are not there any more.", "note")
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
