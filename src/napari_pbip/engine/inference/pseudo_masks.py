"""The job that makes pseudo masks of labelled tiles with a trained model, from which a second stage is trained.

```text
OUT/
  pseudo.json              the models and settings that made the masks
  tiles.csv, classes.txt   the data set (layout ``csv``): train tiles with pseudo masks, val and test unchanged
  masks/                   a palette PNG per tile, in the colours of the classes: class index, 255 not assigned
  confidence/              a grey PNG per tile: how far the class is ahead of the next one, 0 to 255
```

The true image-level labels, which training tiles have, decide which classes a tile may show. A tile of a single class
has that class everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from napari_pbip.bank import LEFT_OUT, LabelledTile, TileSet, find_splits, load_tiles
from napari_pbip.bank.labelled_slides import check_class_name
from napari_pbip.bank.layouts.tile_table import write_tiles
from napari_pbip.claims import claims
from napari_pbip.config import DataSettings, RefineSettings
from napari_pbip.engine.device import choose_device
from napari_pbip.engine.inference.evaluate import BATCH
from napari_pbip.engine.inference.predict import Predictor, label_with_margin
from napari_pbip.engine.jobs import job
from napari_pbip.engine.loading import TileReader, ahead, batches_of_one_kind
from napari_pbip.engine.runs import TrainedModel, Which, load_model
from napari_pbip.engine.tile_notes import tile_notes
from napari_pbip.errors import ConfigError, OutputError
from napari_pbip.events import Finished, Job, Loading, Noted, Started, Step, Warned
from napari_pbip.files import prepare_folder, safe_name, write_json, write_picture
from napari_pbip.pictures import read_values, upright_size
from napari_pbip.results.report import write_map

MARKER = "pseudo.json"
MASKS, CONFIDENCE = "masks", "confidence"
_FORMAT = 1
_SCORED = ("val", "test")
"""Splits whose tiles and masks are listed unchanged."""
Labels = npt.NDArray[np.uint8]
Margin = npt.NDArray[np.float32]


@job
@claims("out", "making pseudo masks")
def pseudo_masks(
    run: Path | str,
    data: DataSettings,
    out: Path | str,
    *,
    agree: Path | str | None = None,
    min_confidence: float = 0.0,
    which: Which = "best",
    device: str = "auto",
    refine: RefineSettings | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Job:
    """Make a data set of the training tiles and the masks that a model predicts for them.

    Parameters
    ----------
    run
        Folder of the training.
    data
        The labelled tiles; the masks are made for their split ``train``.
    out
        Folder of the new data set.
    agree
        Folder of another training; pixels for which its model predicts another class are not assigned.
    min_confidence
        Smallest distance of a pixel's class to the next one, 0 to 1; other pixels are not assigned.
    which
        The best or the last model.
    device
        Device of the computation.
    refine
        Test-time augmentation and dense CRF; by default neither.
    resume
        Whether to continue a stopped job; models and settings have to be the same.
    overwrite
        Whether to replace earlier masks.

    Yields
    ------
    Event
        ``Started``; a ``Step`` per batch; ``Finished`` with the number of ``tiles`` and, in percent of all pixels, the
        ``percent`` of each class by name and ``not_assigned``.

    Raises
    ------
    ConfigError
        If ``data`` names no folder, the device does not exist, or the job to be resumed had other models or settings.
    ModelError
        If a run cannot be read, or its classes differ from those of the data.
    DataError
        If tiles are missing or wrong, or the name of a class cannot be the header of a column.
    OutputError
        If the folder contains other files, or cannot be written.
    """
    out, refine = Path(out), refine or RefineSettings()
    if data.folder is None:
        raise ConfigError("Pseudo masks need labelled tiles; name their folder with `data.folder`.")
    chosen = choose_device(device)
    yield Loading(f"the model {Path(run).name}")
    models = [load_model(Path(one), which, chosen) for one in (run, agree) if one is not None]
    tiles = load_tiles(data.folder, "train", data)
    for model in models:
        model.require_classes(tiles.taxonomy.names)
    for name in tiles.taxonomy.names:
        check_class_name(name)
    others = [load_tiles(data.folder, split, data) for split in find_splits(data.folder, data) if split in _SCORED]
    facts = {
        "format": _FORMAT,
        "models": [
            {"run": str(m.run), "which": m.which, "identity": m.identity, "method": m.facts.settings.method.name}
            for m in models
        ],
        "data": str(data.folder),
        "classes": list(tiles.taxonomy.names),
        "min_confidence": min_confidence,
        "refine": refine.model_dump(mode="json"),
    }
    _begin(out, facts, resume=resume, overwrite=overwrite)
    masks = _Masks(out, tiles)
    yield Started("Making pseudo masks", total=len(masks.tiles), unit="tiles", done=masks.done)
    yield from tile_notes(tiles)
    if unlabelled := len(tiles) - len(masks.tiles):
        yield Noted(f"Left out: {unlabelled:,} tiles without a label, because their classes are not known.")
    yield from (Warned(model.note) for model in models if model.note)
    for tile in masks.missing(single=True):
        width, height = upright_size(tile.path)
        masks.write(tile, np.full((height, width), tile.class_index, np.uint8), np.ones((height, width), np.float32))
        yield Step(masks.done)
    for batch in _seen(models, masks.missing(single=False), chosen, refine):
        for tile, labels, margin in batch:
            labels[margin < min_confidence] = LEFT_OUT
            masks.write(tile, labels, margin)
        yield Step(masks.done)
    masks.write_tables(others)
    yield Finished(out, masks.summary())


def _begin(out: Path, facts: dict[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Create the folder, or check that the job in it has the same models and settings."""
    if not resume:
        ways = "`resume=True` to continue it, `overwrite=True` to replace it"
        prepare_folder(out, MARKER, overwrite=overwrite, ways=ways)
        write_json(out / MARKER, facts)
        return
    try:
        before = dict(json.loads((out / MARKER).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise OutputError(f"{out} holds no pseudo masks that could be resumed; leave `resume=True` out.") from None
    if different := [name for name, value in facts.items() if before.get(name) != value]:
        raise ConfigError(
            f"The pseudo masks in {out} were begun with other {different[0]}; resume with the same, or use "
            "`overwrite=True`."
        )


class _Masks:
    """The masks of the labelled tiles of a split, on disk.

    Parameters
    ----------
    out
        Folder of the data set; masks that are there count as done.
    tiles
        Tiles of the split; those without labels are left out.
    """

    def __init__(self, out: Path, tiles: TileSet) -> None:
        self._out, self._taxonomy = out, tiles.taxonomy
        self.tiles = [tile for tile in tiles if tile.labels]
        self._files = dict(zip(self.tiles, _file_names(self.tiles), strict=True))
        self._written: set[LabelledTile] = set()
        self._pixels = np.zeros(LEFT_OUT + 1, np.int64)
        for tile, name in self._files.items():
            if (path := out / MASKS / name).exists():
                labels = read_values(path)
                if {*np.unique(labels).tolist()} <= {*tile.labels, LEFT_OUT}:  # otherwise the label has changed since
                    self._add(tile, labels)

    @property
    def done(self) -> int:
        """Number of tiles that have a mask."""
        return len(self._written)

    def missing(self, *, single: bool) -> list[LabelledTile]:
        """Return the tiles without a mask that have a single class, or those that have several."""
        rest = (tile for tile in self.tiles if tile not in self._written)
        return [tile for tile in rest if (tile.class_index is not None) is single]

    def write(self, tile: LabelledTile, labels: Labels, margin: Margin) -> None:
        """Write the mask and confidence of a tile."""
        name = self._files[tile]
        write_picture(self._out / CONFIDENCE / name, Image.fromarray((margin * 255).round().astype(np.uint8)), "PNG")
        write_map(self._out / MASKS / name, labels, self._taxonomy)  # last, because a tile with a mask counts as done
        self._add(tile, labels)

    def write_tables(self, others: Sequence[TileSet]) -> None:
        """Write the table of the data set: these tiles with their pseudo masks, and those of other splits unchanged."""
        train = [replace(tile, mask=self._out / MASKS / self._files[tile]) for tile in self.tiles]
        write_tiles(self._out, self._taxonomy, {"train": train, **{other.split: other for other in others}})

    def summary(self) -> dict[str, Any]:
        """Return the number of tiles with a mask, and the share of each class in their pixels."""
        percent = 100 * self._pixels / max(1, self._pixels.sum())
        shares = dict(zip(self._taxonomy.names, percent.tolist(), strict=False))
        return {"tiles": self.done, "percent": shares, "not_assigned": float(percent[LEFT_OUT])}

    def _add(self, tile: LabelledTile, labels: npt.NDArray[np.integer[Any]]) -> None:
        self._written.add(tile)
        self._pixels += np.bincount(labels.ravel(), minlength=LEFT_OUT + 1)


def _seen(
    models: Sequence[TrainedModel], tiles: Sequence[LabelledTile], device: torch.device, refine: RefineSettings
) -> Generator[list[tuple[LabelledTile, Labels, Margin]], None, None]:
    """Yield batches of tiles, each with the class of its pixels (255 where models differ) and its confidence."""
    read = TileReader()
    pairs = ahead(lambda tile: (tile, read(tile)), tiles, depth=2 * BATCH)
    predictors = [
        Predictor.of_run(one.method, one.facts, device, tta=refine.tta, expected=len(tiles) * one.facts.tile_size**2)
        for one in models
    ]
    for batch in batches_of_one_kind(pairs, lambda pair: pair[1].shape, BATCH):
        images = [image for _, image in batch]
        found: list[list[tuple[Labels, Margin]]] = []
        for model, predictor in zip(models, predictors, strict=True):
            seen = predictor.maps(images)
            present = torch.zeros(len(batch), len(model.facts.taxonomy), 1, 1, dtype=torch.bool)
            for shown, (tile, _) in zip(present, batch, strict=True):
                shown[list(tile.labels)] = True
            found.append(
                [
                    label_with_margin(image, maps, shown[None], crf=refine.crf)
                    for image, maps, shown in zip(images, seen, present.to(device), strict=True)
                ]
            )
        first, *others = found
        for (labels, _), *again in zip(first, *others, strict=True):
            for other, _ in again:
                labels[labels != other] = LEFT_OUT
        yield [(tile, *pair) for (tile, _), pair in zip(batch, first, strict=True)]


def _file_names(tiles: Sequence[LabelledTile]) -> list[str]:
    """Return the file name of each tile's mask: that of the tile, with a number if several tiles have the same."""
    names: list[str] = []
    taken: set[str] = set()
    for tile in tiles:
        stem = safe_name(tile.path.stem)
        name = next(one for one in chain([stem], (f"{stem} ({n})" for n in count(2))) if one.casefold() not in taken)
        taken.add(name.casefold())
        names.append(f"{name}.png")
    return names
