"""Compare two ways in which several cores can compute a network: pieces of a batch beside each other, or one by one.

    python benchmarks/cores.py [--json OUT]

The bundled model computes batches of 16 tiles of 224 pixels, and of 64 of 112, with all cores: *divided* lets torch
divide every operation of a piece among the cores, as it does by itself; *beside* gives each piece to a thread of its
own, as this package does. Torch computes both, in turn, alone and beside as many other programs that compute all the
time as there are cores. The figures are tiles per second by the clock, median of the batches of some seconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from napari_pbip.engine import network, openvino_network, torch_network
from napari_pbip.engine.cores import side_by_side
from napari_pbip.engine.device import Precision, has_bfloat16
from napari_pbip.engine.inference.predict import fused_scores
from napari_pbip.engine.runs import load_model
from pbip_alone import pbip_alone
from report import finish, hardware
from spawned import SPAWN

PIXELS = 16 * 224**2
WAYS = {"divided": map, "beside": side_by_side}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=5, help="for each figure")
    arguments = parser.parse_args()
    cpu, method = torch.device("cpu"), load_model(pbip_alone()).method
    precisions: tuple[Precision, ...] = ("float32", "bfloat16") if has_bfloat16(cpu) else ("float32",)
    found: dict[str, Any] = {"hardware": hardware()}
    for others in (0, os.cpu_count() or 1):
        for side in (224, 112):
            tiles = torch.randint(0, 255, (PIXELS // side**2, 3, side, side), dtype=torch.uint8)
            for precision in precisions:
                computed = network.Network(method, fused_scores, cpu, precision)
                with busy(others):
                    rates = measured(computed, tiles, arguments.seconds)
                rates["ratio"] = rates["beside"] / rates["divided"]
                found[f"{others} other programs, {side} pixels, {precision}"] = rates
    finish("cores", found, arguments.json)


def measured(computed: network.Network[Any], tiles: torch.Tensor, seconds: float) -> dict[str, float]:
    """Return the tiles per second of both ways, by torch."""
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    end = time.perf_counter() + len(WAYS) * seconds
    while time.perf_counter() < end:
        for way, function in WAYS.items():
            with (
                mock.patch.object(torch_network, "side_by_side", function),
                mock.patch.object(openvino_network, "installed", return_value=None),
            ):
                began = time.perf_counter()
                computed(tiles)
                took[way].append(time.perf_counter() - began)
    return {way: len(tiles) / statistics.median(batches) for way, batches in took.items()}


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Let other processes compute all the time."""
    others = [SPAWN.Process(target=_compute, daemon=True) for _ in range(count)]
    for other in others:
        other.start()
    if others:
        time.sleep(2)
    yield
    for other in others:
        other.kill()
        other.join()


def _compute() -> None:
    while True:
        sum(range(10**6))


if __name__ == "__main__":
    main()
