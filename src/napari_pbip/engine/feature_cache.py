"""Features on disk, so that what a frozen network has seen is not computed twice: bounded, and shared by processes.

```text
CACHE/dense/
  <hash of the encoder's weights>/
    <hash of the picture>.safetensors      features as float16, and their checksum
```

Whatever happens to a file costs time and nothing else: one that is damaged, or of another kind, counts as missing, and
a full disk as a cache that is never hit.
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

from napari_pbip.errors import OutputError
from napari_pbip.files import writing

Features = npt.NDArray[np.float16]

LIMIT = 4 << 30
"""Bytes on disk at most: about 15,000 tiles of 224 pixels with 176 channels a cell of 8 pixels."""
_PRUNE_TO = 0.9
_LOOK_EVERY = 0.02
"""Share of the limit that is written between two looks at how much there is."""


class FeatureCache:
    """Features by the hash of what they are of; safe to use from several threads and processes.

    Parameters
    ----------
    folder
        Where they lie; by default in the user's cache folder.
    limit
        Bytes that are kept; those that were used least recently go first.
    """

    def __init__(self, folder: Path | None = None, limit: int = LIMIT) -> None:
        self.folder = folder or platformdirs.user_cache_path("napari-pbip") / "dense"
        self.limit = limit
        self._unseen = limit  # so that the first write looks
        self._lock = threading.Lock()

    def get(self, network: str, picture: str) -> Features | None:
        """What a network (by its hash) made of a picture (by its own), or None where that is not known."""
        path = self._path(network, picture)
        try:
            arrays = load(path.read_bytes())
            features, checksum = arrays["features"], int(arrays["checksum"][0])
        except (OSError, SafetensorError, KeyError, IndexError, ValueError):
            return None
        if features.dtype != np.float16 or zlib.crc32(features.tobytes()) != checksum:
            return None
        with suppress(OSError):  # the time of the last use; what is only readable is kept by somebody else
            os.utime(path)
        return features

    def put(self, network: str, picture: str, features: Features) -> None:
        """Keep features, in place of what was kept of the same."""
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
        """Delete what was used least recently, if there is too much."""
        found = []
        for path in self.folder.glob("*/*"):
            with suppress(OSError):  # another process was quicker
                facts = path.stat()
                found.append((facts.st_mtime, facts.st_size, path))
        held = sum(size for _, size, _ in found)
        if held <= self.limit:
            return
        for _, size, path in sorted(found):
            if held <= self.limit * _PRUNE_TO:
                break
            with suppress(OSError):
                path.unlink()
            held -= size
