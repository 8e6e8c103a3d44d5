"""What napari calls when a file is opened or dropped: slides, score stores, label images and banks; nothing else.

napari reads many TIFF files by itself, and microscopes write them for other ends: a file is ours only if it opens as a
slide, that is RGB, and tiled, pyramidal or of a slide scanner's own format; pictures and plain TIFFs stay napari's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_pbip.results.label_image import is_label_image
from napari_pbip.slides import is_slide, open_slide

LayerData = tuple[Any, dict[str, Any], str]
_BETWEEN_SHEETS = 12
"""Pixels."""
Reader = Callable[[str | Sequence[str]], list[LayerData]]


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """The function that reads these paths, or None if they are not all slides, or all stores of ours of one kind."""
    paths = [Path(one) for one in ([path] if isinstance(path, str) else path)]
    if not paths:
        return None
    for ours, read in ((is_store, read_stores), (is_label_image, read_labels), (is_bank, read_banks)):
        if all(ours(one) for one in paths):
            return read
    return read_slides if all(is_slide(one) for one in paths) else None


def read_slides(path: str | Sequence[str]) -> list[LayerData]:
    """Layers of slides: multiscale, RGB, in micrometres where they say how large they are."""
    from napari_pbip.gui.layers.slides import layer_data

    _begin_session()
    return [layer_data(open_slide(one)) for one in ([path] if isinstance(path, str) else path)]


def is_store(path: Path) -> bool:
    """Whether this is a score store of ours; a look at one small file."""
    return path.is_dir() and (path / "pbip" / "zarr.json").exists()


def read_stores(path: str | Sequence[str]) -> list[LayerData]:
    """Label layers of score stores, computed from the scores as thresholds ask."""
    from napari_pbip.gui.layers.results import layer_data

    _begin_session()
    return [layer_data(Path(one)) for one in ([path] if isinstance(path, str) else path)]


def read_labels(path: str | Sequence[str]) -> list[LayerData]:
    """Label layers of label images of ours."""
    from napari_pbip.gui.layers.label_images import layer_data

    return [layer_data(Path(one)) for one in ([path] if isinstance(path, str) else path)]


def is_bank(path: Path) -> bool:
    """Whether this is an image bank; a look at the folder."""
    from napari_pbip.bank.image_bank import FACTS

    return (path / FACTS).is_file()


def read_banks(path: str | Sequence[str]) -> list[LayerData]:
    """The contact sheet of each class of image banks, one below the other."""
    from napari_pbip.bank import ImageBank
    from napari_pbip.bank.sheet import contact_sheets

    layers: list[LayerData] = []
    for one in [path] if isinstance(path, str) else path:
        folder, top = Path(one), 0
        for name, sheet in contact_sheets(ImageBank.read(folder), folder):
            layers.append((np.asarray(sheet), {"name": f"{folder.name}: {name}", "translate": (top, 0)}, "image"))
            top += sheet.height + _BETWEEN_SHEETS
    return layers


def _begin_session() -> None:
    """Have somebody redraw what is decoded beside the window: the session of the viewer that the layers come into."""
    import napari

    from napari_pbip.gui.session import session_of

    viewer = napari.current_viewer()
    if viewer is not None:
        session_of(viewer)
