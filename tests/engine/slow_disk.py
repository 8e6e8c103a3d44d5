"""A network drive that answers late, for whichever process calls this."""

from __future__ import annotations

import time
from typing import Any

from napari_pbip.slides.tiff import TiffReader

_read_bytes = TiffReader._read_bytes


def answer_after(seconds: float) -> None:
    """Let every read of a slide's pixels wait before it begins; 0 is the disk as it is."""

    def late(self: TiffReader, page: Any, wanted: list[int]) -> list[bytes]:
        time.sleep(seconds)
        return _read_bytes(self, page, wanted)

    TiffReader._read_bytes = late
