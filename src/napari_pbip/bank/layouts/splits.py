"""The splits of a data set, however people spell them."""

from __future__ import annotations

import re
from collections.abc import Mapping

SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "train_single": ("train_single", "training_single"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Splits of a data set, and how their folders are called."""
_OF_A_SPLIT = re.compile(r"(set|data|split|images|imgs|tiles|patches)$")


def split_of(name: str) -> str | None:
    """The split that a folder or a row of a table names: ``Train``, ``TRAINING``, ``test_set``, ``Val`` ..."""
    word = re.sub(r"[\s_.-]+", "", name.strip().casefold())
    for split, names in SPLITS.items():
        known = {known.replace("_", "") for known in names}
        if word in known or _OF_A_SPLIT.sub("", word) in known:
            return split
    return None
