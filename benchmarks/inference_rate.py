"""Measure tiles per second of inference, compared with what the arithmetic allows on this machine.

    python benchmarks/inference_rate.py [--backbone mit-b0] [--tile 224] [--batch 16] [--precision float32 bfloat16]

The floor of a tile is its floating-point operations (counted by torch) over the best rate that this machine
reaches in a large 1x1 convolution, measured in the same run; the ratio of floor to measured time is printed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from napari_pbip.config import PbipSettings
from napari_pbip.engine.device import autocast, choose_device
from napari_pbip.models.backbones import load
from napari_pbip.models.methods.pbip import Pbip
from napari_pbip.models.prototypes import Prototypes


def best(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Return the shortest of several timings in seconds; on a shared machine, the others include other work."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times)


def roof(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s of a 1x1 convolution from 1024 to 1024 channels."""
    x = torch.randn(4, 1024, 32, 32, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.randn(1024, 1024, 1, 1, device=device, dtype=dtype)
    flops = 2 * 4 * 1024 * 1024 * 32 * 32
    return flops / best(lambda: torch.nn.functional.conv2d(x, weight), 25, device)


@torch.inference_mode()
def main() -> None:
    """Print one line per precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mit-b0")
    parser.add_argument("--tile", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    args = parser.parse_args()
    device = choose_device(args.device)
    classes, k = 4, 3
    options = PbipSettings().model_dump(exclude={"name", "preset"})
    method = Pbip(load(args.backbone), Prototypes.random([k] * classes, 512), classes=classes, **options)
    method = method.eval().to(device)
    images = torch.rand(args.batch, 3, args.tile, args.tile, device=device)
    with FlopCounterMode(display=False) as counter:
        method.scores(images)
    per_tile = counter.get_total_flops() / args.batch
    print(f"{args.backbone}, tile {args.tile}, batch {args.batch}, {device}, {torch.get_num_threads()} threads")
    print(f"{per_tile / 1e9:.2f} GFLOP a tile")
    for precision in args.precision:
        peak = roof(device, getattr(torch, precision))
        with autocast(device, precision):
            seconds = best(lambda: method.scores(images), 7, device) / args.batch
        rate = args.tile**2 / seconds / 1e6
        print(
            f"{precision}: {1 / seconds:.1f} tiles/s, {rate:.2f} MPix/s, {per_tile / seconds / 1e9:.0f} of "
            f"{peak / 1e9:.0f} GFLOP/s = {100 * per_tile / peak / seconds:.0f} % of the floor's rate"
        )


if __name__ == "__main__":
    main()
