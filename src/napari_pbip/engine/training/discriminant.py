"""A linear map of descriptors that keeps differences between tissues and suppresses others, fitted without labels.

Each tile is described unchanged, and again after changes that leave its tissue the same, such as of the stain. The
scatter over these changes is nuisance, the scatter over tiles is signal: the map makes the nuisance equally strong in
every direction (within-class covariance normalisation, Hatch et al. 2006) and keeps the directions with the most signal
(Fisher 1936).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

Array = npt.NDArray[np.float64]
_REGULARISE = 0.1


def discriminant(tiles: Array, nuisances: Sequence[Sequence[Array]], dimension: int) -> tuple[Array, Array]:
    """Return the centre and the projection of the map ``(x - centre) @ projection.T``.

    Parameters
    ----------
    tiles
        Descriptors of unchanged tiles, shape (T, F).
    nuisances
        For each kind of change, the differences of descriptors that it causes, each of shape (T', F). All kinds have
        the same weight.
    dimension
        Number D of features of the map, at most F.

    Returns
    -------
    centre, projection
        Shapes (F,) and (D, F).
    """
    centre, scale = tiles.mean(0), tiles.std(0) + 1e-3
    kinds = [np.mean([_scatter(difference / scale) for difference in kind], axis=0) for kind in nuisances]
    nuisance = np.sum([kind / np.trace(kind) for kind in kinds], axis=0)
    nuisance += _REGULARISE * np.trace(nuisance) / len(nuisance) * np.eye(len(nuisance))
    nuisance *= len(nuisance)  # so that features have magnitudes around one
    _, directions = eigh(_scatter((tiles - centre) / scale), nuisance)
    directions = directions[:, ::-1][:, :dimension]
    directions *= np.sign(directions.sum(0))  # the sign of an eigenvector is arbitrary
    return centre, np.ascontiguousarray((directions / scale[:, None]).T)


def _scatter(rows: Array) -> Array:
    """Return the mean outer product, shape (F, F), of rows (T, F)."""
    return rows.T @ rows / len(rows)
