"""The job that builds an image bank from labelled tiles."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

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
from napari_pbip.bank.features import FEATURES, FeatureFile, TileMeasures
from napari_pbip.bank.image_bank import encoder_key
from napari_pbip.bank.layouts.tile_table import write_tiles
from napari_pbip.claims import claims
from napari_pbip.config import BankSettings, DataSettings
from napari_pbip.engine.banks.measuring import Measuring, Seen, by_workers, in_this_process
from napari_pbip.engine.cluster.connect import Scheduler, connected
from napari_pbip.engine.device import choose_device
from napari_pbip.engine.encoding import TileEncoder, encoder_facts
from napari_pbip.engine.jobs import job
from napari_pbip.engine.loading import ahead
from napari_pbip.engine.tile_notes import tile_notes
from napari_pbip.errors import BankError
from napari_pbip.events import Finished, Job, Loading, Started, Step, Warned
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
    scheduler: Scheduler = None,
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
    scheduler
        Where tiles are encoded (:attr:`JobSettings.scheduler`, or an open client of dask.distributed). The bank is the
        same.

    Yields
    ------
    Event
        ``Loading``; ``Started``; ``Noted`` with what was recognised; a ``Step`` per batch (``encoded`` is the number of
        tiles that were encoded so far); ``Warned`` with warnings on the bank; ``Finished`` with its numbers.

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
    ClusterError
        If the scheduler or its workers cannot be reached or used, or are lost.
    """
    began = time.monotonic()
    out, settings, data = Path(out), settings or BankSettings(), data or DataSettings()
    tiles.require_two_classes()
    single = tiles.single_class
    curation = Curation.read(out) if curation is None else curation
    if overwrite or not curation:  # checked early, so that nothing is deleted for a bank that cannot be built
        check_enough_tiles(tiles.taxonomy, settings, _classes(single, curation, tiles.taxonomy))
    yield Loading(f"the encoder {settings.encoder}")
    encoder = encoders.load(settings.encoder, settings.weights).to(choose_device(device))
    facts = encoder_facts(encoder, settings.weights)
    kept = Curation.read(out)
    bank_tiles: list[BankTile] = []
    left_out: list[BankTile] = []
    removed: list[BankTile] = []
    encoded, saved = 0, time.monotonic()
    with connected(scheduler) as cluster:
        measures, previous = _begin(out, facts, overwrite=overwrite, update=update)
        yield Started(f"Building the image bank with {settings.encoder}", total=len(single), unit="tiles")
        yield from tile_notes(tiles)
        limit = data.white_fraction
        how = Measuring(settings.encoder, settings.weights, encoder_key(facts), device, limit, settings.batch_size)
        measured = (
            in_this_process(how, single, TileEncoder(encoder), measures)
            if cluster is None
            else by_workers(cluster, how, single, measures)
        )
        try:
            with closing(measured):
                for chunk in measured:
                    for seen in chunk or ():
                        if seen.feature is not None and seen.colour is not None and seen.hash not in measures:
                            measures[seen.hash] = TileMeasures(seen.feature, seen.colour, seen.white)
                            encoded += 1
                        record = _record(seen, measures)
                        belongs = curation.class_of(seen.hash, record.class_index, tiles.taxonomy)
                        if belongs is None:
                            removed.append(record)
                        elif record.white > limit:
                            left_out.append(replace(record, class_index=belongs))
                        else:
                            bank_tiles.append(replace(record, class_index=belongs))
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
                white_fraction=limit,
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


def _record(seen: Seen, measures: FeatureFile) -> BankTile:
    """Return the record of a tile; one that was not measured now is known."""
    label = seen.tile.class_index
    if label is None:
        raise ValueError(f"{seen.tile.path} shows no single class")
    white = measures[seen.hash].white if seen.colour is None else seen.white
    return BankTile(str(seen.tile.path.resolve()), label, seen.hash, round(white, 6), seen.tile.origin)
