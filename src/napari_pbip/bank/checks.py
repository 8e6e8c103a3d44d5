"""Warnings about a bank as a whole; those about single clusters are in :mod:`napari_pbip.bank.image_bank`."""

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
"""Cosine from which two tiles count as the same picture, of features minus their mean over the bank.

Among 220 different real colorectal and lung tiles, the largest cosine with ``texture`` is 0.94. Copies reach 0.99
(median) when shifted by 8 of 192 pixels, 1.00 when lightened by 5 %, and 0.98 when saved as JPEG of quality 95. The
mean is subtracted because features of a network have a common direction for all tissue: with ``tiny``, different
pictures reach 0.998 before and 0.995 after (with random weights some warnings are false, but none is missed)."""
SAME_COLOURS, ALIKE = 0.5, 0.5
"""Two tiles also count as the same picture if their colours are the same and the cosine is at least the second value.

The first value is the largest difference between the means and deviations of red, green and blue, in grey levels of
255. It is 0 for rotated and mirrored copies, to which most encoders give other features. Among 781 different real tiles
the smallest difference is 0.95; a tile saved again as JPEG of quality 95 has 0.4 (median;
``benchmarks/same_colours.py``)."""
IMBALANCE = 10
"""Ratio of the tiles of two classes from which there is a warning, because training then suffers (Buda, Maki &
Mazurowski 2018, Neural Networks 106:249)."""
_ROWS = 512
"""Rows of the similarity matrix that are held in memory at once."""


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """Two tiles that look the same."""

    first: BankTile
    second: BankTile
    similarity: float
    """Cosine of their features minus the mean, at most 1."""


def near_duplicates(bank: ImageBank) -> tuple[NearDuplicate, ...]:
    """Return each tile that has a near-duplicate before it in the bank, with the most similar of those.

    Equal files with different labels are not included: :func:`bank_warnings` lists them by path.
    """
    unit = normalise(bank.features - bank.features.mean(0))
    most_alike: dict[int, tuple[float, int]] = {}  # for each later tile, the cosine and the earlier tile
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
    """Return mean and deviation of R, G, B of each tile in grey levels of 255, shape (T, 6)."""
    mean, square = np.split(bank.colours.astype(np.float64), 2, axis=1)
    return 255 * np.concatenate([mean, np.sqrt(np.maximum(square - mean**2, 0))], 1)


def bank_warnings(
    bank: ImageBank, duplicates: tuple[NearDuplicate, ...], curation: Curation | None = None
) -> tuple[str, ...]:
    """Return warnings on white tiles, duplicates, classes of very different size, and corrections without effect.

    Parameters
    ----------
    bank
        The bank.
    duplicates
        The result of :func:`near_duplicates` for this bank.
    curation
        The user's corrections.
    """
    names = bank.taxonomy.names
    sentences = []
    if bank.left_out:
        white, total = len(bank.left_out), len(bank.tiles) + len(bank.left_out)
        sentences.append(f"{white} of {total} tiles are mostly white and are left out of the bank.")
    for name, count in (curation or Curation()).unknown(bank.taxonomy).items():
        sentences.append(
            f"{count} tile{'s' * (count > 1)} moved to {name}, which is no longer a class; their labels count until "
            "it is one again."
        )
    if contradiction := _labelled_twice(bank):
        sentences.append(contradiction)
    if duplicates:
        most = duplicates[0]
        several = f"{len(duplicates)} tiles are" if len(duplicates) > 1 else "1 tile is"
        across = sum(pair.first.class_index != pair.second.class_index for pair in duplicates)
        between = f" ({across} of them with different labels)" if across else ""
        sentences.append(
            f"{several} nearly the same as another{between}, such as {_file(most.second)} and {_file(most.first)}; "
            "remove the duplicates, because they count twice."
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
    """Return a warning on equal files with different labels, or None."""
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
