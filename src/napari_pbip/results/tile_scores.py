"""Metrics of a classification of tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, f1_score, recall_score


def tile_scores(truth: Sequence[str], guess: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Return the metrics of a classification, for JSON.

    Parameters
    ----------
    truth, guess
        True and predicted class of each tile.
    names
        All classes; those without a tile have no metrics of their own.

    Returns
    -------
    dict
        In percent: ``accuracy`` over all tiles, ``recall`` and ``f1`` of each class that tiles have, and their means
        ``recall_mean`` and ``f1_mean`` (macro); further ``confusion``, with a row for each of ``names``. Metrics are
        None if there are no tiles.
    """
    present = [name for name in names if name in truth]
    if not present:
        none = dict.fromkeys(("accuracy", "recall_mean", "f1_mean", "confusion"))
        return {**none, "recall": {}, "f1": {}}
    options: dict[str, Any] = {"labels": present, "average": None, "zero_division": 0}
    recall, f1 = 100 * recall_score(truth, guess, **options), 100 * f1_score(truth, guess, **options)
    return {
        "accuracy": 100 * float(np.mean([t == g for t, g in zip(truth, guess, strict=True)])),
        "recall": {name: float(value) for name, value in zip(present, recall, strict=True)},
        "recall_mean": float(recall.mean()),
        "f1": {name: float(value) for name, value in zip(present, f1, strict=True)},
        "f1_mean": float(f1.mean()),
        "confusion": confusion_matrix(truth, guess, labels=list(names)).tolist(),
    }
