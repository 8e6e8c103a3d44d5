"""The cells that explain a place of a probe's map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from napari_pbip.engine.inference.nearest_cells import Exemplars
from napari_pbip.models import encoders
from napari_pbip.models.methods.probe import Probe


def test_a_model_of_an_earlier_version_is_explained_by_the_features_that_it_knew() -> None:
    probe = Probe(encoders.load("efficientnet-lite0"), 2).eval()
    random = np.random.default_rng(0)
    with torch.no_grad():
        probe.mean.copy_(torch.from_numpy(random.normal(size=352)))
        probe.scale.copy_(torch.from_numpy(random.uniform(0.5, 2, 352)))
    features = random.normal(size=(6, 176)).astype(np.float16)
    tiles = tuple(Path(f"{n}.png") for n in range(3))
    exemplars = Exemplars(features, np.array([0, 0, 1, 1, 2, 2], np.int32), tiles, (0, 1, 1))
    place = torch.from_numpy(random.normal(size=352).astype(np.float32))
    place[:176] += 3 * torch.from_numpy(features[4].astype(np.float32))
    first, second = exemplars.nearest(probe, place)
    assert (first.class_index, first.tiles[0], second.class_index) == (1, tiles[2], 0)
    mean, scale = probe.mean[:176].numpy(), probe.scale[:176].numpy()
    known, cells = (place[:176].numpy() - mean) / scale, (features[4:] - mean) / scale
    cosines = cells @ known / np.linalg.norm(cells, axis=1) / np.linalg.norm(known)
    assert np.isclose(first.similarity, cosines.max(), atol=1e-3)
