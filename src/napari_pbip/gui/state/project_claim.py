"""The claim of a project folder by one window, because two would overwrite each other's file."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from psygnal import Signal

from napari_pbip.claims import claim
from napari_pbip.errors import FolderInUse, OutputError, ProjectError
from napari_pbip.gui.timers import single_shot

_WAITING_MS = 2000
"""Milliseconds between two checks whether another window still has the project open."""


class ProjectClaim:
    """The claim of one project folder at a time."""

    freed = Signal()
    """Emitted when the folder, which another window had, has been claimed for this one."""

    def __init__(self) -> None:
        self._folder = Path()
        self._held: ExitStack | None = None
        self._waiting = single_shot(_WAITING_MS, self._try_again)

    @property
    def held(self) -> bool:
        """Whether this window has the folder."""
        return self._held is not None

    def take(self, folder: Path) -> ProjectError | None:
        """Claim a folder if this window has none yet.

        If another window has it, return an error that says so, and try again until it is free. A folder that cannot be
        written is not claimed, and no error: saving reports it.
        """
        if self._held is not None:
            return None
        self._folder = folder
        with ExitStack() as claimed:
            try:
                claimed.enter_context(claim(folder, "a project"))
            except FolderInUse as error:
                self._waiting.start()
                return ProjectError(
                    f"This project is open in another window ({error.holder}); slides, settings and thresholds that "
                    "you change here are not remembered until that window is closed, and of tissue and regions that "
                    "both change, the later ones count."
                )
            except OutputError:
                return None
            self._held = claimed.pop_all()
        return None

    def release(self) -> None:
        """Let other windows have the folder, and wait for it no more."""
        self._waiting.stop()
        if self._held is not None:
            self._held.close()
            self._held = None

    def _try_again(self) -> None:
        if self.take(self._folder) is None:
            self.freed.emit()
