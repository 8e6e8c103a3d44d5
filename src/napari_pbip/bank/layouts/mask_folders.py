"""The layout ``masks``: a folder of tiles and a folder of their masks, from which the labels are read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from napari_pbip.bank.layouts.masks import labelled_by_masks, numbering_warning, read_masks
from napari_pbip.bank.left_out import LeftOut
from napari_pbip.bank.tiles import LabelledTile, Origin
from napari_pbip.errors import DataError
from napari_pbip.folders import ListFolder, walk
from napari_pbip.pictures import FORMATS
from napari_pbip.taxonomy import Taxonomy, class_name

_IMAGES = frozenset({"img", "imgs", "image", "images"})
_MASKS = frozenset({"mask", "masks"})
_TRUTH = _MASKS | {"label", "labels", "gt", "groundtruth", "annotation", "annotations", "segmentation", "segmentations"}


def read(
    part: Path, split: str, taxonomy: Taxonomy, left_out: LeftOut, list_folder: ListFolder
) -> tuple[tuple[LabelledTile, ...], list[str]]:
    """Read the tiles in the folder of a split; return them with warnings about what is probably wrong.

    Raises
    ------
    DataError
        If one of the two folders or a mask is missing, two files have the same name, or a mask cannot be used.
    """
    here = list_folder(part)
    left_out.beside(here)
    image_folder, mask_folder = image_and_mask_folders(here.folders) or (None, None)
    if image_folder is None or mask_folder is None:
        raise DataError(f"{part} needs both folders, img with the tiles and mask with their masks.")
    others = [path.name for path in here.folders if path not in (image_folder, mask_folder)]
    if others:
        left_out.others.append(f"Left out: {', '.join(others)} (beside {image_folder.name} and {mask_folder.name}).")
    images = _by_stem(image_folder, left_out.but_pictures(walk([image_folder], list_folder)))
    masks = _by_stem(mask_folder, left_out.but_pictures(walk([mask_folder], list_folder)))
    if not images:
        raise DataError(f"{image_folder} holds no pictures ({FORMATS}); add the tiles.")
    for stem, path in images.items():
        if stem not in masks:
            raise DataError(f"{path} has no mask of the same name in {mask_folder}; add the mask or remove the tile.")
    if extra := [path.name for stem, path in masks.items() if stem not in images]:
        left_out.others.append(f"Left out: {len(extra):,} masks, such as {extra[0]} (without a tile).")
    tiles = [LabelledTile(path, frozenset(), masks[stem], Origin.from_name(path.name)) for stem, path in images.items()]
    present, values = read_masks(tiles, len(taxonomy))
    warning = numbering_warning(values, taxonomy.names, where=f" of the split {split}")
    return labelled_by_masks(tiles, present), [warning] if warning else []


def image_and_mask_folders(folders: Iterable[Path]) -> tuple[Path | None, Path | None] | None:
    """Return the folders of pictures and of masks; None if neither exists, so that the layout is another one."""
    by_word = {re.sub(r"[\s_.-]+", "", path.name.casefold()): path for path in folders}
    images = next((path for word, path in by_word.items() if word in _IMAGES), None)
    masks = next((path for word, path in by_word.items() if word in (_TRUTH if images else _MASKS)), None)
    return None if images is None and masks is None else (images, masks)


def _by_stem(folder: Path, pictures: Sequence[Path]) -> Mapping[str, Path]:
    """Return pictures by their path below a folder, without suffix.

    Raises
    ------
    DataError
        If two pictures have the same name.
    """
    found: dict[str, Path] = {}
    for path in pictures:
        stem = class_name(path.relative_to(folder).with_suffix("").as_posix())
        if stem in found:
            raise DataError(
                f"{found[stem]} and {path.name} have the same name, so it is not clear which mask belongs to "
                "which tile; rename one of them."
            )
        found[stem] = path
    return found
