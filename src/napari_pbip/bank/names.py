"""Names that people give to folders, classes and splits, however they spell them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from napari_pbip.taxonomy import class_name

SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "train_single": ("train_single", "training_single"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Splits of a data set, and how their folders are called."""
LABEL_IN_NAME = re.compile(r".*\[[01]( ?[01])+\]")
"""A file name that tells labels by itself, a digit a class; ``[1]`` alone may be the mark of a second download."""
_OF_A_SPLIT = re.compile(r"(set|data|split|images|imgs|tiles|patches)$")
_IMAGES = frozenset({"img", "imgs", "image", "images"})
_MASKS = frozenset({"mask", "masks"})
_TRUTH = _MASKS | {"label", "labels", "gt", "groundtruth", "annotation", "annotations", "segmentation", "segmentations"}


def split_of(name: str) -> str | None:
    """The split that a folder or a row of a table names: ``Train``, ``TRAINING``, ``test_set``, ``Val`` ..."""
    word = re.sub(r"[\s_.-]+", "", name.strip().casefold())
    for split, names in SPLITS.items():
        known = {known.replace("_", "") for known in names}
        if word in known or _OF_A_SPLIT.sub("", word) in known:
            return split
    return None


def image_and_mask_folders(folders: Iterable[Path]) -> tuple[Path | None, Path | None] | None:
    """The folders with pictures and with their masks; None if there is neither, and so no such pair is meant."""
    by_word = {re.sub(r"[\s_.-]+", "", path.name.casefold()): path for path in folders}
    images = next((path for word, path in by_word.items() if word in _IMAGES), None)
    masks = next((path for word, path in by_word.items() if word in (_TRUTH if images else _MASKS)), None)
    return None if images is None and masks is None else (images, masks)


def classes_of(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """Class folders by the name of their class, in its order; equal names that are stored differently are one class."""
    found: dict[str, list[Path]] = {}
    for path in folders:
        found.setdefault(class_name(path.name), []).append(path)
    return dict(sorted(found.items()))
