"""Errors and warnings for which no dock has a place."""

from __future__ import annotations

from napari.utils.notifications import show_error, show_warning

from napari_pbip.errors import PbipError
from napari_pbip.wording import Interface


def announce(error: PbipError) -> None:
    """Show an error as a notification of napari."""
    show_error(Interface.WINDOW.sentence(error))


def announce_warning(error: PbipError) -> None:
    """Show an error that does not prevent what the user wanted as a warning of napari."""
    show_warning(Interface.WINDOW.sentence(error))
