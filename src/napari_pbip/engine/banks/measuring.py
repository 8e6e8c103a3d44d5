"""Features, colours and whiteness of the tiles of a bank, measured in this process or by the workers of a cluster."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cachetools
import numpy as np
import numpy.typing as npt

from napari_pbip.bank import LabelledTile
from napari_pbip.bank.features import FeatureFile, colour_moments, white_fraction
from napari_pbip.bank.image_bank import encoder_key
from napari_pbip.engine.cluster.workers import Cluster, require_seen
from napari_pbip.engine.device import choose_device
from napari_pbip.engine.encoding import Features, TileEncoder, chunks, encoder_facts
from napari_pbip.engine.loading import ahead
from napari_pbip.errors import ClusterError
from napari_pbip.models import encoders


@dataclass(frozen=True, slots=True)
class Seen:
    """A tile whose file was hashed, and measured if its hash was not known."""

    tile: LabelledTile
    hash: str
    white: float = 0.0
    """Share of near-white pixels."""
    colour: Features | None = None
    """Mean of R, G, B and of their squares, shape (6,); None if the hash was known, and nothing was measured."""
    feature: Features | None = None
    """Shape (D,); None if nothing was measured, or the tile is too white to be used."""


@dataclass(frozen=True, slots=True)
class Measuring:
    """How tiles are measured."""

    encoder: str
    weights: Path | None
    key: str
    """Name and hash of the encoder's weights."""
    device: str
    limit: float
    """Share of white above which a tile is not encoded."""
    size: int
    """Tiles that are encoded at once."""


def in_this_process(
    how: Measuring, tiles: Sequence[LabelledTile], encode: TileEncoder, known: FeatureFile
) -> Generator[list[Seen] | None, None, None]:
    """Yield the tiles in order, in chunks; files are read ahead by threads."""
    with closing(ahead(lambda tile: _decoded(tile, known), tiles)) as decoded:
        for chunk in chunks(decoded, how.size):
            yield _encoded(chunk, encode, how.limit)


def by_workers(
    cluster: Cluster, how: Measuring, tiles: Sequence[LabelledTile], known: FeatureFile
) -> Generator[list[Seen] | None, None, None]:
    """Yield the tiles in order, in the same chunks, as workers measure them; None if there was nothing for a while.

    Raises
    ------
    ClusterError
        As :meth:`Cluster.results` does, or if a worker does not see the tiles or the same weights.
    """

    def items() -> Iterator[tuple[list[LabelledTile], frozenset[str]]]:
        for chunk in chunks(iter(tiles), how.size):
            hashes = ahead(LabelledTile.file_hash, chunk) if len(known) else ()
            yield chunk, frozenset(found for found in hashes if found in known)

    waiting: dict[int, list[Seen]] = {}
    following = 0
    with closing(cluster.results(partial(_on_worker, how), items())) as results:
        for found in results:
            if found is None:
                yield None
                continue
            waiting[found[0]] = found[1]
            while following in waiting:
                yield waiting.pop(following)
                following += 1


def _on_worker(how: Measuring, item: tuple[list[LabelledTile], frozenset[str]]) -> list[Seen]:
    tiles, known = item
    if not hasattr(_loaded, "encoders"):  # one for each thread, which must not share it
        _loaded.encoders = cachetools.LRUCache(1)
    if how not in _loaded.encoders:
        encoder = encoders.load(how.encoder, how.weights).to(choose_device(how.device))
        if encoder_key(encoder_facts(encoder, how.weights)) != how.key:
            raise ClusterError(
                f"A worker has other weights of the encoder {how.encoder!r}; give all machines the same files."
            )
        _loaded.encoders[how] = TileEncoder(encoder)
    require_seen(*(tile.path for tile in tiles))
    return _encoded(list(ahead(lambda tile: _decoded(tile, known), tiles)), _loaded.encoders[how], how.limit)


_loaded = threading.local()


def _decoded(tile: LabelledTile, known: FeatureFile | frozenset[str]) -> tuple[Seen, npt.NDArray[np.uint8] | None]:
    """Hash a file, and decode it if the hash is unknown."""
    file_hash = tile.file_hash()
    if file_hash in known:
        return Seen(tile, file_hash), None
    image = tile.read()
    return Seen(tile, file_hash, round(white_fraction(image), 6), colour_moments(image)), image


def _encoded(
    decoded: Sequence[tuple[Seen, npt.NDArray[np.uint8] | None]], encode: TileEncoder, limit: float
) -> list[Seen]:
    """Encode the tiles that were decoded and are not too white; each file once."""
    new = {seen.hash: image for seen, image in decoded if image is not None and seen.white <= limit}
    features = dict(zip(new, encode(list(new.values())), strict=True))
    return [replace(seen, feature=features.get(seen.hash) if seen.colour is not None else None) for seen, _ in decoded]
