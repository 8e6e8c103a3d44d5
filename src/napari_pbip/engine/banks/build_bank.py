"""The job that builds an image bank from labelled tiles."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_pbip.bank import (
    BankTile,
    Curation,
    EncoderFacts,
    ImageBank,
    LabelledTile,
    TileSet,
    bank_warnings,
    near_duplicates,
)
from napari_pbip.bank.cluster_counts import check_enough_tiles
from napari_pbip.bank.curation import CURATION
from napari_pbip.bank.features import FEATURES, FeatureFile, TileMeasures, colour_moments, white_fraction
from napari_pbip.bank.image_bank import encoder_key
from napari_pbip.bank.layouts.tile_table import write_tiles
from napari_pbip.claims import claims
from napari_pbip.config import BankSettings, DataSettings
from napari_pbip.engine.device import choose_device
from napari_pbip.engine.encoding import Features, TileEncoder, chunks, encoder_facts
from napari_pbip.engine.jobs import job
from napari_pbip.engine.loading import ahead
from napari_pbip.engine.tile_notes import tile_notes
from napari_pbip.errors import BankError
from napari_pbip.events import Finished, Job, Started, Step, Warned
from napari_pbip.files import prepare_folder
from napari_pbip.models import encoders
from napari_pbip.signals import held_back
from napari_pbip.taxonomy import Taxonomy

SAVE_EVERY_SECONDS = 60.0


@job(less_memory="use a smaller `bank.batch_size`")
@claims("out", "building an image bank")
def build_bank(
    tiles: TileSet,
    out: Path | str,
    settings: BankSettings | None = None,
    data: DataSettings | None = None,
    *,
    device: str = "cpu",
    overwrite: bool = False,
    update: bool = False,
    curation: Curation | None = None,
) -> Job:
    """Build or update an image bank from the single-class tiles of a set.

    Features are saved by the hash of the tile's file, so that an update encodes only new files, and clusters only
    classes whose tiles or K have changed. A cancelled build keeps the features that it has computed, and an update
    continues from there.

    Parameters
    ----------
    tiles
        Labelled tiles; those of several classes are counted and not used.
    out
        Folder of the bank.
    settings, data
        Settings of the bank; of ``data``, the share of white above which a tile is left out is used.
    device
        Device of the encoder.
    overwrite
        Whether a bank in ``out`` is replaced.
    update
        Whether a bank in ``out`` is updated.
    curation
        Tiles to be removed and moved, which are written with the finished bank; by default those in ``out``.

    Yields
    ------
    Event
        ``Started``; ``Noted`` with what was recognised; a ``Step`` per batch (``encoded`` is the number of tiles that
        were encoded so far); ``Warned`` with warnings on the bank; ``Finished`` with its numbers.

    Raises
    ------
    OutputError
        If ``out`` exists and is neither replaced nor updated, or cannot be written.
    BankError
        If a class has no tiles or fewer than its clusters, the bank to be updated has another encoder, or the
        curation in ``out`` is damaged.
    DataError
        If the tiles have fewer than two classes, or a tile cannot be read.
    ConfigError, WeightsUnavailable
        If the encoder is unknown, or its weights are missing.
    """
    began = time.monotonic()
    out, settings, data = Path(out), settings or BankSettings(), data or DataSettings()
    tiles.require_two_classes()
    single = tiles.single_class
    curation = Curation.read(out) if curation is None else curation
    if overwrite or not curation:  # checked early, so that nothing is deleted for a bank that cannot be built
        check_enough_tiles(tiles.taxonomy, settings, _classes(single, curation, tiles.taxonomy))
    encoder = encoders.load(settings.encoder, settings.weights).to(choose_device(device))
    facts = encoder_facts(encoder, settings.weights)
    kept = Curation.read(out)
    measures, previous = _begin(out, facts, overwrite=overwrite, update=update)
    yield Started(f"Building the image bank with {settings.encoder}", total=len(single), unit="tiles")
    yield from tile_notes(tiles)
    encode = TileEncoder(encoder)
    bank_tiles: list[BankTile] = []
    left_out: list[BankTile] = []
    removed: list[BankTile] = []
    encoded, saved = 0, time.monotonic()
    try:
        for chunk in chunks(ahead(lambda t: _decode(t, measures), single), settings.batch_size):
            new = {seen.hash: seen for seen in chunk if seen.image is not None and seen.white <= data.white_fraction}
            features = encode([seen.image for seen in new.values() if seen.image is not None])
            for seen, feature in zip(new.values(), features, strict=True):
                measures[seen.hash] = TileMeasures(feature, seen.colour, seen.white)
            encoded += len(new)
            for seen in chunk:
                belongs = curation.class_of(seen.hash, seen.record.class_index, tiles.taxonomy)
                if belongs is None:
                    removed.append(seen.record)
                elif seen.white > data.white_fraction:
                    left_out.append(replace(seen.record, class_index=belongs))
                else:
                    bank_tiles.append(replace(seen.record, class_index=belongs))
            if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                measures.write(out)
                saved = time.monotonic()
            yield Step(len(bank_tiles) + len(left_out) + len(removed), {"encoded": encoded})
        bank = ImageBank.build(
            tiles.taxonomy,
            facts,
            settings,
            bank_tiles,
            measures,
            left_out=left_out,
            removed=removed,
            white_fraction=data.white_fraction,
            previous=previous,
        )
        for sentence in bank_warnings(bank, near_duplicates(bank), curation):
            yield Warned(sentence)
    except BaseException:  # also when cancelled: keep what was computed
        if len(measures):
            with held_back():
                measures.write(out)
        raise
    if curation != kept:
        curation.write(out)
    write_tiles(out, tiles.taxonomy, {"train": single})
    bank.write(out, measures)
    counts = Counter(t.class_index for t in bank.tiles)
    yield Finished(
        out,
        {
            "tiles": len(bank.tiles),
            "prototypes": len(bank.prototypes),
            "classes": {n: {"tiles": counts[i], "k": bank.k[i]} for i, n in enumerate(bank.taxonomy.names)},
            "encoder": facts["name"],
            "identity": bank.identity,
            "encoded": encoded,
            "clustered": list(bank.clustered),
            "left_out": len(left_out),
            "removed": len(removed),
            "several_classes": len(tiles) - len(single),
            "seconds": round(time.monotonic() - began, 2),
        },
    )


def _begin(out: Path, encoder: EncoderFacts, *, overwrite: bool, update: bool) -> tuple[FeatureFile, ImageBank | None]:
    """Create the folder, or read the features and the bank in it that are to be updated."""
    if not update or not FeatureFile.exists(out):
        ways = "`update=True` to bring a bank up to date, `overwrite=True` to replace it"
        # features can be computed again, but corrections of the user cannot
        prepare_folder(out, FEATURES, overwrite=overwrite, ways=ways, keep=(CURATION,))
        return FeatureFile(encoder_key(encoder)), None
    measures = FeatureFile.read(out)
    if measures.encoder != encoder_key(encoder):
        raise BankError(
            f"The bank in {out} was made with another encoder or other weights ({measures.encoder.split()[0]}); "
            "use that one, or `overwrite=True`."
        )
    try:
        return measures, ImageBank.read(out)
    except BankError:  # unfinished or damaged: the features are complete, and the rest is computed again
        return measures, None


def _classes(tiles: Sequence[LabelledTile], curation: Curation, taxonomy: Taxonomy) -> list[int | None]:
    """Return the class of each single-class tile after curation, None if it was removed; reads files only if needed."""
    if not curation:
        return [t.class_index for t in tiles]
    hashed = ahead(lambda t: (t.file_hash(), t.class_index), tiles)
    return [None if label is None else curation.class_of(file_hash, label, taxonomy) for file_hash, label in hashed]


@dataclass(frozen=True, slots=True)
class _Decoded:
    """A tile whose file was hashed, and decoded if its features are unknown."""

    record: BankTile
    colour: Features
    image: npt.NDArray[np.uint8] | None
    """Decoded image, or None if the features are known."""

    @property
    def hash(self) -> str:
        return self.record.hash

    @property
    def white(self) -> float:
        return self.record.white


def _decode(tile: LabelledTile, measures: FeatureFile) -> _Decoded:
    """Hash a file, and decode it if the hash is unknown."""
    file_hash, class_index = tile.file_hash(), tile.class_index
    if class_index is None:
        raise ValueError(f"{tile.path} shows no single class")
    image = None
    if file_hash in measures:
        colour, white = measures[file_hash].colour, measures[file_hash].white
    else:
        image = tile.read()
        colour, white = colour_moments(image), white_fraction(image)
    record = BankTile(str(tile.path.resolve()), class_index, file_hash, round(white, 6), tile.origin)
    return _Decoded(record, colour, image)
