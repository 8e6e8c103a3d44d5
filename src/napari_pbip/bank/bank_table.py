"""An image bank as a table, for spreadsheets and statistics: a row for each tile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from napari_pbip.bank.bank_folder import BankTile
from napari_pbip.bank.image_bank import ImageBank
from napari_pbip.files import write_table

_COLUMNS = (
    "class", "cluster", "state", "prototype", "similarity", "white", "tile", "sha256", "slide", "x", "y",
    "bank", "encoder", "encoder_weights",
)  # fmt: skip
_USED, _LEFT_OUT, _REMOVED = "used", "left out", "removed"


def write_bank_table(path: Path, bank: ImageBank) -> None:
    """Write the tiles of a bank as :func:`~napari_pbip.files.write_table` does: CSV, or Parquet by the file's name.

    ``cluster`` counts the clusters of a class from 1; ``state`` is ``used``, ``left out`` (mostly white) or ``removed``
    (by the user); ``prototype`` is whether the feature of the tile is among those whose mean is the prototype of its
    cluster; ``similarity`` is the cosine with the centre of the cluster, -1 to 1; ``white`` is a share, 0 to 1; and
    ``x`` and ``y`` are the position on the slide in level-0 pixels. What is not known is empty.

    Raises
    ------
    OutputError
        If the file cannot be written, or pyarrow, which Parquet needs, is not installed.
    """
    identity, encoder = bank.identity, bank.encoder
    rows = ((*row, identity, encoder["name"], encoder["weights_hash"]) for row in _rows(bank))
    write_table(path, _COLUMNS, list(rows))


def _rows(bank: ImageBank) -> Iterator[tuple[object, ...]]:
    for cluster in bank.clusters():
        number = 1 + cluster.subclass - sum(bank.k[: bank.taxonomy.index(cluster.class_name)])
        for place, tile in enumerate(bank.nearest(cluster.subclass)):
            yield cluster.class_name, number, _USED, place < bank.settings.nearest, tile.similarity, *_of(tile)
    for state, tiles in ((_LEFT_OUT, bank.left_out), (_REMOVED, bank.removed)):
        for tile in tiles:
            yield bank.taxonomy.names[tile.class_index], None, state, False, None, *_of(tile)


def _of(tile: BankTile) -> tuple[object, ...]:
    origin = tile.origin
    place = (None, None, None) if origin is None else (origin.slide, origin.x, origin.y)
    return tile.white, tile.path, tile.hash, *place
