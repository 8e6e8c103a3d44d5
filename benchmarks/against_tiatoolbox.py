"""Compare segmenting a slide with the engine of TIAToolbox, on the same network, slide and tiles; and both defaults.

    python -m venv TIA && TIA/bin/pip install tiatoolbox
    python benchmarks/against_tiatoolbox.py --tia TIA/bin/python [--json OUT] [--side 4096] [--rounds 2]

TIAToolbox needs other versions of libraries, and therefore an environment of its own. Each run is a process of its own;
both sides take turns, and seconds are printed as wall / processor, because beside other work only processor seconds can
be compared. The slide repeats a piece of the bundled one, all of it tissue, and both sides analyse every tile.

* engine: the bundled PBIP model, tiles of 112 pixels every 80, in float32, with batches of the same size. Ours is
  measured with torch alone and with OpenVINO, from opening the slide to labels, areas and picture; theirs is
  ``SemanticSegmentor.run`` to its probabilities and labels. The network is given to it as TorchScript, and its output
  has the resolution of the tile, which that engine requires. The share of cells with the same class is printed. *Our
  windows* are the larger ones in which ours sees a slide by default.
* default: ours as it is installed, on a smaller slide, against their ``fcn_resnet50_unet-bcss`` (its architecture with
  random weights, its resolution and its windows), which one gets from ``SemanticSegmentor`` without further choice.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

MPP = 0.5
STRIDE_OVERLAP = 32
BATCH = 16
CLASSES_OF_THEIRS = 5


def measured(work: Any) -> tuple[float, float, Any]:
    """Return the wall and processor seconds of some work, and what it returns."""
    wall, processor = time.perf_counter(), time.process_time()
    value = work()
    return time.perf_counter() - wall, time.process_time() - processor, value


# their side, in their environment --------------------------------------------------------------------------------


def theirs(job: dict[str, Any]) -> dict[str, Any]:
    """Segment with TIAToolbox; write the class of each pixel of its result."""
    import torch
    import torch.nn.functional as F
    import zarr
    from tiatoolbox import __version__
    from tiatoolbox.models.architecture.unet import UNetModel
    from tiatoolbox.models.engine.io_config import IOSegmentorConfig
    from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor
    from tiatoolbox.models.models_abc import ModelABC

    class Traced(ModelABC):  # type: ignore[misc]
        """Our network as a model of TIAToolbox."""

        def __init__(self) -> None:
            super().__init__()
            self.network = torch.jit.load(job["network"])

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.network(images)[0]

        @staticmethod
        def infer_batch(model: Any, batch_data: torch.Tensor, *, device: str) -> np.ndarray:
            images = batch_data.to(device).permute(0, 3, 1, 2).float() / 255
            with torch.inference_mode():
                maps = F.interpolate(model(images), images.shape[-2:], mode="bilinear", align_corners=False)
                return maps.softmax(1).permute(0, 2, 3, 1).numpy()

        def postproc(self, image: np.ndarray) -> np.ndarray:
            return image.argmax(-1)

    if job["network"]:
        model, side, stride, mpp = Traced(), [job["tile"]] * 2, [job["stride"]] * 2, MPP
        output = side
    else:
        model = UNetModel(3, CLASSES_OF_THEIRS, encoder="resnet50", decoder_block=[3, 3])
        side, output, stride, mpp = [1024, 1024], [512, 512], [450, 450], 0.25
    resolution = [{"units": "mpp", "resolution": mpp}]
    config = IOSegmentorConfig(
        input_resolutions=resolution,
        output_resolutions=resolution,
        patch_input_shape=side,
        patch_output_shape=output,
        stride_shape=stride,
        save_resolution=resolution[0],
    )
    patches = 0
    infer = model.infer_batch

    def counted(*given: Any, **options: Any) -> np.ndarray:
        nonlocal patches
        found: np.ndarray = infer(*given, **options)
        patches += len(found)
        return found

    model.infer_batch = counted

    def work() -> dict[Any, Path]:
        engine = SemanticSegmentor(model, batch_size=job["batch"], num_workers=0, device="cpu", verbose=False)
        return engine.run(
            [Path(job["slide"])],
            patch_mode=False,
            ioconfig=config,
            auto_get_mask=False,
            save_dir=Path(job["out"]),
            output_type="zarr",
            overwrite=True,
        )

    wall, processor, saved = measured(work)
    [path] = saved.values()
    group = zarr.open(path, mode="r")
    np.save(job["labels"], np.asarray(group["predictions"]).astype(np.uint8))
    return {"wall": wall, "processor": processor, "tiles": patches, "version": __version__}


# our side --------------------------------------------------------------------------------------------------------


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """Segment with this package; write the class with the largest score of each cell."""
    from unittest import mock

    from napari_pbip.config import SegmentSettings
    from napari_pbip.engine import openvino_network
    from napari_pbip.engine.inference.segment import segment
    from napari_pbip.results import ScoreStore
    from napari_pbip.results.places import stores_in

    settings = SegmentSettings(device="cpu", tissue_mask=job["mask"], min_tissue=0, **job["settings"])
    installed = openvino_network.installed() if job["openvino"] else None
    with mock.patch.object(openvino_network, "installed", return_value=installed):
        wall, processor, events = measured(lambda: list(segment(job["slide"], job["run"], job["out"], settings)))
    [path] = stores_in(Path(job["out"]))
    store = ScoreStore.open(path)
    np.save(job["labels"], store.read_scores(0, slice(None), slice(None)).argmax(0).astype(np.uint8))
    computed = store.facts.computed or {}
    return {
        "wall": wall,
        "processor": processor,
        "tiles": events[-1].summary["tiles"],
        "computed": f"{computed.get('runtime')} {computed.get('precision')}",
    }


# both ------------------------------------------------------------------------------------------------------------


def run(python: str, side: str, job: dict[str, Any]) -> dict[str, Any]:
    """Run one side in a process of its own."""
    done = subprocess.run(
        [python, __file__, "--side-of", side, json.dumps(job)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"  {side}: {found}", flush=True)
    return found


def write_slide(path: Path, side: int) -> None:
    """Write a slide that repeats a piece of the bundled one: tiled TIFF, JPEG."""
    import tifffile

    from napari_pbip import samples
    from napari_pbip.slides import open_slide
    from scale import PIECE

    left, top, length = PIECE
    with open_slide(samples.slide()) as source:
        piece = source.read_level(0, left, top, length, length)
    times = -(-side // length)
    tifffile.imwrite(
        path,
        np.tile(piece, (times, times, 1))[:side, :side],
        tile=(256, 256),
        compression="jpeg",
        photometric="rgb",
        resolution=(1e4 / MPP, 1e4 / MPP),
        resolutionunit="CENTIMETER",
    )


def trace(path: Path, run_folder: Path) -> int:
    """Write the network of a run as TorchScript, maps and presence of images; return the side of its tiles."""
    import torch

    from napari_pbip.engine.inference.predict import fused_scores
    from napari_pbip.engine.network import _Function
    from napari_pbip.engine.runs import load_model
    from napari_pbip.models.folding import fold_batch_norms

    model = load_model(run_folder)
    side = model.facts.tile_size
    example = torch.rand(2, 3, side, side)
    with torch.no_grad():
        folded = fold_batch_norms(_Function(model.method, fused_scores).eval(), example, _Function.forward)
        torch.jit.trace(folded, example).save(path)
    return side


def ratios(name: str, mine: list[dict[str, Any]], other: list[dict[str, Any]]) -> dict[str, Any]:
    """Return their seconds a tile of the slide over ours, of the best runs of both."""
    found = {
        f"theirs over ours, {what}": min(one[what] for one in other) / min(one[what] for one in mine)
        for what in ("wall", "processor")
    }
    print(f"{name}: {found}", flush=True)
    return found


def numbered(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the runs of each side by their number."""
    return {name: {str(number): one for number, one in enumerate(some)} for name, some in runs.items()}


def main() -> None:
    """Measure both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tia", help="Python of an environment with TIAToolbox")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", type=int, default=4096, help="of the slide, pixels")
    parser.add_argument("--default-side", type=int, default=1024, help="of the slide for the defaults")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--parts", nargs="+", default=["engine", "default"])
    parser.add_argument("--side-of", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side_of:
        side, job = args.side_of
        print(json.dumps({"ours": ours, "theirs": theirs}[side](json.loads(job))))
        return
    there = args.tia and subprocess.run([args.tia, "-c", "import tiatoolbox"], capture_output=True, check=False)
    if not there or there.returncode:
        sys.exit(
            "TIAToolbox is missing: python -m venv TIA && TIA/bin/pip install tiatoolbox, then --tia TIA/bin/python"
        )
    from PIL import Image

    from pbip_alone import pbip_alone
    from report import finish, hardware

    found: dict[str, Any] = {"hardware": hardware()}
    with tempfile.TemporaryDirectory() as scratch:
        folder, run_folder = Path(scratch), pbip_alone()

        def jobs(side: int, network: bool) -> dict[str, dict[str, Any]]:
            """Return the jobs of all sides for a slide."""
            slide, mask, traced = folder / f"{side}.tif", folder / f"{side}.png", folder / "network.pt"
            write_slide(slide, side)
            Image.new("1", (64, 64), 1).save(mask)
            tile = trace(traced, run_folder)
            shared = {"slide": str(slide), "run": str(run_folder), "mask": str(mask)}
            of_theirs = {"network": str(traced) if network else "", "tile": tile, "stride": tile - STRIDE_OVERLAP}
            settings = {"precision": "float32", "batch_size": BATCH} if network else {}
            same = {**settings, "tile": tile} if network else {}
            made = {
                "theirs": shared | of_theirs | {"batch": BATCH if network else 8},
                "torch": shared | {"settings": same, "openvino": False},
                "openvino": shared | {"settings": same, "openvino": True},
                "torch, our windows": shared | {"settings": settings, "openvino": False},
                "openvino, our windows": shared | {"settings": settings, "openvino": True},
            }
            for name, job in made.items():
                job |= {"out": str(folder / f"{side} {name}"), "labels": str(folder / f"{side} {name}.npy")}
            return made

        def rounds(made: dict[str, dict[str, Any]], names: list[str]) -> dict[str, list[dict[str, Any]]]:
            """Run the sides in turn."""
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
            for number in range(args.rounds):
                for name in names:
                    job = made[name] | {"out": f"{made[name]['out']} {number}"}
                    mine = name != "theirs"
                    runs[name].append(run(sys.executable if mine else args.tia, "ours" if mine else "theirs", job))
            return runs

        if "engine" in args.parts:
            made = jobs(args.side, network=True)
            runs = rounds(made, ["torch", "theirs", "openvino", "torch, our windows", "openvino, our windows"])
            labels = {name: np.load(job["labels"]) for name, job in made.items()}
            cell = args.side // labels["torch"].shape[0]
            middle = labels["theirs"][cell // 2 :: cell, cell // 2 :: cell]
            found["engine"] = {"tiles": {name: one[-1]["tiles"] for name, one in runs.items()}}
            for name in (name for name in made if name != "theirs"):
                same = labels[name][: middle.shape[0], : middle.shape[1]] == middle
                found["engine"][name] = ratios(name, runs[name], runs["theirs"]) | {
                    "computed": runs[name][0]["computed"],
                    "cells with the same class": float(same.mean()),
                }
            found["engine"]["runs"] = numbered(runs)
        if "default" in args.parts:
            runs = rounds(jobs(args.default_side, network=False), ["openvino", "theirs"])
            found["default"] = ratios("default", runs["openvino"], runs["theirs"])
            found["default"]["computed"] = runs["openvino"][0]["computed"]
            found["default"]["runs"] = {
                name: {str(n): one for n, one in enumerate(some)} for name, some in runs.items()
            }
    finish("against_tiatoolbox", found, args.json)


if __name__ == "__main__":
    main()
