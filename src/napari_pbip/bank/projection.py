"""Projection of features to a plane, for display."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_pbip.bank.cluster import normalise

Floats = npt.NDArray[np.float32]
TSNE_UP_TO = 2000
"""Largest number of tiles for t-SNE, which takes too long with more."""
_FEWEST = 8


def project(features: Floats, seed: int = 0) -> Floats:
    """Project feature vectors to a plane by t-SNE (van der Maaten & Hinton 2008), or by PCA of very few or very many.

    Both use unit vectors, so that neighbours are those of the cosine, which the clustering uses too.

    Parameters
    ----------
    features
        Vectors, shape (T, D), T at least 1.
    seed
        Seed of t-SNE.

    Returns
    -------
    Shape (T, 2).
    """
    from sklearn.decomposition import PCA  # takes seconds to import, and the window imports this module
    from sklearn.manifold import TSNE

    unit = normalise(features)
    places = np.zeros((len(unit), 2), np.float32)
    parts = min(2, *unit.shape)
    if len(unit) > 1 and np.ptp(unit, axis=0).any():
        places[:, :parts] = PCA(parts, random_state=seed).fit_transform(unit)
    if not _FEWEST <= len(unit) <= TSNE_UP_TO or not places.any():
        return places
    spread = places[:, 0].std()
    perplexity = min(30.0, (len(unit) - 1) / 3)
    start = places / spread * 1e-4  # initial scale of van der Maaten & Hinton
    tsne = TSNE(2, perplexity=perplexity, init=start, metric="cosine", random_state=seed, n_jobs=1)
    return np.asarray(tsne.fit_transform(unit), np.float32)
