"""The processes of one training: alone, or several that ``torchrun`` has started, on one machine or many.

All processes do the same steps (:mod:`napari_pbip.models.shares`). The first one, the leader, writes the files; the
others only read them. If one ends, ``torchrun`` ends all, and an exchange with the missing one fails before that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from napari_pbip.engine.device import choose_device
from napari_pbip.errors import ConfigError, JobFailed
from napari_pbip.processes import process_count, process_rank

_PATIENCE = timedelta(days=7)
"""Longest wait for another process: the leader may build a bank or validate for hours. One that has ended is noticed at
once."""
_LOST = ("closed by peer", "reset by peer", "broken pipe", "connection refused", "remote process has terminated")
"""Parts of torch's messages, in lower case, about a process that has ended."""


@dataclass(frozen=True)
class Processes:
    """The processes of a training, seen by one of them."""

    rank: int
    """Number of this process, from 0."""
    count: int
    device: torch.device
    """Device of this process."""

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    @property
    def names(self) -> str:
        """What computes, for users, such as ``cpu`` or ``cuda, 4 processes``."""
        return f"{self.device.type}, {self.count} processes" if self.several else str(self.device)

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.several:
            distributed.barrier()


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the other processes, if there are any, while the block runs.

    Parameters
    ----------
    device
        Name of the device (:func:`~napari_pbip.engine.device.choose_device`). Each process takes a graphics card of its
        own.

    Raises
    ------
    ConfigError
        If the device is not available to every process.
    JobFailed
        If another process has ended too early.
    """
    rank, count = process_rank(), process_count()
    if count == 1:
        yield Processes(0, 1, choose_device(device))
        return
    chosen = _own_device(device)
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(rank, count, chosen)
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or any(part in str(error).lower() for part in _LOST):
            raise JobFailed(
                "Another process of this training has ended, and says why; what was finished is kept, and "
                "`resume=True` continues from there."
            ) from error
        raise
    finally:
        distributed.destroy_process_group()


def _own_device(name: str) -> torch.device:
    """Return the device of this process, one of several on its machine."""
    device = choose_device(name)
    if device.type == "mps":
        if name == "auto":
            return torch.device("cpu")
        raise ConfigError("Several processes cannot train on mps; set `train.device` to cpu, or start one.")
    if device.type != "cuda":
        return device
    local, cards = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if ":" in name:
        raise ConfigError(
            f"Each process takes a graphics card of its own; set `train.device` to cuda instead of {name}."
        )
    if local >= cards:
        raise ConfigError(
            f"There are more processes on this machine than graphics cards ({cards}); start one for each card, or set "
            "`train.device` to cpu."
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)
