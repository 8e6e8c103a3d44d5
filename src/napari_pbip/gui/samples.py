"""Sample data of the *File* menu."""

from __future__ import annotations

from typing import Any

from napari_pbip import samples
from napari_pbip.gui.layers.slides import layer_data
from napari_pbip.slides import open_slide


def slide() -> list[tuple[Any, dict[str, Any], str]]:
    """The bundled slide as a layer: skin, H&E, 1.1 x 1.5 mm (OpenSlide test data, CC0)."""
    return [layer_data(open_slide(samples.slide()))]
