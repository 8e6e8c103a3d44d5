"""Caches of arrays on disk, of limited size and shared by processes.

```text
CACHE/<kind>/
  <hash of what a group of arrays depends on, such as the weights of a network>/
    <hash of what else one depends on, such as a picture>.safetensors      an array, and its checksum
```

A problem with a cache costs time and nothing else: a damaged or unknown file counts as missing, and an array that
cannot be written is computed again the next time.
"""

from __future__ import annotations

import os
import threading
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import platformdirs
from safetensors import SafetensorError
from safetensors.numpy import load, save

from napari_pbip.engine.cache_limit import Cached, keep_within
from napari_pbip.errors import OutputError
from napari_pbip.files import writing

Array = npt.NDArray[Any]

_LOOK_EVERY = 0.02
"""Share of the limit that is written before the size of the cache is measured again."""


class ArrayCache:
    """Arrays of one type by two hashes, of a group and of a name; may be used from several threads and processes.

    Parameters
    ----------
    folder
        Folder of the cache.
    dtype
        Type of the arrays; others in the folder count as missing.
    limit
        Bytes on disk at most; the least recently used arrays are deleted first.
    """

    def __init__(self, folder: Path, dtype: npt.DTypeLike, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._dtype = np.dtype(dtype)
        self._unseen = limit  # so that the first write measures the size
        self._lock = threading.Lock()

    @classmethod
    def of_user(cls, kind: str, dtype: npt.DTypeLike, limit: int) -> Self:
        """Return the cache of a kind of arrays in the user's cache folder."""
        return cls(platformdirs.user_cache_path("napari-pbip") / kind, dtype, limit)

    def get(self, group: str, name: str) -> Array | None:
        """Return an array, or None if there is none of that group and name."""
        path = self._path(group, name)
        try:
            content = load(path.read_bytes())
            array, checksum = content["array"], int(content["checksum"][0])
        except (OSError, SafetensorError, KeyError, IndexError, ValueError):
            return None
        if array.dtype != self._dtype or zlib.crc32(array.data) != checksum:
            return None
        with suppress(OSError):  # records the last use; in a cache that is only readable, another user does
            os.utime(path)
        return array

    def put(self, group: str, name: str, array: Array) -> None:
        """Save an array, replacing an earlier one."""
        array = np.ascontiguousarray(array)
        content = save({"array": array, "checksum": np.array([zlib.crc32(array.data)], np.uint32)})
        with suppress(OutputError), writing(self._path(group, name)) as temporary:
            temporary.write_bytes(content)
        with self._lock:
            self._unseen += len(content)
            if self._unseen > self.limit * _LOOK_EVERY:
                self._unseen = 0
                self._prune()

    def _path(self, group: str, name: str) -> Path:
        return self.folder / group / f"{name}.safetensors"

    def _prune(self) -> None:
        """Delete the least recently used files if the cache exceeds its limit."""
        found = []
        for path in self.folder.glob("*/*"):
            with suppress(OSError):  # another process may have deleted it
                facts = path.stat()
                found.append(Cached(path, facts.st_size, facts.st_mtime))
        keep_within(self.limit, found, _delete)


def _delete(path: Path) -> bool:
    with suppress(OSError):
        path.unlink()
    return True
