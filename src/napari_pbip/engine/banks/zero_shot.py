"""The job that classifies tiles without training, by sentences and by prototypes of a bank (PBIP Table 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_pbip.bank import (
    ImageBank,
    LabelledTile,
    TileSet,
    has_labels,
    load_single_tiles,
    load_tiles,
    load_unlabelled,
)
from napari_pbip.bank.cluster import normalise
from napari_pbip.config import DataSettings
from napari_pbip.engine.device import choose_device
from napari_pbip.engine.encoding import Features, TileEncoder, bank_encoder, chunks
from napari_pbip.engine.jobs import job
from napari_pbip.engine.loading import ahead
from napari_pbip.engine.tile_notes import tile_notes
from napari_pbip.errors import BankError, ConfigError, DataError
from napari_pbip.events import Finished, Job, Loading, Started, Step, Warned
from napari_pbip.models import encoders
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.results.tile_scores import tile_scores
from napari_pbip.taxonomy import Taxonomy

_BATCH = 32


@dataclass(frozen=True)
class _Prompts:
    """The prompts that tiles are compared with."""

    vectors: Features
    """Features of the prompts, one row each."""
    classes: Sequence[str]
    """Class of each prompt."""

    def nearest(self, features: Features) -> list[dict[str, Any]]:
        """Return the most similar prompt of each row of features: its class, its number and the cosine similarity."""
        similarity = normalise(features) @ normalise(self.vectors).T
        return [
            {"class": self.classes[i], "prompt": int(i), "similarity": round(float(row[i]), 6)}
            for i, row in zip(similarity.argmax(1), similarity, strict=True)
        ]


@job
def zero_shot(
    data: DataSettings,
    *,
    encoder: str | None = None,
    weights: Path | None = None,
    bank: Path | None = None,
    split: str | None = None,
    text: bool = True,
    sentences: Mapping[str, str] | None = None,
    device: str = "cpu",
) -> Job:
    """Classify each tile by the most similar sentence and by the nearest prototype.

    Parameters
    ----------
    data
        Labelled tiles, of which those of several classes are counted and not used, or pictures without labels.
    encoder
        Name of the encoder; by default that of the bank.
    weights
        Weights of the encoder, if they are not found automatically.
    bank
        Folder of an image bank for image prompts; without it there are only text prompts.
    split
        Split of the data set; by default its training tiles, from which banks are built.
    text
        Whether to use sentences if the encoder has a text tower.
    sentences
        Sentences by class; other classes have a default sentence.
    device
        Device of the encoder.

    Yields
    ------
    Event
        ``Loading``; ``Started``; ``Warned`` if the tiles are part of the bank that they are compared with; a ``Step``
        per batch; ``Finished``. Its summary has ``prompts``, with the metrics of
        :func:`~napari_pbip.results.tile_scores.tile_scores` over the labelled tiles for ``text`` and ``image``; and
        ``predictions``, with each tile's ``path`` and ``label`` (or None), and for ``text`` and ``image`` the ``class``
        of the most similar prompt, the number of that ``prompt`` (the class, or the subclass of the bank) and the
        cosine ``similarity``.

    Raises
    ------
    ConfigError
        If neither an encoder nor a bank is given, the encoder has no text tower and there is no bank, ``data`` has no
        folder, or a sentence is of an unknown class.
    WeightsUnavailable
        If weights of the encoder or its tokenizer are missing.
    BankError
        If the bank cannot be read, has another encoder, or lacks a class of the tiles.
    DataError
        If the tiles cannot be read, or neither labels, a bank nor sentences determine the classes.
    """
    if data.folder is None:
        raise ConfigError("There is nothing to classify; name the folder of the tiles with `data.folder`.")
    image_bank = None if bank is None else _read_bank(bank, encoder)
    tiles = _load(data.folder, data, split, image_bank, sentences or {})
    names = tiles.taxonomy.names if image_bank is None else image_bank.taxonomy.names
    chosen = _sentences(names, sentences or {})
    if (name := encoder if image_bank is None else image_bank.encoder["name"]) is not None:
        yield Loading(f"the encoder {name}")
    network = _encoder(encoder, weights, image_bank).to(choose_device(device))
    prompts: dict[str, _Prompts] = {}
    if text and network.spec.text:
        prompts["text"] = _Prompts(network.text_features(list(chosen.values())).cpu().numpy(), names)
    if image_bank is not None:
        prompts["image"] = _Prompts(image_bank.prototypes, [names[n] for n in image_bank.subclass_class])
    if not prompts:
        raise ConfigError(
            f"The encoder {network.spec.name!r} has no text tower; name an image bank for image prompts, or choose an "
            "encoder that has one, such as clip, plip or conch."
        )
    used = tiles.tiles if tiles.layout == "unlabelled" else tiles.single_class
    yield Started(f"Classifying tiles by {' and '.join(prompts)} with {network.spec.name}", len(used), "tiles")
    yield from tile_notes(tiles)
    known = set() if image_bank is None else {tile.hash for tile in image_bank.tiles}
    predictions: list[dict[str, Any]] = []
    in_bank, encode = 0, TileEncoder(network)

    def read(tile: LabelledTile) -> tuple[LabelledTile, Any]:
        return tile, tile.read()

    for chunk in chunks(ahead(read, used), _BATCH):
        features = encode([image for _, image in chunk])
        nearest = {prompt: against.nearest(features) for prompt, against in prompts.items()}
        for i, (tile, _) in enumerate(chunk):
            label = None if tile.class_index is None else tiles.taxonomy.names[tile.class_index]
            found = {prompt: rows[i] for prompt, rows in nearest.items()}
            predictions.append({"path": str(tile.path), "label": label, **found})
            in_bank += bool(known) and tile.file_hash() in known
        yield Step(len(predictions))
    if in_bank:
        yield Warned(
            f"{in_bank} of {len(used)} tiles are in the bank that they are compared with, which makes the image prompt "
            "look better than it is; classify other tiles."
        )
    labelled = [p for p in predictions if p["label"] is not None]
    truth = [p["label"] for p in labelled]
    yield Finished(
        None,
        {
            "encoder": network.spec.name,
            "weights_hash": network.weights_hash,
            "bank": None if bank is None else str(bank),
            "bank_identity": None if image_bank is None else image_bank.identity,
            "tiles": len(used),
            "labelled": len(labelled),
            "several_classes": len(tiles) - len(used),
            "in_bank": in_bank,
            "classes": list(names),
            "sentences": chosen if "text" in prompts else {},
            "prompts": {p: tile_scores(truth, [row[p]["class"] for row in labelled], names) for p in prompts},
            "predictions": predictions,
        },
    )


def _load(
    folder: Path, data: DataSettings, split: str | None, bank: ImageBank | None, sentences: Mapping[str, str]
) -> TileSet:
    """Load the tiles, with or without labels, which must be classes of the bank if there is one."""
    if split is not None:
        tiles = load_tiles(folder, split, data)
    elif has_labels(folder, data):
        tiles = load_single_tiles(folder, data)
    elif bank is not None:
        return load_unlabelled(folder, bank.taxonomy)
    elif sentences:
        return load_unlabelled(folder, Taxonomy.from_names(tuple(sentences)))
    else:
        raise DataError(f"{folder} holds no labelled tiles; give a sentence for each class, or an image bank.")
    if bank is not None:
        for name, count in zip(tiles.taxonomy.names, tiles.counts, strict=True):
            if count and name not in bank.taxonomy.names:
                has = ", ".join(bank.taxonomy.names)
                raise BankError(f"{folder} has tiles of {name}, but the bank's classes are {has}.")
    return tiles


def _read_bank(folder: Path, encoder: str | None) -> ImageBank:
    bank = ImageBank.read(folder)
    made_with = bank.encoder["name"]
    if encoder not in (None, made_with):
        raise BankError(
            f"The bank in {folder} was made with the encoder {made_with!r}; leave {encoder!r} out, or build another."
        )
    return bank


def _encoder(name: str | None, weights: Path | None, bank: ImageBank | None) -> Encoder:
    if bank is not None:
        return bank_encoder(bank, weights)
    if name is None:
        raise ConfigError(
            "There is nothing to compare tiles with; name an encoder with a text tower, or an image bank."
        )
    return encoders.load(name, weights)


def _sentences(names: Sequence[str], own: Mapping[str, str]) -> dict[str, str]:
    if unknown := sorted(set(own) - set(names)):
        raise ConfigError(f"There is a sentence for {unknown[0]!r}, but the classes are {', '.join(names)}.")
    return {name: own.get(name) or encoders.default_sentence(name) for name in names}
