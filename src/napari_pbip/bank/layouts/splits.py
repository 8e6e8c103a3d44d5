"""The splits of a data set and the spellings of their names."""

from __future__ import annotations

import re
from collections.abc import Mapping

SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "train_single": ("train_single", "training_single"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""The splits of a data set, and the names of their folders."""
_OF_A_SPLIT = re.compile(r"(set|data|split|images|imgs|tiles|patches)$")


def split_of(name: str) -> str | None:
    """Return the split of a name such as ``Train``, ``TRAINING``, ``test_set`` or ``Val``, or None."""
    word = re.sub(r"[\s_.-]+", "", name.strip().casefold())
    for split, names in SPLITS.items():
        known = {known.replace("_", "") for known in names}
        if word in known or _OF_A_SPLIT.sub("", word) in known:
            return split
    return None
