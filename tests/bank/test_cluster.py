from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans

from napari_pbip.bank import choose_k, cosine_kmeans
from napari_pbip.bank.cluster import normalise


def blobs(k: int, each: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors of random length around k orthogonal directions, and the direction of each."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(k), each)
    directions = np.eye(16)[truth] + spread * rng.normal(size=(k * each, 16))
    return (directions * rng.uniform(0.1, 10, (k * each, 1))).astype(np.float32), truth


def test_finds_directions_whatever_the_length() -> None:
    features, truth = blobs(3, 40, 0.1)
    clusters = cosine_kmeans(features, 3)
    assert clusters.k == 3
    for c in range(3):
        assert len(set(truth[clusters.assignment == c])) == 1
    np.testing.assert_allclose(np.linalg.norm(clusters.centres, axis=1), 1, atol=1e-6)
    own = np.einsum("td,td->t", normalise(features), clusters.centres[clusters.assignment])
    np.testing.assert_allclose(clusters.similarity, own, atol=1e-6)


def test_every_vector_is_with_its_nearest_centre() -> None:
    features = np.random.default_rng(1).normal(size=(200, 8)).astype(np.float32)
    clusters = cosine_kmeans(features, 5)
    assert (clusters.assignment == (normalise(features) @ clusters.centres.T).argmax(1)).all()
    sizes = np.bincount(clusters.assignment)
    assert (np.diff(sizes) <= 0).all()  # larger clusters first


def test_is_not_what_scikit_learn_does_on_normalised_vectors() -> None:
    """Euclidean K-Means does not project its centres onto the sphere, so that it has another fixed point."""
    rng = np.random.default_rng(0)
    tight = np.array([1.0, 0, 0]) + 0.01 * rng.normal(size=(60, 3))
    loose = np.array([0, 1.0, 0]) + 0.6 * rng.normal(size=(60, 3))
    unit = normalise(np.concatenate([tight, loose]).astype(np.float32))
    euclidean = KMeans(2, n_init=10, random_state=0).fit(unit)
    by_cosine = (unit @ normalise(euclidean.cluster_centers_.astype(np.float32)).T).argmax(1)
    assert (by_cosine != euclidean.labels_).any()
    ours = cosine_kmeans(unit, 2)
    summed = [float(np.linalg.norm(unit[euclidean.labels_ == c].sum(0))) for c in range(2)]
    assert ours.similarity.sum() >= sum(summed) - 1e-3


def test_the_seed_decides_and_nothing_else() -> None:
    features = np.random.default_rng(1).normal(size=(100, 8)).astype(np.float32)
    np.random.default_rng(5)
    first, second = cosine_kmeans(features, 4, seed=3), cosine_kmeans(features, 4, seed=3)
    assert (first.assignment == second.assignment).all()


@pytest.mark.parametrize("k", [1, 2, 5])
def test_equal_vectors_fill_all_clusters(k: int) -> None:
    features = np.ones((5, 4), np.float32)
    assert np.bincount(cosine_kmeans(features, k).assignment, minlength=k).min() >= 1


def test_more_clusters_than_vectors() -> None:
    with pytest.raises(ValueError, match="3 clusters of 2"):
        cosine_kmeans(np.ones((2, 4), np.float32), 3)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_silhouette_finds_k(k: int) -> None:
    assert choose_k(blobs(k, 25, 0.1)[0], k_max=6) == k


@pytest.mark.parametrize("tiles", [1, 2])
def test_too_few_for_a_silhouette_are_one_cluster(tiles: int) -> None:
    assert choose_k(np.eye(4, dtype=np.float32)[:tiles], k_max=6) == 1
