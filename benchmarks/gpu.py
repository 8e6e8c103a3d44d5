"""Check and measure a GPU beside the processor, in less than eight minutes.

    python benchmarks/gpu.py [--json OUT] [--device cuda] [--tiles 2000] [--steps 20]

Checks, each of which ends the program with an error if it fails:

* labels: the bundled slide segmented on both devices in float32 has the same labels (up to ties, 99.9 %), and in
  bfloat16 those of at least 97 % of the cells.
* cancel: a job on the GPU that is stopped leaves a store that is resumed to the same scores.
* memory: a batch that does not fit is computed in parts, with a warning and the same labels; where not even one tile
  fits, the job ends with the sentence that says what to do, and the next one runs.
* two jobs: a training and a segmentation at once both end, and the map is that of a job alone.

Measured: tiles a second of the bundled model and of MiT-B0, and seconds of a step of the default PBIP (ten tiles of 224
pixels and five mosaics), in float32 and bfloat16, on the GPU and on the processor in the same run. With ``--device
cpu`` everything but the memory of the GPU is tried without one; take few tiles and steps then.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from inference import flops, of_backbone
from napari_pbip import samples
from napari_pbip.config import JobSettings, SegmentSettings
from napari_pbip.engine.device import choose_device, has_bfloat16
from napari_pbip.engine.inference.predict import fused_scores
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.network import Network
from napari_pbip.engine.runs import load_model
from napari_pbip.engine.training.train import train
from napari_pbip.errors import JobFailed
from napari_pbip.events import Step, Warned
from napari_pbip.models.methods.base import Method
from napari_pbip.results import ScoreStore, open_labels
from napari_pbip.results.places import stores_in
from napari_pbip.slides import open_slide
from pbip_alone import pbip_alone
from report import finish, hardware
from training import compose

RUN = pbip_alone()
BATCH = 64
SAME, SAME_IN_BFLOAT16 = 0.999, 0.97
SOME, TOO_LITTLE = 256 << 20, 8 << 20
"""Bytes for some of the tiles of a batch, whose largest map alone needs 300 MB, and for less than the weights."""


def check(name: str, holds: bool, told: object) -> None:
    """Print what was checked; end the program if it does not hold."""
    print(f"  {'ok' if holds else 'FAILED'}: {name} ({told})", flush=True)
    if not holds:
        sys.exit(1)


def segmented(out: Path, device: str, precision: Any = "float32", **options: Any) -> tuple[ScoreStore, float]:
    """Return the store of the bundled slide, and the seconds that it took."""
    began = time.perf_counter()
    settings = SegmentSettings(device=device, precision=precision, batch_size=BATCH)
    for _ in segment(samples.slide(), RUN, out, settings, **options):
        pass
    return stored(out), time.perf_counter() - began


def stored(out: Path) -> ScoreStore:
    """Return the store in a folder."""
    [path] = stores_in(out)
    return ScoreStore.open(path)


def labels(store: ScoreStore) -> np.ndarray:
    """Return the labels of a store, uint8 (h, w)."""
    return np.asarray(open_labels(store)[0][0][:, :])


def scores(store: ScoreStore) -> np.ndarray:
    """Return the scores of a store, (N, h, w)."""
    return store.read_scores(0, slice(None), slice(None))


def labels_agree(folder: Path, device: str) -> dict[str, Any]:
    """Compare labels of the GPU with those of the processor."""
    reference, on_processor = segmented(folder / "processor", "cpu")
    expected, found = labels(reference), {"processor float32, s": on_processor}
    for precision, least in (("float32", SAME), ("bfloat16", SAME_IN_BFLOAT16)):
        store, seconds = segmented(folder / precision, device, precision)
        share = float((labels(store) == expected)[expected > 0].mean())
        check(f"labels in {precision} are those of the processor", share >= least, f"{share:.3%}")
        found |= {f"{precision}, same labels": share, f"{precision}, s": seconds}
    return found


def cancelled(folder: Path, device: str) -> dict[str, Any]:
    """Stop a job after a batch, and resume it."""
    out, settings = folder / "cancelled", SegmentSettings(device=device, precision="float32", batch_size=BATCH)
    job = segment(samples.slide(), RUN, out, settings)
    for event in job:
        if isinstance(event, Step):
            began = time.perf_counter()
            break
    job.close()
    seconds = time.perf_counter() - began
    done, planned = stored(out).progress
    check("a stopped job is not finished", done < planned, f"{done} of {planned} tiles")
    resumed, _ = segmented(out, device, resume=True)
    whole = scores(stored(folder / "float32"))
    same = np.array_equal(scores(resumed), whole, equal_nan=True)
    check("the resumed scores are those of a run that was not stopped", same, "bit for bit")
    return {"until it has stopped, s": seconds}


@contextmanager
def little_memory(device: torch.device, room: int) -> Iterator[None]:
    """Leave some bytes of the GPU's memory to this process, beside those that it has."""
    index = device.index or 0
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(index).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(index) + room) / total, index)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, index)


def full_memory(folder: Path, device: str) -> dict[str, Any]:
    """Segment while the GPU has memory for a part of a batch, and for nothing; then again."""
    if torch.device(device).type != "cuda":
        print("  left out: the memory of this device cannot be limited")
        return {}
    settings = SegmentSettings(device=device, precision="float32", batch_size=BATCH)
    with little_memory(torch.device(device), SOME):
        events = list(segment(samples.slide(), RUN, folder / "parts", settings))
    warned = [event.message for event in events if isinstance(event, Warned)]
    check("a batch that does not fit is computed in parts", any("memory" in one for one in warned), warned)
    whole = labels(stored(folder / "float32"))
    share = float((labels(stored(folder / "parts")) == whole)[whole > 0].mean())
    check("its labels are those of whole batches", share >= SAME, f"{share:.3%}")
    told = ""
    with little_memory(torch.device(device), TOO_LITTLE):
        try:
            segmented(folder / "full", device)
        except JobFailed as error:
            told = str(error)
    check("a full memory is told with the way out", "memory is full" in told and "batch_size" in told, told)
    again, _ = segmented(folder / "full", device, resume=(folder / "full").exists())
    check("the next job runs", again.progress[0] == again.progress[1], again.progress)
    return {"warning": warned, "sentence": told}


def training_settings(data: Path, device: str, precision: str, steps: int) -> JobSettings:
    """Return the default training of PBIP."""
    given = {"steps": steps, "batch_size": 10, "device": device, "precision": precision, "validate_every": 10_000}
    return JobSettings.parse({"data": {"folder": str(data), "mpp": 0.5}, "method": {"name": "pbip"}, "train": given})


def two_jobs(folder: Path, data: Path, device: str) -> dict[str, Any]:
    """Train and segment at once, in two threads, as the window does."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in train(training_settings(data, device, "float32", 5), folder / "beside"):
                pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, the check fails
            failed.append(error)

    thread = threading.Thread(target=work)
    began = time.perf_counter()
    thread.start()
    store, _ = segmented(folder / "two", device)
    thread.join()
    check("a training beside it ends", not failed, failed or "5 steps")
    alone = labels(stored(folder / "float32"))
    share = float((labels(store) == alone)[alone > 0].mean())
    check("the map beside a training is that of a job alone", share >= SAME, f"{share:.3%}")
    return {"both, s": time.perf_counter() - began, "same labels": share}


def inference_rate(device: str, count: int) -> dict[str, Any]:
    """Return the tiles a second of two networks."""
    model = load_model(RUN)
    side = model.facts.tile_size
    with open_slide(samples.slide()) as slide:
        step = max(1, slide.height // BATCH - 1)
        read = [slide.read_level(0, slide.width // 3, row * step, 224, 224) for row in range(BATCH)]
    wide = torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).contiguous()
    networks: dict[str, tuple[Method, torch.Tensor]] = {
        f"the bundled model, {side}": (model.method, wide[..., :side, :side].contiguous()),
        "mit-b0, 224": (of_backbone("mit-b0"), wide),
    }
    found: dict[str, Any] = {}
    for name, (method, tiles) in networks.items():
        exact = None
        found[name] = {"GFLOP a tile": flops(method, tiles.shape[-1]) / 1e9}
        for where, precision in places(device):
            chosen = choose_device(where)
            network = Network(method.to(chosen), fused_scores, chosen, precision)
            maps = network(tiles)[0].cpu()  # the first call prepares it
            exact = maps if exact is None else exact
            batches = max(1, (count if chosen.type != "cpu" else min(count, 4 * BATCH)) // BATCH)
            synchronize(chosen)
            began = time.perf_counter()
            for _ in range(batches):
                last = network(tiles)[0]
            last.cpu()
            rate = batches * len(tiles) / (time.perf_counter() - began)
            same = float((maps.argmax(1) == exact.argmax(1)).float().mean())
            found[name][f"{where} {precision}"] = {"tiles/s": rate, "same class as the processor in float32": same}
            print(f"  {name}, {where} {precision}: {rate:.0f} tiles/s, {same:.2%} of cells the same", flush=True)
        method.to("cpu")
    return found


def places(device: str) -> Iterator[tuple[str, Any]]:
    """Yield the processor in float32, and then the precisions of the GPU."""
    yield "cpu", "float32"
    if device != "cpu":
        yield device, "float32"
    if has_bfloat16(torch.device(device)):
        yield device, "bfloat16"


def synchronize(device: torch.device) -> None:
    """Wait for the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def training_step(folder: Path, data: Path, device: str, steps: int) -> dict[str, Any]:
    """Return the seconds of a step on each device and in each precision, without the first one."""
    found: dict[str, Any] = {}
    for where, precision in places(device):
        count = steps if where != "cpu" else min(steps, 4)
        times: list[float] = []
        losses: list[float] = []
        for event in train(training_settings(data, where, precision, count), folder / f"{where} {precision}"):
            if isinstance(event, Step) and "loss" in event.values:  # not one of the image bank
                times.append(time.perf_counter())
                losses.append(float(event.values["loss"]))
        seconds = median(np.diff(times))
        found[f"{where} {precision}"] = {"s a step": float(seconds), "first loss": losses[0], "last loss": losses[-1]}
        print(f"  {where} {precision}: {seconds:.3f} s a step, loss {losses[0]:.3f} to {losses[-1]:.3f}", flush=True)
        check("losses are finite", bool(np.isfinite(losses).all()), f"{len(losses)} steps")
    return found


def main() -> None:
    """Check and measure everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiles", type=int, default=4096, help="for the rate of inference")
    parser.add_argument("--steps", type=int, default=20, help="of training")
    args = parser.parse_args()
    choose_device(args.device)
    began = time.perf_counter()
    found: dict[str, Any] = {"hardware": hardware()}
    print(found["hardware"], flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = folder / "data"
        compose(data)
        for name, work in {
            "labels": lambda: labels_agree(folder, args.device),
            "cancel": lambda: cancelled(folder, args.device),
            "memory": lambda: full_memory(folder, args.device),
            "inference": lambda: inference_rate(args.device, args.tiles),
            "training": lambda: training_step(folder, data, args.device, args.steps),
            "two jobs": lambda: two_jobs(folder, data, args.device),
        }.items():
            print(name, flush=True)
            found[name] = work()
    found["all of it, s"] = time.perf_counter() - began
    finish("gpu", found, args.json)


if __name__ == "__main__":
    main()
