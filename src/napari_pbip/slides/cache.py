"""A cache of decoded blocks of a slide, limited in bytes and shared by threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

import cachetools

from napari_pbip.slides.reader import Image

_STRIPES = 64


class BlockCache:
    """Cache of the most recently used blocks. If threads want the same block, one decodes it and the others wait.

    Parameters
    ----------
    size
        Largest number of bytes to keep; a larger block is returned but not kept.
    """

    def __init__(self, size: int) -> None:
        self._blocks: cachetools.LRUCache[Hashable, Image] = cachetools.LRUCache(size, lambda block: block.nbytes)
        self._lock = threading.Lock()
        self._decoding = tuple(threading.Lock() for _ in range(_STRIPES))

    @property
    def bytes(self) -> int:
        """Number of bytes in the cache."""
        return int(self._blocks.currsize)

    def get(self, key: Hashable, decode: Callable[[], Image]) -> Image:
        """Return the block of a key, decoding it if it is not in the cache. It must not be changed in place."""
        if (block := self._find(key)) is not None:
            return block
        with self._decoding[hash(key) % _STRIPES]:
            if (block := self._find(key)) is None:
                block = decode()
                with self._lock:
                    if block.nbytes <= self._blocks.maxsize:
                        self._blocks[key] = block
            return block

    def clear(self) -> None:
        with self._lock:
            self._blocks.clear()

    def _find(self, key: Hashable) -> Image | None:
        with self._lock:
            return self._blocks.get(key)
