"""A cache of dense features on disk, of limited size and shared by processes.

```text
CACHE/dense/
  <hash of the encoder's weights>/
    <hash of the picture>.safetensors      features as float16, and their checksum
```

A problem with the cache costs time and nothing else: a damaged or unknown file counts as missing, and features that
cannot be written are computed again the next time.
"""

from __future__ import annotations

import os
import threading
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import platformdirs
from safetensors import SafetensorError
from safetensors.numpy import load, save

from napari_pbip.engine.cache_limit import Cached, keep_within
from napari_pbip.errors import OutputError
from napari_pbip.files import writing

Features = npt.NDArray[np.float16]

LIMIT = 4 << 30
"""Bytes on disk at most: about 15,000 tiles of 224 pixels with 176 channels per cell of 8 pixels."""
_LOOK_EVERY = 0.02
"""Share of the limit that is written before the size of the cache is measured again."""


class FeatureCache:
    """Features by the hashes of network and picture; it may be used from several threads and processes.

    Parameters
    ----------
    folder
        Folder of the cache; by default in the user's cache folder.
    limit
        Bytes on disk at most; the least recently used features are deleted first.
    """

    def __init__(self, folder: Path | None = None, limit: int = LIMIT) -> None:
        self.folder = folder or platformdirs.user_cache_path("napari-pbip") / "dense"
        self.limit = limit
        self._unseen = limit  # so that the first write measures the size
        self._lock = threading.Lock()

    def get(self, network: str, picture: str) -> Features | None:
        """Return the features of a picture by a network, both given by their hashes, or None if they are not known."""
        path = self._path(network, picture)
        try:
            arrays = load(path.read_bytes())
            features, checksum = arrays["features"], int(arrays["checksum"][0])
        except (OSError, SafetensorError, KeyError, IndexError, ValueError):
            return None
        if features.dtype != np.float16 or zlib.crc32(features.tobytes()) != checksum:
            return None
        with suppress(OSError):  # records the last use; in a cache that is only readable, another user does
            os.utime(path)
        return features

    def put(self, network: str, picture: str, features: Features) -> None:
        """Save the features of a picture by a network, replacing earlier ones."""
        checksum = np.array([zlib.crc32(features.tobytes())], np.uint32)
        content = save({"features": np.ascontiguousarray(features), "checksum": checksum})
        with suppress(OutputError), writing(self._path(network, picture)) as temporary:
            temporary.write_bytes(content)
        with self._lock:
            self._unseen += len(content)
            if self._unseen > self.limit * _LOOK_EVERY:
                self._unseen = 0
                self._prune()

    def _path(self, network: str, picture: str) -> Path:
        return self.folder / network / f"{picture}.safetensors"

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
