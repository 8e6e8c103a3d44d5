"""The demo: training, evaluation and segmentation on bundled real tissue, by the calls that a user would make.

Skin, with a map: 33 tiles of a real slide are labelled with epidermis, dermis and keratin, by the authors, who are not
pathologists. A linear probe is fitted to them in seconds, for a first map of the whole slide; then PBIP is trained on
the same tiles, for a better one. There is no mask to evaluate these maps with.

Colon, with metrics: images with image-level labels are composed of colorectal tiles (three classes; real pixels,
artificial borders). PBIP is trained on them, and evaluated on images composed of *other* tiles, whose masks are known.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from napari_pbip import samples
from napari_pbip.bank.mosaics import Tile, write_masked, write_training
from napari_pbip.claims import claims
from napari_pbip.config import JobSettings, ProbeSettings
from napari_pbip.engine.banks.cut_tiles import cut_tiles
from napari_pbip.engine.inference.evaluate import evaluate
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.jobs import job, phase
from napari_pbip.engine.sample_project import sample_labels, sample_settings
from napari_pbip.engine.training.train import train
from napari_pbip.events import Event, Finished, Job, Noted
from napari_pbip.files import prepare_folder, write_json, writing

CLASSES = ("LYM", "MUS", "TUM")
_HELD_OUT = 2
"""Tiles of each class, out of five, that are used only for the images of the evaluation."""
_TRAINING_IMAGES = 240
_SCORED_IMAGES = 40
_SCORED_SIDE = 160
_ENOUGH_SECONDS = 30
"""Expected seconds of finished stages that suffice to estimate the speed of the machine."""


@dataclass(frozen=True, slots=True)
class _Form:
    """The duration and settings of the demo's trainings."""

    side: int
    """Side of the training images of colon in pixels."""
    colon: Mapping[str, Any]
    """Settings of the training on colon."""
    skin: Mapping[str, Any]
    """Settings of the training on skin that differ from the defaults."""
    seconds: dict[str, int]
    """Seconds of each stage on two cores with AVX2 and without bfloat16."""


_COLON = {"warmup": 10, "stain_augmentation": 0.2}
_SHORT = _Form(
    side=112,
    colon={"steps": 90, "batch_size": 8, **_COLON},
    skin={"steps": 60},
    seconds={
        "Cutting tiles of skin": 1,
        "Fitting a probe on skin": 5,
        "First map of the slide of skin": 12,
        "Training on skin": 60,
        "Mapping the slide of skin": 8,
        "Composing images of colon": 3,
        "Training on colon": 70,
        "Scoring on colon": 3,
    },
)
_FULL = _Form(
    side=160,
    colon={"epochs": 12, "batch_size": 16, **_COLON},
    skin={},
    seconds=_SHORT.seconds | {"Training on colon": 640, "Training on skin": 210},
)


@job
@claims("out", "the demo")
def demo(out: Path, *, full: bool = False, overwrite: bool = False) -> Job:
    """Segment the bundled slide with a probe and with PBIP; train and evaluate PBIP on bundled colorectal tiles.

    Writes ``skin/`` (``tiles/``, ``probe/``, ``first-result/``, ``run/``, ``result/``), ``colon/`` (``data/``,
    ``run/``), ``first-map.png``, ``overlay.png`` and ``report.json`` into ``out``. Each stage is announced by a
    :class:`~napari_pbip.events.Noted` as it begins.

    Parameters
    ----------
    out
        Folder of the results.
    full
        Whether to train longer and on larger images of colon, and for the default time on skin; takes about five times
        as long.
    overwrite
        Whether an earlier demo is replaced.

    Raises
    ------
    OutputError
        If ``out`` exists and must not be replaced, or cannot be written.
    """
    prepare_folder(out, "report.json", overwrite=overwrite)
    # written first, so that an interrupted demo can be recognised and replaced
    write_json(out / "report.json", {"finished": False})
    form = _FULL if full else _SHORT
    stages = _Stages(form.seconds)
    colon, skin = out / "colon", out / "skin"
    yield stages.begin("Cutting tiles of skin")
    yield from phase(cut_tiles(sample_labels(), skin / "tiles"))
    settings = sample_settings(skin / "tiles")
    settings = settings.model_copy(update={"train": settings.train.model_copy(update=form.skin)})
    yield stages.begin("Fitting a probe on skin")
    yield from phase(train(settings.model_copy(update={"method": ProbeSettings()}), skin / "probe"))
    yield stages.begin("First map of the slide of skin")
    yield from _map(skin / "probe", settings, skin / "first-result", out / "first-map.png")
    yield stages.begin("Training on skin")
    yield from phase(train(settings, skin / "run"))
    yield stages.begin("Mapping the slide of skin")
    result = yield from _map(skin / "run", settings, skin / "result", out / "overlay.png")
    yield stages.begin("Composing images of colon")
    _compose(colon / "data", form.side)
    yield stages.begin("Training on colon")
    settings = JobSettings.parse({"data": {"folder": colon / "data", "mpp": 0.5}, "train": dict(form.colon)})
    yield from phase(train(settings, colon / "run"))
    yield stages.begin("Scoring on colon")
    scores = yield from phase(evaluate(colon / "run", settings.data, "test"))
    protocols = scores["protocols"]
    report = {
        "finished": True,
        "shows": " ".join((__doc__ or "").split()),
        "full": full,
        "classes": list(CLASSES),
        "miou": round(protocols["predicted"]["miou"], 2),
        "protocols": protocols,
        "areas": result["areas"],
        "seconds": stages.end(),
        "first_map": str(out / "first-map.png"),
        "overlay": str(out / "overlay.png"),
        "data": "tiles: NCT-CRC-HE-100K and CRC-VAL-HE-7K, Kather et al., CC BY 4.0; slide: OpenSlide test data, CC0",
    }
    write_json(out / "report.json", report)
    yield Finished(out, report)


def _map(run: Path, settings: JobSettings, result: Path, picture: Path) -> Generator[Event, None, Mapping[str, Any]]:
    """Segment the slide of skin, and copy the overlay to ``picture``; returns the summary."""
    summary = yield from phase(segment(samples.slide(), run, result, settings.segment, settings.thresholds))
    with writing(picture) as temporary:
        temporary.write_bytes((result / "overlay.png").read_bytes())
    return summary


class _Stages:
    """Announces the stages of the demo with the time that they will take on this machine, and measures them."""

    def __init__(self, expected: Mapping[str, int]) -> None:
        self._expected = expected
        self._seconds: dict[str, float] = {}
        self._stage: str | None = None
        self._began = time.monotonic()

    def begin(self, stage: str) -> Noted:
        """End the present stage, if there is one, and start this one."""
        self._lap()
        # the speed of this machine is estimated from the first stages
        before = sum(self._expected[finished] for finished in self._seconds)
        pace = sum(self._seconds.values()) / before if before >= _ENOUGH_SECONDS else 1.0
        seconds = max(1, round(self._expected[stage] * pace))
        self._stage = stage
        place = list(self._expected).index(stage) + 1
        return Noted(f"{stage}, stage {place} of {len(self._expected)}: about {seconds} s.")

    def end(self) -> dict[str, float]:
        """Return the seconds of each stage, and of all."""
        self._lap()
        return {**self._seconds, "total": round(sum(self._seconds.values()), 1)}

    def _lap(self) -> None:
        now = time.monotonic()
        if self._stage is not None:
            self._seconds[self._stage] = round(now - self._began, 1)
        self._stage, self._began = None, now


def _compose(folder: Path, side: int) -> None:
    rng = np.random.default_rng(0)
    learned = {name: list(_tiles(name))[_HELD_OUT:] for name in CLASSES}
    held_out = {name: list(_tiles(name))[:_HELD_OUT] for name in CLASSES}
    write_training(folder, learned, _TRAINING_IMAGES, side, rng)
    # from another random generator, so that both forms of the demo are evaluated on the same images
    write_masked(folder, "test", held_out, _SCORED_IMAGES, _SCORED_SIDE, np.random.default_rng(1))


def _tiles(name: str) -> Iterator[Tile]:
    for path in sorted((samples.tiles() / name).iterdir()):
        with Image.open(path) as image:
            yield np.asarray(image.convert("RGB"))
