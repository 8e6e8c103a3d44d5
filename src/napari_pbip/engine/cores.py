"""The cores of the processor as a network uses them: pieces of a batch beside each other, not one piece on all cores.

By itself, torch divides each of the hundreds of operations of a network among all cores, which wait for each other
after every one of them: the sooner ones turn idle, and if another program has a core for a while, all others wait for
it. A thread for each piece needs no waiting (``benchmarks/cores.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Self, TypeVar

import torch
from threadpoolctl import ThreadpoolController

In = TypeVar("In")
Out = TypeVar("Out")

PIECE = 4 * 224**2
"""Pixels that are computed at once in a thread of a processor: 4 tiles of 224, or 16 of 112. The activations of more
are so large that memory costs more than is saved: in float32, 16 tiles of 224 at once take 1.4 times as long."""


def in_a_piece(pixels: int) -> int:
    """Return the number of pictures of a piece, each of so many pixels."""
    return max(1, PIECE // pixels)


@dataclass(frozen=True, slots=True)
class BatchSizes:
    """Sizes of batches in which a picture gets the same values, bit for bit, whatever else is in its batch.

    Libraries sum in another order for another number of pictures, or of threads. A batch therefore consists of whole
    pieces, and of at least one for each core that the largest batch uses.
    """

    piece: int
    """Number of pictures of a piece."""
    least: int
    most: int

    @classmethod
    def of(cls, most: int, pixels: int) -> Self:
        """Return the sizes up to ``most`` pictures, each of so many pixels, for the cores that torch may use."""
        piece = min(most, in_a_piece(pixels))
        pieces = most // piece
        return cls(piece, piece * min(torch.get_num_threads(), pieces), piece * pieces)

    def holding(self, count: int) -> int:
        """Return the smallest size of a batch that holds so many pictures."""
        return max(self.least, -(-count // self.piece) * self.piece)


def side_by_side(work: Callable[[In], Out], pieces: Iterable[In]) -> Sequence[Out]:
    """Return ``work`` of each piece, in order, computed in as many threads as there are cores or pieces.

    The threads share the cores that torch may use in the thread that calls this (``torch.get_num_threads``), and have
    no gradients. An error of a piece is raised when those begun before have ended.
    """
    pieces = list(pieces)
    cores = torch.get_num_threads()
    threads = min(cores, len(pieces))
    if threads < 2 or not _can_limit():
        return [work(piece) for piece in pieces]
    return list(_threads(threads, cores // threads).map(torch.no_grad()(work), pieces))


@cache
def _threads(count: int, cores: int) -> ThreadPoolExecutor:
    """Return threads in each of which torch uses some cores; all callers share them, and they stay."""
    # other threads of this package have its name, and end with what they are for
    return ThreadPoolExecutor(count, "pieces of batches", _use, (cores,))


def _use(cores: int) -> None:
    """Let torch use as many cores in the calling thread; it has no function that does not change other threads too."""
    torch.get_num_threads()  # sets the number when a thread first calls it, and must not do so later
    ThreadpoolController().select(user_api="openmp").limit(limits=cores)


@cache
def _can_limit() -> bool:
    """Return whether the cores of a single thread can be limited; torch may have been built without OpenMP."""

    def limited() -> bool:
        _use(1)
        return torch.get_num_threads() == 1

    with ThreadPoolExecutor(1) as other:
        return other.submit(limited).result()
