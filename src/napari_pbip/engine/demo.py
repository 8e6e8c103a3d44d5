"""The main job on bundled real tissue, twice: the calls a user would make, one after the other.

Colon, with a score: weakly labelled images are composed of colorectal tiles (three classes; real pixels, artificial
borders), with image-level labels only. PBIP learns from them and is scored on images composed of *other* tiles, whose
exact masks are known.

Skin, with a map: 33 tiles of a real slide, named by the authors, who are no pathologists, teach PBIP what epidermis,
dermis and keratin look like; it maps the whole slide. There is no mask to score the map with, so look at it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from napari_pbip import samples
from napari_pbip.bank.mosaics import Tile, write_masked, write_training
from napari_pbip.claims import claims
from napari_pbip.config import JobSettings
from napari_pbip.engine.cut_tiles import cut_tiles
from napari_pbip.engine.evaluate import evaluate
from napari_pbip.engine.jobs import job, phase
from napari_pbip.engine.sample_project import sample_labels, sample_settings
from napari_pbip.engine.segment import segment
from napari_pbip.engine.train import train
from napari_pbip.events import Finished, Job
from napari_pbip.files import prepare_folder, write_json

CLASSES = ("LYM", "MUS", "TUM")
_HELD_OUT = 2
"""Tiles of each class, out of five, that only the scored images are composed of."""
_SIDE = 160
_TRAINING_IMAGES = 240
_SCORED_IMAGES = 40


@job
@claims("out", "the demo")
def demo(out: Path, *, overwrite: bool = False) -> Job:
    """Train PBIP on bundled colorectal tiles and score it, train it on tiles of the bundled slide and map that.

    Writes ``colon/`` (``data/``, ``run/``), ``skin/`` (``tiles/``, ``run/``, ``result/``), ``overlay.png`` and
    ``report.json`` into ``out``.

    Raises
    ------
    OutputError
        If ``out`` exists and may not be replaced, or cannot be written.
    """
    prepare_folder(out, "report.json", overwrite=overwrite)
    # written first, so that an interrupted demo can be recognised and replaced
    write_json(out / "report.json", {"finished": False})
    seconds: dict[str, float] = {}
    clock = time.monotonic()

    def lap(stage: str) -> None:
        nonlocal clock
        seconds[stage] = round(time.monotonic() - clock, 1)
        clock = time.monotonic()

    colon, skin = out / "colon", out / "skin"
    _compose(colon / "data")
    lap("compose images of colon")
    settings = _settings(colon / "data")
    yield from phase(train(settings, colon / "run"))
    lap("train on colon")
    scores = yield from phase(evaluate(colon / "run", settings.data, "test"))
    lap("score on colon")
    yield from phase(cut_tiles(sample_labels(), skin / "tiles"))
    lap("cut tiles of skin")
    settings = sample_settings(skin / "tiles")
    yield from phase(train(settings, skin / "run"))
    lap("train on skin")
    mapped = segment(samples.slide(), skin / "run", skin / "result", settings.segment, settings.thresholds)
    result = yield from phase(mapped)
    lap("map the slide of skin")
    (out / "overlay.png").write_bytes((skin / "result" / "overlay.png").read_bytes())
    protocols = scores["protocols"]
    report = {
        "finished": True,
        "shows": " ".join((__doc__ or "").split()),
        "classes": list(CLASSES),
        "miou": round(protocols["predicted"]["miou"], 2),
        "protocols": protocols,
        "areas": result["areas"],
        "seconds": {**seconds, "total": round(sum(seconds.values()), 1)},
        "overlay": str(out / "overlay.png"),
        "data": "tiles: NCT-CRC-HE-100K and CRC-VAL-HE-7K, Kather et al., CC BY 4.0; slide: OpenSlide test data, CC0",
    }
    write_json(out / "report.json", report)
    yield Finished(out, report)


def _compose(folder: Path) -> None:
    rng = np.random.default_rng(0)
    learned = {name: list(_tiles(name))[_HELD_OUT:] for name in CLASSES}
    held_out = {name: list(_tiles(name))[:_HELD_OUT] for name in CLASSES}
    write_training(folder, learned, _TRAINING_IMAGES, _SIDE, rng)
    write_masked(folder, "test", held_out, _SCORED_IMAGES, _SIDE, rng)


def _tiles(name: str) -> Iterator[Tile]:
    for path in sorted((samples.tiles() / name).iterdir()):
        with Image.open(path) as image:
            yield np.asarray(image.convert("RGB"))


def _settings(data: Path) -> JobSettings:
    return JobSettings.parse(
        {
            "data": {"folder": data, "mpp": 0.5},
            "method": {"name": "pbip"},
            "train": {"epochs": 12, "batch_size": 16, "warmup": 10, "stain_augmentation": 0.2},
        }
    )
