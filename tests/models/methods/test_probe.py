"""The linear probe as a network: its scores and presence are probabilities relative to chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from napari_pbip import samples
from napari_pbip.models import encoders
from napari_pbip.models.methods.base import MethodInputs
from napari_pbip.models.methods.probe import Probe


@pytest.fixture
def probe() -> Probe:
    return Probe.from_inputs(MethodInputs(None, 4, encoder=encoders.load("efficientnet-lite0"))).eval()


@pytest.fixture
def images() -> torch.Tensor:
    path = sorted(samples.tiles().glob("*/*.png"))[3]
    array = np.asarray(Image.open(path).convert("RGB")).copy()
    return torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255


def test_what_says_nothing_is_chance(probe: Probe, images: torch.Tensor) -> None:
    seen = probe.scores(images)
    assert seen.maps.shape == (1, 4, 28, 28)
    torch.testing.assert_close(seen.maps, torch.zeros_like(seen.maps), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.presence.sigmoid(), torch.full((1, 4), 0.5))


def test_scores_are_those_of_a_softmax_of_standardised_features(probe: Probe, images: torch.Tensor) -> None:
    torch.manual_seed(0)
    probe.load_state_dict(
        {
            "mean": torch.randn(352),
            "scale": torch.rand(352) + 0.5,
            "weight": torch.randn(4, 352),
            "bias": torch.randn(4),
        }
    )
    with torch.no_grad():
        features = (probe.encoder.network.dense(images).movedim(1, 3) - probe.mean) / probe.scale
        expected = (features @ probe.weight.T + probe.bias).softmax(3).movedim(3, 1)
        seen = probe.scores(images)
    torch.testing.assert_close(seen.maps, (4 * expected).log(), atol=1e-3, rtol=1e-3)
    assert seen.maps.max() <= probe.ceiling == math.log(4)


def test_a_model_of_an_earlier_version_uses_the_features_that_it_knew(probe: Probe, images: torch.Tensor) -> None:
    torch.manual_seed(0)
    earlier = {
        "mean": torch.randn(176),
        "scale": torch.rand(176) + 0.5,
        "weight": torch.randn(4, 176),
        "bias": torch.randn(4),
    }
    with torch.no_grad():
        features = (probe.encoder.network.dense(images)[:, :176].movedim(1, 3) - earlier["mean"]) / earlier["scale"]
        expected = (features @ earlier["weight"].T + earlier["bias"]).softmax(3).movedim(3, 1)
        probe.load_state_dict(earlier)
        seen = probe.scores(images)
    torch.testing.assert_close(seen.maps, (4 * expected).log(), atol=1e-3, rtol=1e-3)
    within = torch.nn.ModuleDict({"probe": Probe(probe.encoder.network, 4)})  # as in PBIP
    within.load_state_dict({f"probe.{name}": tensor for name, tensor in earlier.items()})
    assert torch.equal(within["probe"].weight, probe.weight)
    with pytest.raises(RuntimeError, match="size mismatch"):
        probe.load_state_dict(earlier | {"mean": torch.randn(100)})


def test_some_cells_are_enough_to_be_present_and_a_few_are_not(probe: Probe) -> None:
    maps = torch.full((1, 4, 10, 10), -3.0)
    maps[:, 0] = 1.0
    for cells, present in ((2, False), (20, True)):
        maps[:, 1] = -3.0
        maps[:, 1].flatten(1)[:, :cells] = 1.3
        assert bool(probe.image_logits(maps)[0, 1] > 0) == present
