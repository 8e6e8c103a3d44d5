"""A network that a method looks through and does not train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Self, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


class Frozen(nn.Module, Generic[Network]):
    """Holds a network that goes to a device with the method, and is in neither ``parameters()`` nor ``state_dict()``.

    So a checkpoint holds what was trained, an optimiser gets what can be trained, and weights that may not be passed
    on stay where the user has them.

    Parameters
    ----------
    network
        Put into evaluation mode, and its parameters take no gradient any more.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._held = (network.requires_grad_(False).eval(),)  # torch does not look into tuples

    @property
    def network(self) -> Network:
        """The network."""
        return self._held[0]

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        self.network._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's own
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
