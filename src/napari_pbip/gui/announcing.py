"""Errors for which no dock has a place."""

from __future__ import annotations

from napari.utils.notifications import show_error

from napari_pbip.errors import PbipError
from napari_pbip.wording import Interface


def announce(error: PbipError) -> None:
    """Show an error as a notification of napari."""
    show_error(Interface.WINDOW.sentence(error))
