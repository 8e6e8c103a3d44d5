"""How long tests wait for what comes by itself, from threads, processes and the window."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 300.0
"""Seconds after which something is taken never to come: many times as long as a slow and busy machine needs."""


def wait_until(so: Callable[[], object]) -> None:
    """Wait until a condition holds; fail if that takes too long."""
    end = time.monotonic() + PATIENCE
    while not so():
        assert time.monotonic() < end, f"still not so after {PATIENCE:.0f} s"
        time.sleep(0.002)
