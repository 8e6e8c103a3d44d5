"""The job that finds the real tiles nearest to the prototypes of a model, so that learned prototypes can be shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_pbip.bank import BankTile, ImageBank, LabelledTile, load_single_tiles
from napari_pbip.bank.cluster import Floats, normalise
from napari_pbip.bank.features import FeatureFile, TileMeasures, colour_moments, white_fraction
from napari_pbip.bank.image_bank import encoder_key
from napari_pbip.config import BankSettings
from napari_pbip.engine.device import choose_device
from napari_pbip.engine.encoding import Features, TileEncoder, chunks
from napari_pbip.engine.jobs import job
from napari_pbip.engine.loading import ahead
from napari_pbip.engine.runs import RunFacts, available, read_weights, recorded_encoder
from napari_pbip.errors import BankError, DataError, ModelError
from napari_pbip.events import Finished, Job, Loading, Started, Step

FOLDER = "prototypes"
"""Folder in a run with the result of :func:`nearest_tiles`, which has the format of an image bank."""
_NEAREST = 24
_BATCH = 32


@job
def nearest_tiles(run: Path, device: str = "cpu") -> Job:
    """Find the single-class tiles nearest to each prototype, and save them in the folder of the model.

    The result is an image bank with one cluster per prototype, which contains the tiles of any class with the largest
    cosine. A tile may be in several clusters. A result for the same prototypes is not computed again.

    Parameters
    ----------
    run
        Folder of the trained model.
    device
        Device of its encoder.

    Yields
    ------
    Event
        ``Loading``; ``Started``; a ``Step`` per batch; ``Finished`` with the folder of the bank.

    Raises
    ------
    ModelError
        If the model cannot be read or has no prototypes, or its encoder is missing.
    DataError
        If the tiles that it was trained on cannot be read.
    """
    if read_nearest(run) is not None:
        yield Started("Looking up tiles", total=1, unit="models", done=1)
        yield Finished(run / FOLDER)
        return
    facts = RunFacts.read(run)
    vectors = _prototypes(run, facts)
    recorded = (facts.prototypes or {})["encoder"]
    data = facts.settings.data
    if data.folder is None:
        raise DataError("The model does not record which tiles it was trained on; train it again.")
    yield Loading(f"the encoder {recorded['name']}")
    encode = TileEncoder(recorded_encoder(facts).to(choose_device(device)))
    tiles = load_single_tiles(data.folder, data)
    single = tiles.single_class
    yield Started("Comparing tiles with the prototypes", total=len(single), unit="tiles")
    measures = FeatureFile(encoder_key(recorded))
    records: list[BankTile] = []
    features: list[npt.NDArray[np.float32]] = []
    for chunk in chunks(ahead(_decode, single), _BATCH):
        for (record, image), feature in zip(chunk, encode([image for _, image in chunk]), strict=True):
            measures[record.hash] = TileMeasures(feature, colour_moments(image), record.white)
            records.append(record)
            features.append(feature)
        yield Step(len(records))
    names = facts.taxonomy.names
    k = tuple((facts.prototypes or {})["k"])
    shown, rows = _nearest(records, np.stack(features), vectors)
    bank = ImageBank(
        taxonomy=facts.taxonomy,
        encoder=recorded,
        settings=BankSettings(encoder=recorded["name"], k=dict(zip(names, k, strict=True)), nearest=_NEAREST),
        tiles=shown,
        features=np.stack(features)[rows],
        colours=measures.colours([record.hash for record in shown]),
        k=k,
        prototypes=vectors,
        statistics=measures.statistics([record.hash for record in records]),
    )
    bank.write(run / FOLDER, measures)
    yield Finished(run / FOLDER)


def read_nearest(run: Path) -> ImageBank | None:
    """Return the saved result for the present prototypes, or None.

    Raises
    ------
    ModelError
        If the model cannot be read or has no prototypes.
    """
    try:
        bank = ImageBank.read(run / FOLDER)
    except BankError:
        return None
    return bank if np.array_equal(bank.prototypes, _prototypes(run, RunFacts.read(run))) else None


def _prototypes(run: Path, facts: RunFacts) -> Floats:
    """Return the prototypes of the best model (see :func:`load_model`), shape (P, D)."""
    weights = read_weights(run / f"{available(run, facts, 'best')}.safetensors")
    if facts.prototypes is None or "prototypes" not in weights:
        name = facts.settings.method.name.upper()
        raise ModelError(f"The model in {run} was trained by {name}, which has no prototypes to look at.")
    vectors: Floats = weights["prototypes"].float().numpy()
    return vectors


def _decode(tile: LabelledTile) -> tuple[BankTile, npt.NDArray[np.uint8]]:
    image = tile.read()
    assert tile.class_index is not None  # single-class tiles only
    white = round(white_fraction(image), 6)
    return BankTile(str(tile.path.resolve()), tile.class_index, tile.file_hash(), white, tile.origin), image


def _nearest(records: list[BankTile], features: Features, vectors: Floats) -> tuple[tuple[BankTile, ...], list[int]]:
    """Return the nearest tiles of each prototype, and their rows in the features."""
    similarity = normalise(features) @ normalise(vectors).T
    shown, rows = [], []
    for subclass, column in enumerate(similarity.T):
        for row in np.argsort(-column, kind="stable")[:_NEAREST]:
            shown.append(replace(records[row], subclass=subclass, similarity=round(float(column[row]), 6)))
            rows.append(int(row))
    return tuple(shown), rows
