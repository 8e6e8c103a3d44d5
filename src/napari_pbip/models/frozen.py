"""A container for a network that a method uses without training it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Self, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


class Frozen(nn.Module, Generic[Network]):
    """Holds a network that moves between devices with the method, but is not in ``parameters()`` and ``state_dict()``.

    A checkpoint thus contains only trained weights, an optimiser receives only trainable ones, and weights that must
    not be redistributed are not copied.

    Parameters
    ----------
    network
        The network, which is set to evaluation mode, and whose parameters will require no gradients.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._network = (network.requires_grad_(False).eval(),)  # in a tuple, torch does not register it

    @property
    def network(self) -> Network:
        """The network."""
        return self._network[0]

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        self.network._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's own
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
