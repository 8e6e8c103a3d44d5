"""Classify tiles without training: by a sentence a class, and by the prototypes of an image bank (PBIP Table 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from napari_pbip.bank import ImageBank, TileSet, load_single_tiles, load_tiles
from napari_pbip.bank.cluster import normalise
from napari_pbip.config import DataSettings
from napari_pbip.engine.device import choose_device
from napari_pbip.engine.encoding import Features, bank_encoder, chunks, encode
from napari_pbip.engine.jobs import job
from napari_pbip.engine.loading import ahead
from napari_pbip.engine.recognised import recognised
from napari_pbip.errors import BankError, ConfigError
from napari_pbip.events import Finished, Job, Started, Step, Warned
from napari_pbip.models import encoders
from napari_pbip.models.encoders.base import Encoder
from napari_pbip.results.tile_scores import tile_scores

_BATCH = 32


@job
def zero_shot(
    data: DataSettings,
    *,
    encoder: str | None = None,
    weights: Path | None = None,
    bank: Path | None = None,
    split: str | None = None,
    sentences: Mapping[str, str] | None = None,
    device: str = "cpu",
) -> Job:
    """Give each tile the class whose sentence, or whose nearest prototype, is most like it.

    Parameters
    ----------
    data
        Labelled tiles; those of several classes are counted and not used.
    encoder
        Name of the encoder; by default that of the bank.
    weights
        The encoder's weights, where they are not found by themselves.
    bank
        Folder of an image bank, for image prompts; without it there are only text prompts.
    split
        Split of the data set; by default its training tiles, of which banks are made.
    sentences
        A sentence for each class that shall not have the default one.
    device
        Where the encoder computes.

    Yields
    ------
    Event
        ``Started``, ``Warned`` if tiles made the bank that they are compared with, a ``Step`` a batch, ``Finished``.
        Its summary holds, below ``prompts``, for ``text`` and ``image`` (as far as there are both) what
        :func:`~napari_pbip.results.tile_scores.tile_scores` gives.

    Raises
    ------
    ConfigError
        If neither an encoder nor a bank is named, the encoder has no text tower and there is no bank, ``data`` names
        no folder, or a sentence is for no class.
    WeightsUnavailable
        If weights of the encoder or its tokenizer are missing.
    BankError
        If the bank cannot be read, is of another encoder, or lacks a class of the tiles.
    DataError
        If the tiles cannot be read or show fewer than two classes.
    """
    if data.folder is None:
        raise ConfigError("There is nothing to classify; name the folder of the tiles with data.folder.")
    tiles = load_single_tiles(data.folder, data) if split is None else load_tiles(data.folder, split, data)
    tiles.require_two_classes()
    image_bank = None if bank is None else _bank_for(tiles, bank, encoder)
    names = tiles.taxonomy.names if image_bank is None else image_bank.taxonomy.names
    chosen = _sentences(names, sentences or {})
    network = _encoder(encoder, weights, image_bank).to(choose_device(device))
    prompts: dict[str, tuple[Features, Sequence[str]]] = {}
    if network.spec.text:
        prompts["text"] = (network.text_features(list(chosen.values())).cpu().numpy(), names)
    if image_bank is not None:
        prompts["image"] = (image_bank.prototypes, [names[n] for n in image_bank.subclass_class])
    if not prompts:
        raise ConfigError(
            f"The encoder {network.spec.name!r} has no text tower; name an image bank for image prompts, or choose an "
            "encoder that has one, such as clip, plip or conch."
        )
    single = tiles.single_class
    yield Started(f"Classifying tiles by {' and '.join(prompts)} with {network.spec.name}", len(single), "tiles")
    yield from recognised(tiles)
    known = set() if image_bank is None else {tile.hash for tile in image_bank.tiles}
    truth: list[str] = []
    guesses: dict[str, list[str]] = {prompt: [] for prompt in prompts}
    seen = 0
    for chunk in chunks(ahead(lambda t: (t, t.read(), bool(known) and t.file_hash() in known), single), _BATCH):
        features = normalise(encode(network, [image for _, image, _ in chunk]))
        for prompt, (vectors, classes) in prompts.items():
            nearest = (features @ normalise(vectors).T).argmax(1)
            guesses[prompt] += [classes[i] for i in nearest]
        truth += [tiles.taxonomy.names[tile.class_index] for tile, *_ in chunk if tile.class_index is not None]
        seen += sum(in_bank for *_, in_bank in chunk)
        yield Step(len(truth))
    if seen:
        yield Warned(
            f"{seen} of {len(single)} tiles are in the bank that they are compared with, which makes the image prompt "
            "look better than it is; classify other tiles."
        )
    yield Finished(
        None,
        {
            "encoder": network.spec.name,
            "weights_hash": network.weights_hash,
            "bank": None if bank is None else str(bank),
            "tiles": len(single),
            "several_classes": len(tiles) - len(single),
            "in_bank": seen,
            "classes": list(names),
            "sentences": chosen if "text" in prompts else {},
            "prompts": {prompt: tile_scores(truth, guess, names) for prompt, guess in guesses.items()},
        },
    )


def _bank_for(tiles: TileSet, folder: Path, encoder: str | None) -> ImageBank:
    bank = ImageBank.read(folder)
    own = bank.encoder["name"]
    if encoder not in (None, own):
        raise BankError(
            f"The bank in {folder} was made with the encoder {own!r}; leave {encoder!r} out, or build another."
        )
    for name, count in zip(tiles.taxonomy.names, tiles.counts, strict=True):
        if count and name not in bank.taxonomy.names:
            has = ", ".join(bank.taxonomy.names)
            raise BankError(f"{tiles.folder} has tiles of {name}, but the bank's classes are {has}.")
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
