"""The prototypes and the encoder of a training: prototypes of an image bank, of sentences, or random ones."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from napari_pbip.bank import ImageBank, LabelledTile, TileSet, load_single_tiles
from napari_pbip.bank.bank_folder import FACTS as BANK
from napari_pbip.config import BankSettings, ConstructSettings, JobSettings, LpdSettings
from napari_pbip.engine.banks.build_bank import build_bank
from napari_pbip.engine.encoding import bank_encoder, encoder_facts
from napari_pbip.engine.jobs import phase
from napari_pbip.engine.tile_notes import tile_notes
from napari_pbip.engine.training.requirements import missing_requirements, starts_from_bank
from napari_pbip.errors import BankError, ConfigError
from napari_pbip.events import Event
from napari_pbip.models import encoders
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.models.encoders.prompts import default_sentence
from napari_pbip.models.prototypes import Prototypes
from napari_pbip.models.seeding import seeded
from napari_pbip.models.student import StudentPyramid

_SENTENCE_NOISE = 0.02
"""Standard deviation of the noise that separates the prototypes of a sentence, as in ConStruct's released code."""


@dataclass(frozen=True)
class Start:
    """The prototypes and the encoder with which the training of a method begins."""

    prototypes: Prototypes
    encoder: Encoder
    facts: dict[str, Any]
    """Facts for the run: bank and its settings, encoder, K of each class, dimension."""
    tiles: tuple[LabelledTile, ...] = ()
    """Tiles of the bank, with the classes that they have in it."""


def existing_start(settings: JobSettings, tiles: TileSet) -> Start | None:
    """Return the start of a training, or None if the method has no prototypes or its bank has yet to be built.

    Raises
    ------
    BankError
        If the bank cannot be read, its classes are not those of the tiles, the settings name another encoder, or the
        weights of its encoder have changed.
    ConfigError, WeightsUnavailable
        If the encoder cannot be loaded (:func:`napari_pbip.models.encoders.load`), ConStruct has no pretrained
        backbone, or a sentence is for an unknown class.
    ModelError
        If ConStruct cannot use the encoder, because it is neither a vision transformer nor a pyramid.
    """
    if isinstance(settings.method, ConstructSettings):
        return _of_construct(settings, settings.method, tiles)
    if isinstance(settings.method, LpdSettings):
        return _random(settings.method.k, settings.bank, len(tiles.taxonomy), settings.train.seed)
    if settings.method.learns_from == "bank" and settings.bank_folder is not None:
        return _of_bank(settings.bank_folder, settings, tiles)
    return None


def build_start(settings: JobSettings, tiles: TileSet, folder: Path, *, resume: bool) -> Generator[Event, None, Start]:
    """Build a bank in ``folder`` from the single-class tiles of the data, and return the start from it.

    With ``resume``, a bank that was begun is completed. Raises the errors of :func:`build_bank`.
    """
    assert settings.data.folder is not None
    if not (resume and (folder / BANK).exists()):  # the training may have been stopped while the bank was built
        bank_tiles = load_single_tiles(settings.data.folder, settings.data)
        on = settings.train.device
        known = tuple(tile_notes(tiles))  # these are mostly the same tiles, and the training has given these notes
        building = phase(build_bank(bank_tiles, folder, settings.bank, settings.data, device=on, update=resume))
        with closing(building):
            for event in building:
                if event not in known:
                    yield event
    return _of_bank(folder, settings, tiles)


def _of_construct(settings: JobSettings, method: ConstructSettings, tiles: TileSet) -> Start | None:
    """Return the start of ConStruct, or None if its bank has yet to be built; check settings and encoder first."""
    there = starts_from_bank(settings) and settings.bank_folder is not None
    for error in missing_requirements(settings, None if there else encoders.lookup(settings.bank.encoder)).values():
        raise error
    start = None
    if method.start == "text":
        start = _of_sentences(settings, method, tiles)
    elif settings.bank_folder is not None:
        start = _of_bank(settings.bank_folder, settings, tiles)
    StudentPyramid(start.encoder if start else encoders.load(settings.bank.encoder, settings.bank.weights))
    return start


def _of_bank(folder: Path, settings: JobSettings, tiles: TileSet) -> Start:
    """Return the prototypes of a bank, and the encoder with which it was built."""
    bank = ImageBank.read(folder)
    if bank.taxonomy.names != tiles.taxonomy.names:
        raise BankError(
            f"The bank's classes ({', '.join(bank.taxonomy.names)}) are not those of the tiles "
            f"({', '.join(tiles.taxonomy.names)}); build the bank from the same data."
        )
    name = bank.encoder["name"]
    if "encoder" in settings.bank.model_fields_set and settings.bank.encoder != name:
        raise BankError(
            f"The bank was made with the encoder {name!r}, and the settings ask for {settings.bank.encoder!r}; "
            "build the bank again with that encoder, or choose the bank's own with `bank.encoder`."
        )
    prototypes = Prototypes(torch.from_numpy(bank.prototypes), torch.from_numpy(bank.subclass_class).long())
    facts = {
        "bank": bank.identity,
        "bank_settings": bank.settings.model_dump(mode="json"),
        "encoder": bank.encoder,
        "k": [int(k) for k in bank.k],
        "dimension": int(bank.prototypes.shape[1]),
    }
    own = tuple(LabelledTile(Path(t.path), frozenset({t.class_index}), origin=t.origin) for t in bank.tiles)
    return Start(prototypes, bank_encoder(bank, settings.bank.weights), facts, own)


def _random(k: int, bank: BankSettings, classes: int, seed: int) -> Start:
    """Return random prototypes in the feature space of the encoder that ``bank.encoder`` names."""
    encoder = encoders.load(bank.encoder, bank.weights)
    dimension = encoder.spec.dimension
    assert dimension is not None  # complete in a loaded encoder
    with seeded(seed):
        prototypes = Prototypes.random([k] * classes, dimension)
    return Start(prototypes, encoder, _facts_without_bank(encoder, bank, prototypes))


def _of_sentences(settings: JobSettings, method: ConstructSettings, tiles: TileSet) -> Start:
    """Return prototypes that are the text features of one sentence per class, plus a little noise."""
    names = tiles.taxonomy.names
    if unknown := set(method.sentences) - set(names):
        raise ConfigError(
            f"`method.sentences` describes {', '.join(sorted(unknown))}, and the classes of the tiles are "
            f"{', '.join(names)}; use these names."
        )
    sentences = [method.sentences.get(name, default_sentence(name)) for name in names]
    encoder = encoders.load(settings.bank.encoder, settings.bank.weights)
    features = F.normalize(encoder.text_features(sentences), dim=1)
    with seeded(settings.train.seed):
        noise = Prototypes.random([method.k] * len(names), features.shape[1])
    prototypes = Prototypes(features[noise.subclass_class] + _SENTENCE_NOISE * noise.vectors, noise.subclass_class)
    return Start(prototypes, encoder, _facts_without_bank(encoder, settings.bank, prototypes))


def _facts_without_bank(encoder: Encoder, bank: BankSettings, prototypes: Prototypes) -> dict[str, Any]:
    return {
        "bank": None,
        "encoder": dict(encoder_facts(encoder, bank.weights)),
        "k": torch.bincount(prototypes.subclass_class).tolist(),
        "dimension": prototypes.vectors.shape[1],
    }
