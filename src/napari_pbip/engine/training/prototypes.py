"""What a training starts from besides the tiles: prototypes of an image bank, of sentences, or random ones to learn."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from napari_pbip.bank import ImageBank, TileSet, load_single_tiles
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
from napari_pbip.models.student import StudentPyramid

_SENTENCE_NOISE = 0.02
"""Standard deviation of what tells the prototypes of one sentence apart, as ConStruct's released code has it."""


@dataclass(frozen=True)
class Start:
    """What a method with prototypes starts from."""

    prototypes: Prototypes
    encoder: Encoder
    facts: dict[str, Any]
    """What a run remembers of it: bank, encoder, K of each class, dimension."""


def existing_start(settings: JobSettings, tiles: TileSet) -> Start | None:
    """What the settings name and is there already; None for a method without prototypes, or a bank still to be built.

    Raises
    ------
    BankError
        If the bank cannot be read, its classes are not those of the tiles, the settings ask for another encoder, or
        that encoder's weights have changed since.
    ConfigError, WeightsUnavailable
        As :func:`napari_pbip.models.encoders.load`; or ConStruct has no pretrained backbone to learn from, or a
        sentence of a class that there is not.
    ModelError
        If ConStruct cannot look into the encoder.
    """
    if isinstance(settings.method, ConstructSettings):
        return _of_construct(settings, settings.method, tiles)
    if isinstance(settings.method, LpdSettings):
        return _random(settings.method.k, settings.bank, len(tiles.taxonomy), settings.train.seed)
    if settings.method.learns_from == "bank" and settings.bank_folder is not None:
        return _of_bank(settings.bank_folder, settings, tiles)
    return None


def build_start(settings: JobSettings, tiles: TileSet, folder: Path, *, resume: bool) -> Generator[Event, None, Start]:
    """Build a bank in ``folder`` from the single-class tiles of the data, and start from that.

    ``resume`` goes on with one that was begun. Raises as :func:`build_bank`.
    """
    assert settings.data.folder is not None
    if not (resume and (folder / BANK).exists()):  # it may have been stopped while the bank was built
        bank_tiles = load_single_tiles(settings.data.folder, settings.data)
        on = settings.train.device
        told = tuple(tile_notes(tiles))  # mostly these are the same tiles, of which the training has told
        building = phase(build_bank(bank_tiles, folder, settings.bank, settings.data, device=on, update=resume))
        with closing(building):
            for event in building:
                if event not in told:
                    yield event
    return _of_bank(folder, settings, tiles)


def _of_construct(settings: JobSettings, method: ConstructSettings, tiles: TileSet) -> Start | None:
    """The start of ConStruct; what it cannot train with is found before a bank is built."""
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
    """The prototypes of a bank, and the encoder that it was made with."""
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
        "encoder": bank.encoder,
        "k": [int(k) for k in bank.k],
        "dimension": int(bank.prototypes.shape[1]),
    }
    return Start(prototypes, bank_encoder(bank, settings.bank.weights), facts)


def _random(k: int, bank: BankSettings, classes: int, seed: int) -> Start:
    """Random prototypes in the space of the encoder that ``bank.encoder`` names."""
    encoder = encoders.load(bank.encoder, bank.weights)
    dimension = encoder.spec.dimension
    assert dimension is not None  # complete in a loaded encoder
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        prototypes = Prototypes.random([k] * classes, dimension)
    return Start(prototypes, encoder, _facts_without_bank(encoder, bank, prototypes))


def _of_sentences(settings: JobSettings, method: ConstructSettings, tiles: TileSet) -> Start:
    """Prototypes around the text features of a sentence a class, told apart by a little noise."""
    names = tiles.taxonomy.names
    if unknown := set(method.sentences) - set(names):
        raise ConfigError(
            f"`method.sentences` describes {', '.join(sorted(unknown))}, and the classes of the tiles are "
            f"{', '.join(names)}; use these names."
        )
    sentences = [method.sentences.get(name, default_sentence(name)) for name in names]
    encoder = encoders.load(settings.bank.encoder, settings.bank.weights)
    features = F.normalize(encoder.text_features(sentences), dim=1)
    with torch.random.fork_rng():
        torch.manual_seed(settings.train.seed)
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
