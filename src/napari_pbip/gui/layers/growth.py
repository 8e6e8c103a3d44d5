"""Updates of a displayed score store that grows: committed blocks are read again in the store's thread."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future

from psygnal import Signal

from napari_pbip.events import RegionDone
from napari_pbip.gui.timers import single_shot
from napari_pbip.results.lattice import BLOCK
from napari_pbip.results.view import ViewedStore

_POLL_MS = 40
_COMMIT_MS = 600
"""Milliseconds after which written blocks should be committed; the store commits after half a second."""
_CATCH_UPS = 16
"""Attempts to see a commit after the last event of a growing store."""


class StoreGrowth:
    """Updates of the displayed scores of a store.

    Parameters
    ----------
    store
        A growing or finished store.
    """

    caught_up = Signal(bool)
    """Emitted when committed blocks have been read, with whether there were any."""

    def __init__(self, store: ViewedStore) -> None:
        self._store = store
        self._reading: Future[bool] | None = None
        self._attempts = 0
        self._closed = False
        self._timer = single_shot(_POLL_MS, self._poll)

    def update(self, regions: Iterable[RegionDone]) -> None:
        """Record that these regions were written, and read those that are committed."""
        for region in regions:
            bottom, right = region.y + region.height, region.x + region.width
            rows, columns = range(region.y // BLOCK, -(-bottom // BLOCK)), range(region.x // BLOCK, -(-right // BLOCK))
            self._store.grown((row, column) for row in rows for column in columns)
        self._attempts = 0
        if self._reading is None and not self._closed:  # events may arrive after the layer was removed
            self._read()

    def close(self) -> None:
        """Stop following the store."""
        self._closed = True
        self._timer.stop()

    def _read(self) -> None:
        self._reading = self._store.catch_up()
        self._timer.start(_POLL_MS)

    def _poll(self) -> None:
        """Take what was read; while a commit is missing, read again a moment later."""
        if self._reading is None:
            self._read()
        elif not self._reading.done():
            self._timer.start(_POLL_MS)
        else:
            new, self._reading = self._reading.result(), None
            self.caught_up.emit(new)
            if self._store.growing and self._attempts < _CATCH_UPS:
                self._attempts += 1
                self._timer.start(_COMMIT_MS)
