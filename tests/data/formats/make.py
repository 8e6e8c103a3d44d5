"""Make the files of this folder: ``python -m tests.data.formats.make FOLDER`` in a checkout of the version to keep.

Each tensor of the weights has a single value, so that they compress well; the tests only check that they load.
Paths of the machine become ``/data``.
"""

from __future__ import annotations

import lzma
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from napari_pbip import samples
from napari_pbip.bank import load_single_tiles
from napari_pbip.bank.labelled_slides import LabelledSlides
from napari_pbip.bank.mosaics import write_masked, write_training
from napari_pbip.config import JobSettings, PretrainSettings, SegmentSettings, ThresholdSettings, TissueSettings
from napari_pbip.engine.banks.build_bank import build_bank
from napari_pbip.engine.compare import compare
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.inference.tissue import outline_tissue
from napari_pbip.engine.training.pretrain import pretrain
from napari_pbip.engine.training.train import train
from napari_pbip.slides import SlideFacts, TileSize, open_slide, save_mpp
from napari_pbip.taxonomy import Taxonomy

TEXT = {".json", ".yaml", ".csv", ".txt"}


def weak_data(folder: Path) -> None:
    """Make the data of the fixture with this name in ``tests/engine/conftest.py``."""
    tiles = {
        name: [np.asarray(Image.open(path).convert("RGB")) for path in sorted((samples.tiles() / name).iterdir())]
        for name in ("LYM", "MUS")
    }
    rng = np.random.default_rng(0)
    write_training(folder, {name: some[:3] for name, some in tiles.items()}, 24, 64, rng)
    write_masked(folder, "val", {name: some[3:4] for name, some in tiles.items()}, 4, 64, rng)
    write_masked(folder, "test", {name: some[4:] for name, some in tiles.items()}, 6, 64, rng)


def values(data: Path, mpp: float) -> dict[str, Any]:
    return {
        "data": {"folder": str(data), "mpp": mpp},
        "bank": {"encoder": "tiny", "k": 2},
        "method": {"name": "cam"},
        "train": {"steps": 2, "batch_size": 8, "learning_rate": 5e-4, "precision": "float32", "device": "cpu"},
    }


def flatten(path: Path) -> None:
    """Replace each tensor by its mean, and compress the file."""
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    for tensor in tensors.values():
        if tensor.is_floating_point():
            tensor.fill_(float(tensor.double().mean()))
    save_file(tensors, path, facts)
    path.with_name(f"{path.name}.xz").write_bytes(lzma.compress(path.read_bytes()))
    path.unlink()


def make(out: Path) -> None:
    work = Path(tempfile.mkdtemp())
    data, slide = work / "weak", samples.slide()
    weak_data(data)
    settings = JobSettings.parse(values(data, 8.0))
    (out / "settings").mkdir(parents=True)
    settings.write(out / "settings" / "job.yaml")

    shutil.copytree(samples.tiles() / "LYM", work / "tiles" / "LYM")
    shutil.copytree(samples.tiles() / "MUS", work / "tiles" / "MUS")
    tiles = load_single_tiles(work / "tiles", settings.data)
    list(build_bank(tiles, out / "bank", settings.bank, settings.data))

    list(train(settings, out / "run"))
    reading = SegmentSettings(precision="float32", device="cpu", overlap=16, batch_size=8)
    result = out / "project" / "results" / "CMU-1-Small-Region"
    list(segment(slide, out / "run", result, reading, ThresholdSettings()))
    (result / "overlay.png").unlink()  # a picture; nothing reads it
    list(outline_tissue(slide, TissueSettings(), result / "tissue.png"))

    with open_slide(slide) as opened:
        facts = SlideFacts(
            identity=opened.identity,
            name=opened.name,
            path=slide,
            mpp=opened.require_mpp(),
            width=opened.width,
            height=opened.height,
        )
    given = {(1, 2): frozenset({0}), (2, 2): frozenset({0, 1}), (3, 5): frozenset({1})}
    labelled = LabelledSlides(Taxonomy.from_names(["tumour", "stroma"]), TileSize(), (facts,), (given,))
    labelled.write(out / "project" / "tiles")
    labelled.write_tables(out / "project" / "tiles")

    (out / "sidecar").mkdir()
    save_mpp(out / "sidecar" / "slide.tif", 0.25)

    small = {"steps": 2, "batch_size": 3, "crop": 64, "encoder_tiles": 32, "precision": "float32", "device": "cpu"}
    list(pretrain(PretrainSettings.parse({"images": (slide,), **small}), out / "pretrained"))

    compared = values(data, 0.5)
    del compared["method"]
    compared["compare"] = {"axes": {"method": {"CAM": {"method": {"name": "cam"}}}}, "seeds": [3], "pictures": 1}
    list(compare(compared, out / "comparison"))
    for path in (out / "comparison").rglob("*.safetensors"):
        path.unlink()  # what is scored already needs none
    (out / "comparison" / "report.html").unlink()

    for path in sorted(out.rglob("*.safetensors")):
        if path.parent.name != "bank":
            flatten(path)
    for path in sorted(out.rglob("*")):
        if path.is_file() and path.suffix in TEXT:
            text = path.read_text(encoding="utf-8")
            for place in (str(work), str(out), str(slide.parent), str(samples.tiles())):
                text = text.replace(place, "/data")
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute())
