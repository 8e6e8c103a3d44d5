"""A program that does the jobs of the package on a device that is not there, and on the processor.

An exit code of 0 means that nothing was computed on two devices at once, that the results are the same up to rounding,
and that the processor does not wait more often than it must.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_pbip import samples
from napari_pbip.config import DataSettings, PretrainSettings, RefineSettings, SegmentSettings
from napari_pbip.engine.inference.evaluate import evaluate
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.training import pretrain as pretraining_job
from napari_pbip.engine.training.pretrain import pretrain
from napari_pbip.engine.training.train import train
from napari_pbip.events import Finished, Job, Step
from napari_pbip.results import ScoreStore
from napari_pbip.results.places import stores_in
from napari_pbip.slides import Slide, open_slide
from tests.engine.conftest import settings_for
from tests.engine.pretended_device import DEVICE, fetched

METHODS: tuple[dict[str, Any], ...] = (
    {"name": "pbip"},
    {"name": "lpd", "k": 2},
    {"name": "construct"},
    {"name": "probe"},
)
ENCODER = "efficientnet-lite0"
STEPS = 1


def finished(job: Job) -> tuple[Mapping[str, Any], list[Mapping[str, float]], list[int]]:
    """Run a job; return its summary, the values of its steps, and how often the processor waited in each of them."""
    values: list[Mapping[str, float]] = []
    waits: list[int] = []
    summary: Mapping[str, Any] = {}
    fetched.clear()
    for event in job:
        if isinstance(event, Step):
            if "loss" in event.values:
                values.append(event.values)
                waits.append(len(fetched))
            fetched.clear()
        elif isinstance(event, Finished):
            summary = event.summary
    return summary, values, waits


def train_methods(data: Path, out: Path) -> None:
    """Train each method for a step, with a validation; evaluate the first."""
    for method in METHODS:
        train_method(method, data, out)
    found = []
    for device in ("cpu", str(DEVICE)):
        run = out / f"pbip {device}".replace(":", " ")
        refine = RefineSettings(crf=True)
        scores, _, _ = finished(evaluate(run, DataSettings(folder=data), "val", device=device, refine=refine))
        found.append(scores["protocols"]["predicted"]["miou"])
    np.testing.assert_allclose(found[1], found[0], atol=1)


def train_method(method: dict[str, Any], data: Path, out: Path) -> None:
    """Train a method for a step, with a validation."""
    found = []
    for device in ("cpu", str(DEVICE)):
        run = out / f"{method['name']} {device}".replace(":", " ")
        changes = {"train": {"steps": STEPS, "batch_size": 4, "device": device}}
        settings = settings_for(data, method=method, bank={"encoder": ENCODER}, **changes)
        _, losses, waits = finished(train(settings, run))
        assert method["name"] == "probe" or len(losses) == STEPS
        found.append(losses)
        if device != "cpu":
            # for the loss with its terms, the norm of the weights, and what the contrast selects
            assert max(waits, default=0) <= 4, waits
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-3, atol=1e-4)


def segment_piece(out: Path) -> None:
    """Segment a piece of the bundled slide."""
    with open_slide(samples.slide()) as slide:
        pixels = slide.read_level(0, 600, 600, 500, 300)
    found = []
    for device in ("cpu", str(DEVICE)):
        settings = SegmentSettings(device=device, precision="float32", batch_size=4)
        piece = Slide.from_array(pixels, 0.5, "piece")
        folder = out / f"map {device}".replace(":", " ")
        fetched.clear()
        job = segment(piece, samples.project() / "model", folder, settings, refine=RefineSettings(tta=True))
        steps = sum(isinstance(event, Step) for event in job)
        [store] = stores_in(folder)
        found.append(ScoreStore.open(store).read_scores(0, slice(None), slice(None)))
        if device != "cpu":
            assert len(fetched) <= 2 * steps + 4, (steps, fetched)  # scores and presence of each batch
    assert np.isfinite(found[0]).any()
    np.testing.assert_allclose(found[1], found[0], atol=1e-3)


def pretrain_backbone(out: Path) -> None:
    """Pre-train a backbone for a step, and fit its encoder."""
    pretraining_job._TILE = 96
    small = {"steps": STEPS, "batch_size": 3, "crop": 64, "encoder_tiles": 16, "precision": "float32"}
    found = []
    for device in ("cpu", str(DEVICE)):
        settings = PretrainSettings.parse({"images": [samples.slide()], "device": device, **small})
        _, losses, _ = finished(pretrain(settings, out / f"pretrained {device}".replace(":", " ")))
        found.append([values["loss"] for values in losses])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3)


if __name__ == "__main__":
    work = Path(sys.argv[2])
    train_methods(Path(sys.argv[1]), work)
    segment_piece(work)
    pretrain_backbone(work)
