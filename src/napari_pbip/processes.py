"""The processes that torch's program ``torchrun`` starts together, to do one training."""

from __future__ import annotations

import os


def process_count() -> int:
    """Return how many processes ``torchrun`` has started; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if _started_by_torchrun() else 1


def process_rank() -> int:
    """Return the number of this process, counted from 0, of those that ``torchrun`` has started; 0 without it.

    Process 0 writes all files and speaks to the user.
    """
    return int(os.environ["RANK"]) if _started_by_torchrun() else 0


def _started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ
