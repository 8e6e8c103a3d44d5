"""Clustering of a tissue class into subclasses: K-Means with cosine distance (PBIP 3.2, Eq. 1), and the choice of K."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_RESTARTS = 20
_ITERATIONS = 300
_SILHOUETTE_SAMPLE = 2000


@dataclass(frozen=True)
class Clusters:
    """A partition of feature vectors into clusters, the largest first."""

    assignment: Ints
    """Cluster of each vector, shape (T,), in 0..K-1."""
    centres: Floats
    """Unit-length mean directions, shape (K, D)."""
    similarity: Floats
    """Cosine of each vector with the centre of its cluster, shape (T,)."""

    @property
    def k(self) -> int:
        return len(self.centres)

    @classmethod
    def from_assignment(cls, features: Floats, assignment: Ints) -> Clusters:
        """Compute the centres and similarities of a partition, and order its clusters by size."""
        sizes = np.bincount(assignment)
        place = np.empty_like(sizes)
        place[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
        ordered = place[assignment]
        unit = normalise(features)
        centres = _centres(unit, ordered, len(sizes))
        return cls(ordered, centres, np.einsum("td,td->t", unit, centres[ordered]))


def normalise(features: Floats) -> Floats:
    """Scale vectors to unit length along the last axis; a zero vector stays zero."""
    length = np.linalg.norm(features, axis=-1, keepdims=True)
    unit: Floats = (features / np.maximum(length, 1e-12)).astype(np.float32)
    return unit


def cosine_kmeans(features: Floats, k: int, seed: int = 0) -> Clusters:
    """Cluster by spherical K-Means (Dhillon & Modha 2001): each vector joins the centre with the largest cosine.

    Scikit-learn's ``KMeans`` on normalised vectors gives other clusters. Its centres are means, whose length r is
    smaller the more a cluster is spread, and a vector joins the centre with the largest 2 r cos - r^2 rather than the
    largest cos. For equally tight clusters the difference is small (it concerned one of 163 features of real lung
    tiles); between a tight and a loose cluster it is large. Here, centres are normalised after every update.

    Parameters
    ----------
    features
        Vectors of any length, shape (T, D).
    k
        Number of clusters, 1 to T.
    seed
        Seed of the k-means++ starts; the best of twenty is kept.

    Raises
    ------
    ValueError
        If there are fewer vectors than clusters.
    """
    if not 1 <= k <= len(features):
        raise ValueError(f"{k} clusters of {len(features)} vectors")
    rng = np.random.default_rng(seed)
    unit = normalise(features)
    runs = (_lloyd(unit, _plus_plus(unit, k, rng)) for _ in range(_RESTARTS if k > 1 else 1))
    assignment, _ = max(runs, key=lambda run: run[1])
    return Clusters.from_assignment(features, assignment)


def choose_k(features: Floats, k_max: int, seed: int = 0) -> int:
    """Return the K in 2..k_max with the largest mean silhouette under cosine distance (Rousseeuw 1987).

    The silhouette is not defined for one cluster: a class of fewer than three tiles has K = 1, and every other class
    at least 2. With more than 2,000 vectors, a random sample of that size is used.

    Parameters
    ----------
    features
        Vectors, shape (T, D).
    k_max
        Largest K to try.
    seed
        Seed of the clustering and of the sample.
    """
    sample = np.random.default_rng(seed).permutation(len(features))[:_SILHOUETTE_SAMPLE]
    from sklearn.metrics import silhouette_score  # takes seconds to import, and the window imports this module

    unit = normalise(features[sample])
    scores: dict[int, float] = {}
    for k in range(2, min(k_max, len(unit) - 1) + 1):
        assignment = cosine_kmeans(unit, k, seed).assignment
        scores[k] = float(silhouette_score(unit, assignment, metric="cosine"))
    return max(scores, key=lambda k: scores[k], default=1)


def _plus_plus(unit: Floats, k: int, rng: np.random.Generator) -> Floats:
    """Return starting centres by greedy k-means++ (Arthur & Vassilvitskii 2007) with distance 1 - cosine."""
    chosen = [int(rng.integers(len(unit)))]
    distance = 1 - unit @ unit[chosen[0]]
    for _ in range(k - 1):
        weight = np.maximum(distance, 0).astype(np.float64)
        weight[chosen] = 0
        if not weight.any():  # all remaining vectors equal a centre
            weight = np.ones(len(unit))
            weight[chosen] = 0
        drawn = rng.choice(len(unit), size=2 + int(np.log(k)), p=weight / weight.sum())
        remaining = np.minimum(distance, 1 - unit[drawn] @ unit.T)
        best = int(remaining.sum(1).argmin())
        chosen.append(int(drawn[best]))
        distance = remaining[best]
    return unit[chosen]


def _lloyd(unit: Floats, centres: Floats) -> tuple[Ints, float]:
    """Assign and update until no vector moves; return the partition and its summed similarity."""
    k = len(centres)
    assignment = np.full(len(unit), -1)
    similarity = unit @ centres.T
    for _ in range(_ITERATIONS):
        nearest = similarity.argmax(1)
        _fill_empty(nearest, similarity, k)
        if np.array_equal(nearest, assignment):
            break
        assignment = nearest
        centres = _centres(unit, assignment, k)
        similarity = unit @ centres.T
    return assignment, float(similarity[np.arange(len(unit)), assignment].sum())


def _fill_empty(assignment: Ints, similarity: Floats, k: int) -> None:
    """Fill each empty cluster with the vector of lowest similarity among clusters of more than one vector."""
    sizes = np.bincount(assignment, minlength=k)
    for empty in np.flatnonzero(sizes == 0):
        own = similarity[np.arange(len(assignment)), assignment].copy()
        own[sizes[assignment] < 2] = np.inf
        moved = int(own.argmin())
        sizes[assignment[moved]] -= 1
        assignment[moved] = empty
        sizes[empty] += 1


def _centres(unit: Floats, assignment: Ints, k: int) -> Floats:
    members = np.equal.outer(np.arange(k), assignment).astype(np.float32)
    return normalise(members @ unit)
