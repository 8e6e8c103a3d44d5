"""What a user should look at in a bank as a whole; what concerns one cluster, the bank says itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from napari_pbip.bank.bank_folder import BankTile
from napari_pbip.bank.cluster import normalise
from napari_pbip.bank.curation import Curation
from napari_pbip.bank.image_bank import ImageBank

NEAR_DUPLICATE = 0.98
"""Cosine of features, their mean over the bank taken off, from which two tiles count as the same picture.

Of 220 real colorectal and lung tiles that are different pictures the most alike reach 0.94 with ``texture``; copies
shifted by 8 of 192 pixels 0.99 (median), lightened by 5 % 1.00, saved as JPEG of quality 95 0.98. The mean is taken off
because a network gives all tissue a common direction: between different pictures ``tiny`` reaches 0.998 with it, 0.995
without (random weights tell them apart badly: no warning is lost, but some are too many)."""
SAME_COLOURS, ALIKE = 0.5, 0.5
"""Two tiles are the same picture as well if their colours are the same, and the cosine is no less than this.

The first is the largest difference of the means and deviations of red, green and blue, in grey levels of 255. Turned
and mirrored copies have 0, and other features by most encoders. Of 781 real tiles that are different pictures the most
alike have 0.95; saved again as JPEG of quality 95 a tile has 0.4 (median; ``benchmarks/same_colours.py``)."""
IMBALANCE = 10
"""A class with this many times the tiles of another is told of; from about there on training suffers (Buda, Maki &
Mazurowski 2018, Neural Networks 106:249)."""
_ROWS = 512
"""Rows of the similarity matrix that are in memory at once."""


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """Two tiles that look the same."""

    first: BankTile
    second: BankTile
    similarity: float
    """Cosine of their features without the mean, up to 1."""


def near_duplicates(bank: ImageBank) -> tuple[NearDuplicate, ...]:
    """Tiles that have a near-duplicate before them in the bank, each with the one most like it.

    Equal files with different labels are not among them: :func:`bank_warnings` tells of those by their paths.
    """
    unit = normalise(bank.features - bank.features.mean(0))
    most_alike: dict[int, tuple[float, int]] = {}  # of each second tile: the cosine, and the first
    for top in range(0, len(unit), _ROWS):
        similarity = np.tril(unit[top : top + _ROWS] @ unit.T, top - 1)
        for row in np.flatnonzero((similarity >= NEAR_DUPLICATE).any(1)):
            column = int(similarity[row].argmax())
            most_alike[top + int(row)] = float(similarity[row, column]), column
    for one, other in KDTree(_colours(bank)).query_pairs(SAME_COLOURS, p=np.inf):
        alike = float(unit[one] @ unit[other])
        if alike >= ALIKE:
            most_alike[other] = max(most_alike.get(other, (alike, one)), (alike, one))
    pairs = [NearDuplicate(bank.tiles[i], bank.tiles[j], alike) for j, (alike, i) in sorted(most_alike.items())]
    return tuple(p for p in pairs if p.first.hash != p.second.hash or p.first.class_index == p.second.class_index)


def _colours(bank: ImageBank) -> npt.NDArray[np.float64]:
    """Mean and deviation of R, G, B of each tile in grey levels of 255, shape (T, 6)."""
    mean, square = np.split(bank.colours.astype(np.float64), 2, axis=1)
    return 255 * np.concatenate([mean, np.sqrt(np.maximum(square - mean**2, 0))], 1)


def bank_warnings(
    bank: ImageBank, duplicates: tuple[NearDuplicate, ...], curation: Curation | None = None
) -> tuple[str, ...]:
    """Sentences on white tiles, pictures that are there twice, classes of very different size, and corrections lost.

    Parameters
    ----------
    bank
        The bank.
    duplicates
        What :func:`near_duplicates` found in it.
    curation
        What the user removed and moved.
    """
    names = bank.taxonomy.names
    sentences = []
    if bank.left_out:
        white, total = len(bank.left_out), len(bank.tiles) + len(bank.left_out)
        sentences.append(f"{white} of {total} tiles are mostly white and are left out of the bank.")
    for name, count in (curation or Curation()).unknown(bank.taxonomy).items():
        sentences.append(
            f"{count} tile{'s' * (count > 1)} moved to {name}, which is no class any more, count by their labels until "
            "it is one again."
        )
    if contradiction := _labelled_twice(bank):
        sentences.append(contradiction)
    if duplicates:
        most = duplicates[0]
        several = f"{len(duplicates)} tiles are" if len(duplicates) > 1 else "1 tile is"
        across = sum(pair.first.class_index != pair.second.class_index for pair in duplicates)
        between = f" ({across} of them labelled otherwise)" if across else ""
        sentences.append(
            f"{several} nearly the same as another{between}, such as {_file(most.second)} and {_file(most.first)}; "
            "remove what is there twice, for it counts twice."
        )
    counts = Counter(t.class_index for t in bank.tiles)
    most_n, fewest_n = max(counts, key=lambda n: counts[n]), min(counts, key=lambda n: counts[n])
    if counts[most_n] >= IMBALANCE * counts[fewest_n]:
        sentences.append(
            f"{names[most_n]} has {counts[most_n]:,} tiles and {names[fewest_n]} only {counts[fewest_n]:,}; add tiles "
            f"of {names[fewest_n]}."
        )
    return tuple(sentences)


def _labelled_twice(bank: ImageBank) -> str | None:
    """A sentence on equal files that carry different labels, if there are any."""
    first: dict[str, BankTile] = {}
    names = bank.taxonomy.names
    for tile in bank.tiles:
        other = first.setdefault(tile.hash, tile)
        if other.class_index != tile.class_index:
            return (
                f"The same picture is labelled {names[other.class_index]} ({other.path}) and "
                f"{names[tile.class_index]} ({tile.path}); remove one of them."
            )
    return None


def _file(tile: BankTile) -> str:
    return tile.path.replace("\\", "/").rsplit("/", 1)[-1]
