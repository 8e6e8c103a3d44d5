"""Loading weights into a network, which must be exactly those of the network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from napari_pbip.errors import WeightsUnavailable

Weights = Mapping[str, torch.Tensor]


def below(weights: Weights, prefix: str) -> Weights:
    """Return the tensors whose names begin with a prefix, which is removed."""
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def fill(network: nn.Module, weights: Weights, name: str, path: Path) -> None:
    """Load weights as float32 into a network on the meta device.

    Parameters
    ----------
    network
        The network, which is changed in place.
    weights
        Tensors by the names in its ``state_dict()``.
    name
        Name of the encoder, for the error.
    path
        File of the weights, for the error.

    Raises
    ------
    WeightsUnavailable
        If the tensors are not exactly those of the network.
    """
    state = network.state_dict()
    missing = sorted(state.keys() - weights.keys())
    extra = sorted(weights.keys() - state.keys())
    wrong = sorted(key for key in state.keys() & weights.keys() if state[key].shape != weights[key].shape)
    if missing or extra or wrong:
        example = [*missing, *wrong, *extra][0]
        raise WeightsUnavailable(
            f"{path} does not hold the weights of {name!r} ({len(missing)} tensors are missing, {len(wrong)} have "
            f"another shape, {len(extra)} do not belong to it; {example} for one); give the file of that encoder."
        )
    network.load_state_dict({key: tensor.float() for key, tensor in weights.items()}, assign=True)
