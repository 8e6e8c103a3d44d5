"""The units of layers: micrometres, or pixels of a slide that does not say how large they are.

napari wants one dimension for all layers of a viewer, or warns and shows a scale bar of nothing. Pixels of unknown size
are a length, only nobody knows which: so they have a unit of their own, which is no micrometre for whoever saves them.
"""

from __future__ import annotations

import pint

MICRONS = ("um", "um")
PIXELS = ("slide_pixel", "slide_pixel")

_registry = pint.get_application_registry()  # type: ignore[no-untyped-call]  # pint's own
if PIXELS[0] not in _registry:
    # as long as napari needs them to be, to draw one slide in the place of another; of several units napari names the
    # smallest at its scale bar, which is the micrometre so
    _registry.define(f"{PIXELS[0]} = 1.000000001 micrometer")
