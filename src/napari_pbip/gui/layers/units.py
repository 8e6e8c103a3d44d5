"""The units of layers: micrometres, or pixels of a slide whose microns per pixel are unknown.

napari needs one dimension for the units of all layers in a viewer; else it warns and shows an empty scale bar. Pixels
of unknown size therefore have a unit of length of their own, which is not saved as micrometres.
"""

from __future__ import annotations

import pint

MICRONS = ("um", "um")
PIXELS = ("slide_pixel", "slide_pixel")

_registry = pint.get_application_registry()  # type: ignore[no-untyped-call]  # pint's own
if PIXELS[0] not in _registry:
    # the length makes napari draw slides with and without microns per pixel at the same place; of several units the
    # scale bar shows the smallest, which is then the micrometre
    _registry.define(f"{PIXELS[0]} = 1.000000001 micrometer")
