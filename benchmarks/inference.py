"""Measure inference: the network alone, a slide from start to end, and the loop of the released evaluation.

    python benchmarks/inference.py [--json OUT] [--run RUN] [--slide SLIDE] [--copies 2] [--backbones mit-b0 ...]

Everything that is compared is measured in the same run, in turn. Seconds are printed as wall / processor: beside other
work, only processor seconds can be compared. The floor of a network is its floating-point operations (counted by torch)
over the best rate of a large 1x1 convolution; that of a slide adds decoding its level 0 from memory, and writing the
finished scores once.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import imagecodecs
import numpy as np
import platformdirs
import tifffile
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from napari_pbip import samples
from napari_pbip.config import PbipSettings, SegmentSettings
from napari_pbip.engine import network as network_module
from napari_pbip.engine import openvino_network
from napari_pbip.engine.device import autocast, has_bfloat16
from napari_pbip.engine.inference.predict import Predictor, fused_scores, predicted_presence, segment_image
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.loading import to_pixels
from napari_pbip.engine.network import WORTH_CONVERTING, Network
from napari_pbip.engine.runs import load_model
from napari_pbip.events import Finished, RegionDone
from napari_pbip.models.backbones import load
from napari_pbip.models.methods.base import Method
from napari_pbip.models.methods.pbip import Pbip
from napari_pbip.models.prototypes import Prototypes
from napari_pbip.results.places import stores_in
from napari_pbip.results.store import ScoreStore
from napari_pbip.slides import open_slide
from napari_pbip.slides.plane import Plane
from pbip_alone import pbip_alone
from report import finish, hardware

CPU = torch.device("cpu")
BATCH = 16
Seconds = tuple[float, float]


def measured(work: Callable[[], object]) -> Seconds:
    """Return the wall and processor seconds of some work."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def best(work: Callable[[], object], repeats: int) -> Seconds:
    """Return the shortest of several times, each of wall and processor."""
    every = [measured(work) for _ in range(repeats)]
    return min(wall for wall, _ in every), min(processor for _, processor in every)


def shown(seconds: Seconds) -> str:
    """Return seconds as text."""
    return f"{seconds[0]:.2f} / {seconds[1]:.2f} s"


@contextmanager
def without_openvino(absent: bool) -> Iterator[None]:
    """Let networks be computed by torch only."""
    if not absent:
        yield
        return
    with mock.patch.object(openvino_network, "installed", return_value=None):
        yield


def runtimes() -> list[str]:
    """Return what can compute networks here."""
    return ["torch", *(["openvino"] if openvino_network.installed() else [])]


def precisions() -> list[Any]:
    """Return the number formats that the processor has."""
    return ["float32", *(["bfloat16"] if has_bfloat16(CPU) else [])]


# the network alone -----------------------------------------------------------------------------------------------


def roof(precision: str) -> Seconds:
    """Return the FLOP/s of a 1x1 convolution from 1024 to 1024 channels, per second of wall and of processor."""
    dtype = getattr(torch, precision)
    x = torch.randn(4, 1024, 32, 32, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.randn(1024, 1024, 1, 1, dtype=dtype)
    flops = 2 * 4 * 1024 * 1024 * 32 * 32
    wall, processor = best(lambda: F.conv2d(x, weight), 15)
    return flops / wall, flops / processor


def flops(method: Method, tile: int) -> float:
    """Return the floating-point operations of one tile."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        method.scores(torch.rand(1, 3, tile, tile))
    return float(counter.get_total_flops())


def of_backbone(name: str) -> Method:
    """Return PBIP with four classes and random weights."""
    options = PbipSettings().options() | {"synthesis": 1.0}
    return Pbip(load(name), Prototypes.random([3] * 4, 512), classes=4, **options).eval()


def network_alone(name: str, method: Method, tiles: torch.Tensor) -> dict[str, Any]:
    """Compare what can compute a network with the module as it is, on real tiles."""
    side = tiles.shape[-1]
    per_tile = flops(method, side)
    print(f"\n{name}, tiles of {side}, {len(tiles)} at once, {per_tile / 1e9:.2f} GFLOP each")
    with torch.no_grad():
        exact = method.scores(tiles.float() / 255).maps
    found: dict[str, Any] = {"gflop": per_tile / 1e9}
    for precision in precisions():
        peak = roof(precision)

        @torch.no_grad()
        def plain(precision: Any = precision) -> torch.Tensor:
            with autocast(CPU, precision):
                return method.scores(tiles.float() / 255).maps

        candidates: dict[str, Callable[[], torch.Tensor]] = {"module": plain}
        for runtime in runtimes():
            network = Network(method, fused_scores, CPU, precision, expected=WORTH_CONVERTING)
            with without_openvino(runtime == "torch"):
                conversion = measured(lambda network=network: network(tiles))
            if network.computed.runtime != runtime:
                print(f"  {precision:9} {runtime} cannot compute it, or not as exactly as torch")
                continue
            candidates[runtime] = lambda network=network: network(tiles)[0]  # decided for this size by the first call
            found[f"{precision} {runtime} first call"] = conversion
        rates: dict[str, float] = {}
        for runtime, work in candidates.items():
            seconds = best(work, 5)
            rates[runtime] = len(tiles) * side**2 / seconds[1]
            agreement = float((work().argmax(1) == exact.argmax(1)).float().mean())
            of_floor = len(tiles) * per_tile / peak[1] / seconds[1]
            found[f"{precision} {runtime}"] = {
                "tiles_per_second": len(tiles) / seconds[0],
                "tiles_per_processor_second": len(tiles) / seconds[1],
                "share_of_floor": of_floor,
                "cells_with_the_same_class": agreement,
            }
            print(
                f"  {precision:9} {runtime:9} {len(tiles) / seconds[0]:6.0f} tiles/s, {len(tiles) / seconds[1]:6.0f} a "
                f"processor second, {of_floor:4.0%} of the floor's rate, {agreement:.2%} of cells as the module"
            )
        if rates.get("openvino", 0) > rates["torch"]:
            conversion = found[f"{precision} openvino first call"][1] - found[f"{precision} torch first call"][1]
            pixels = conversion / (1 / rates["torch"] - 1 / rates["openvino"])
            found[f"{precision}: megapixels that save a conversion"] = pixels / 1e6
            print(f"  {precision:9} a conversion ({conversion:.1f} s) is saved again by {pixels / 1e6:.1f} megapixels")
    return found


# a slide from start to end ---------------------------------------------------------------------------------------


def larger_slide(path: Path, copies: int, out: Path) -> Path:
    """Write a slide that shows another one several times side by side: tiled TIFF, JPEG."""
    with open_slide(path) as slide:
        pixels = slide.read_level(0, 0, 0, slide.width, slide.height)
        microns = slide.require_mpp()
    tifffile.imwrite(
        out,
        np.tile(pixels, (1, copies, 1)),
        tile=(256, 256),
        compression="jpeg",
        photometric="rgb",
        resolution=(1e4 / microns, 1e4 / microns),
        resolutionunit="CENTIMETER",
    )
    return out


class Busy:
    """Measures how long the parts of the job are at work, whichever thread they run in."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def watch(self, owner: Any, method: str, name: str) -> Any:
        original = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - began

        return mock.patch.object(owner, method, timed)


def slide_from_start_to_end(method: Method, run: Path, path: Path, work: Path) -> dict[str, Any]:
    """Segment a slide with each runtime and precision; compare labels and the share of the floor."""
    found: dict[str, Any] = {}
    reference = None
    decode = measured(lambda: decode_level(path))
    print(f"\n{path.name} from start to end; decoding alone {shown(decode)}")
    for precision in precisions():
        peak = roof(precision)
        for name in [*runtimes(), *(["openvino, converted before"] if openvino_network.installed() else [])]:
            runtime = name.partition(",")[0]
            out, busy, first = work / f"{precision}-{name}", Busy(), None
            openvino_network._shared.clear()  # as another process, which finds only what is on disk
            began, processor = time.perf_counter(), time.process_time()
            with ExitStack() as stack:
                stack.enter_context(mock.patch.object(network_module, "WORTH_CONVERTING", 0))
                stack.enter_context(without_openvino(runtime == "torch"))
                stack.enter_context(busy.watch(Network, "__call__", "network"))
                stack.enter_context(busy.watch(Plane, "read", "reader"))
                stack.enter_context(busy.watch(ScoreStore, "write_region", "writer"))
                for event in segment(path, run, out, SegmentSettings(precision=precision, device="cpu")):
                    if isinstance(event, RegionDone) and first is None:
                        first = time.perf_counter() - began
                    if isinstance(event, Finished):
                        tiles = event.summary["tiles"]
            seconds = time.perf_counter() - began, time.process_time() - processor
            (store_path,) = stores_in(out)
            store = ScoreStore.open(store_path)
            scores = store.read_scores(0, slice(None), slice(None))
            write = measured(lambda scores=scores: np.ascontiguousarray(scores).tobytes())
            floor = tiles * flops(method, store.facts.grid.tile) / peak[1] + decode[1] + write[1]
            classes = np.where(np.isnan(scores[0]), -1, scores.argmax(0))
            reference = classes if reference is None else reference
            agreement = float((classes == reference)[reference >= 0].mean())
            shares = {name: part / seconds[0] for name, part in busy.seconds.items()}
            found[f"{precision} {name}"] = {
                "computed": store.facts.computed,
                "seconds": seconds,
                "first_label": first,
                "tiles": tiles,
                "tiles_per_processor_second": tiles / seconds[1],
                "share_of_floor": floor / seconds[1],
                "busy": shares,
                "cells_as_float32_torch": agreement,
            }
            print(
                f"  {precision:9} {name:9} {shown(seconds)}, {tiles} tiles, {tiles / seconds[1]:.0f} a processor "
                f"second, {floor / seconds[1]:.0%} of the floor's rate, first label after {first:.1f} s, "
                f"{agreement:.3%} of cells as torch in float32; busy: "
                + ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
            )
    return found


def decode_level(path: Path) -> None:
    """Decode every tile of the finest level, from memory."""
    with tifffile.TiffFile(path) as file:
        page = file.series[0].keyframe
        stored = list(file.filehandle.read_segments(page.dataoffsets, page.databytecounts, flat=True))
        rgb = page.photometric == tifffile.PHOTOMETRIC.RGB
        for data, _ in stored:
            colours = {"colorspace": "RGB" if rgb else "YCBCR", "outcolorspace": "RGB"}
            imagecodecs.jpeg8_decode(data, tables=page.jpegtables, **colours)


# the loop of the released evaluation -----------------------------------------------------------------------------


@torch.no_grad()
def released_loop(method: Method, images: Sequence[np.ndarray], views: int) -> None:
    """Label images one by one as the released code does, which computes all stages for each view.

    Its seven views are the image, and the image and its mirror image at three brightnesses. Maps of every view are
    moved to numpy, stretched there, moved back and enlarged. With ``views=1``, only the first one is computed.
    """
    for image in images:
        one = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        seen = [one, *(turned * factor for factor in (0.9, 1.0, 1.1) for turned in (one, one.flip(3)))][:views]
        total = np.zeros(())
        for number, view in enumerate(seen):
            for weight, maps in zip(method.fusion_weights, method(view).class_maps, strict=True):
                maps = maps.flip(3) if number and number % 2 == 0 else maps
                positive = np.maximum(maps.numpy(), 0)
                low, high = positive.min((2, 3), keepdims=True), positive.max((2, 3), keepdims=True)
                stretched = torch.from_numpy((positive - low) / (high - low + 1e-6))
                enlarged = F.interpolate(stretched, image.shape[:2], mode="bilinear", align_corners=True)
                total = total + weight * enlarged.numpy()
        total.argmax(1)


def our_labels(predictor: Predictor, images: Sequence[np.ndarray]) -> None:
    """Label images as ``evaluate`` does."""
    for first in range(0, len(images), BATCH):
        some = images[first : first + BATCH]
        for maps, image in zip(predictor.maps(some), some, strict=True):
            segment_image(maps, predicted_presence(maps.presence), image.shape[:2])


def evaluation(method: Method, facts: Any, images: Sequence[np.ndarray]) -> dict[str, Any]:
    """Compare the released loop of seven views and of one with ours, of eight views and of one.

    Seven views are compared with seven eighths of the time of our eight.
    """
    print(f"\nlabels of {len(images)} tiles, released loop over ours (wall / processor)")
    found: dict[str, Any] = {}
    theirs = {views: best(partial(released_loop, method, images, views), 2) for views in (7, 1)}
    for views in (False, True):
        for precision in precisions():
            for runtime in runtimes():
                with without_openvino(runtime == "torch"):
                    predictor = Predictor.of_run(
                        method, facts, CPU, precision=precision, tta=views, expected=WORTH_CONVERTING
                    )
                    our_labels(predictor, images)  # prepares the network
                    ours = best(lambda predictor=predictor: our_labels(predictor, images), 2)
                share = 7 / 8 if views else 1
                for many in (7,) if views else (7, 1):
                    ratio = theirs[many][0] / ours[0] / share, theirs[many][1] / ours[1] / share
                    name = f"{many} of theirs against {7 if views else 1} of ours, {precision} {runtime}"
                    found[name] = ratio
                    print(f"  {name}: {ratio[0]:.1f} / {ratio[1]:.1f}")
    return found


def main() -> None:
    """Print all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", type=Path, default=pbip_alone())
    parser.add_argument("--slide", type=Path, default=samples.slide())
    parser.add_argument("--copies", type=int, default=2, help="copies of the slide side by side")
    parser.add_argument("--backbones", nargs="*", default=["mit-b0"], help="networks with random weights")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = load_model(args.run)
    side = model.facts.tile_size
    with open_slide(args.slide) as slide:
        step = max(1, slide.height // 40)
        images = [slide.read_level(0, slide.width // 3, i * step, side, side) for i in range(32)]
        wide = [slide.read_level(0, slide.width // 3, i * step, 224, 224) for i in range(BATCH)]
    networks = {"the run": (model.method, images[:BATCH]), "the run, 224": (model.method, wide)}
    networks |= {name: (of_backbone(name), wide) for name in args.backbones}
    found: dict[str, Any] = {"hardware": hardware()}
    found["network"] = {
        name: network_alone(name, method, to_pixels(pictures)) for name, (method, pictures) in networks.items()
    }
    found["evaluation"] = evaluation(model.method, model.facts, images)
    with tempfile.TemporaryDirectory() as folder:
        platformdirs.user_cache_path = lambda *_: Path(folder) / "cache"  # type: ignore[assignment]
        path = larger_slide(args.slide, args.copies, Path(folder) / "slide.tif")
        found["slide"] = slide_from_start_to_end(model.method, args.run, path, Path(folder))
    finish("inference", found, args.json)


if __name__ == "__main__":
    main()
