"""Measure what memory that is returned to the system between two batches costs a network (Linux with glibc).

    OMP_NUM_THREADS=1 python benchmarks/freed_memory.py [--json OUT]

The bundled model computes 16 tiles of 112 and of 224 pixels, in pieces as torch does it on a processor and all at once,
on the main thread (as the command line does) and on another one (as the window does); with memory that the process
keeps when it is freed, and without. Each of the four processes prints tiles per second of its thread's processor time,
the median of eight batches, and the pages of 4 kB that the system had to clear for a batch.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

from report import finish, hardware
from spawned import in_process

TILES = 16
SIZES = (112, 224)
BATCHES = 8


def rates(kept: bool, main_thread: bool) -> dict[str, dict[str, float]]:
    """Return the tiles a second and the cleared pages of a batch, for each size, precision and way of computing."""
    from napari_pbip.engine import network
    from napari_pbip.engine.freed_memory import keep_freed_memory

    found: dict[str, dict[str, float]] = {}
    with mock.patch.object(network, "keep_freed_memory", keep_freed_memory if kept else lambda: None):
        if main_thread:
            _measure(found)
        else:
            thread = threading.Thread(target=_measure, args=(found,))
            thread.start()
            thread.join()
    return found


def _measure(found: dict[str, dict[str, float]]) -> None:
    import torch

    from napari_pbip.engine import cores, network
    from napari_pbip.engine.device import Precision, has_bfloat16
    from napari_pbip.engine.inference.predict import fused_scores
    from napari_pbip.engine.runs import load_model
    from pbip_alone import pbip_alone

    cpu = torch.device("cpu")
    precisions: tuple[Precision, ...] = ("float32", "bfloat16") if has_bfloat16(cpu) else ("float32",)
    method = load_model(pbip_alone()).method
    for size in SIZES:
        tiles = torch.randint(0, 255, (TILES, 3, size, size), dtype=torch.uint8)
        for precision in precisions:
            for way, piece in (("in pieces", cores.PIECE), ("at once", TILES * size**2)):
                with mock.patch.object(cores, "PIECE", piece):
                    computed = network.Network(method, fused_scores, cpu, precision)
                    computed(tiles)
                    pages, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, []
                    for _ in range(BATCHES):
                        began = time.thread_time()
                        computed(tiles)
                        seconds.append(time.thread_time() - began)
                pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - pages
                found[f"{size}, {precision}, {way}"] = {
                    "tiles a second": TILES / statistics.median(seconds),
                    "pages a batch": pages / BATCHES,
                }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"hardware": hardware()}
    for thread in ("main thread", "another thread"):
        for memory in ("returned", "kept"):
            found[f"{thread}, freed memory {memory}"] = in_process(rates, memory == "kept", thread == "main thread")
    finish("freed_memory", found, arguments.json)


if __name__ == "__main__":
    main()
