"""The magnification of the view, beside the scale bar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.components.overlays import TextOverlay

from napari_pbip.gui.compat import camera_of, overlays, show_overlay

if TYPE_CHECKING:
    from napari.viewer import ViewerModel

OVERLAY = "napari_pbip_magnification"
"""Name of the overlay, which is not that for texts of the user."""
_MICRONS_AT_1X = 10
"""Microns per screen pixel at a magnification of 1x, so that 40x is 0.25 µm per pixel, as with most scanners."""


class Magnification:
    """The magnification as of an objective, such as "10x", at the microns that a pixel of the screen spans."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._overlays = overlays(viewer)
        self._camera = camera_of(viewer)
        self._text: TextOverlay | None = None
        self._camera.events.zoom.connect(self._follow)

    def show(self, visible: bool) -> None:
        """Show or hide it."""
        if self._text is None and visible:
            # with its text, because napari places it by the width that it has when it is first drawn
            self._text = self._overlays[OVERLAY] = TextOverlay(position="bottom_right", text=self._times())
        if self._text is not None:
            show_overlay(self._text, visible)
        self._follow()

    def _follow(self) -> None:
        if self._text is not None:
            self._text.text = self._times()

    def _times(self) -> str:
        times = _MICRONS_AT_1X * self._camera.zoom
        return f"{times:.0f}x" if times >= 10 else f"{times:.2g}x"
