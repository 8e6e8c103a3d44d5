"""Putting weights into a network: all of them, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from napari_pbip.errors import WeightsUnavailable

Weights = Mapping[str, torch.Tensor]


def below(weights: Weights, prefix: str) -> Weights:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def fill(network: nn.Module, weights: Weights, name: str, path: Path) -> None:
    """Put weights into a network made on the meta device, as float32.

    Parameters
    ----------
    network
        Changed in place.
    weights
        Tensors by the names in its ``state_dict()``.
    name
        Name of the encoder, for the error.
    path
        The file that they were read from, for the error.

    Raises
    ------
    WeightsUnavailable
        If they are not exactly those of the network.
    """
    state = network.state_dict()
    missing = sorted(state.keys() - weights.keys())
    extra = sorted(weights.keys() - state.keys())
    wrong = sorted(key for key in state.keys() & weights.keys() if state[key].shape != weights[key].shape)
    if missing or extra or wrong:
        example = [*missing, *wrong, *extra][0]
        raise WeightsUnavailable(
            f"{path} does not hold the weights of {name!r} ({len(missing)} tensors are missing, {len(wrong)} have "
            f"another shape, {len(extra)} are not of it; {example} for one); give the file of that encoder."
        )
    network.load_state_dict({key: tensor.float() for key, tensor in weights.items()}, assign=True)
