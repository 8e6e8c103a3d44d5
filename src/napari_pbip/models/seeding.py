"""Random numbers of torch that depend on a seed alone and leave no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_CPU = torch.device("cpu")


@contextmanager
def seeded(seed: int, device: torch.device = _CPU) -> Iterator[None]:
    """Seed torch's random numbers in this block; restore the state of the processor, and of a graphics card, after it.

    The device is named because torch otherwise saves the states of all graphics cards, and warns if there are several.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
