"""What is being opened, in words."""

from __future__ import annotations

from napari_pbip.gui.connections import listen
from napari_pbip.gui.state.session import Session
from napari_pbip.gui.timers import single_shot
from napari_pbip.gui.widgets.job_bar import Notice

_SLOW_MS = 300
"""Milliseconds after which opening is announced; most slides and results are there by then."""


class OpeningNotice(Notice):
    """The slide or result that is being opened, if it takes a while, and how many follow it."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._slow = single_shot(_SLOW_MS, self._show, self)
        listen(self, (session.opening.changed, self._on_change))
        self._on_change()

    def _on_change(self) -> None:
        if not self._session.opening.paths:
            self._slow.stop()
            self.clear()
        elif self.isHidden():
            self._slow.start()
        else:
            self._show()

    def _show(self) -> None:
        first, *more = self._session.opening.paths
        self.info(f"Opening {first.name}{f' and {len(more)} more' if more else ''}…")
