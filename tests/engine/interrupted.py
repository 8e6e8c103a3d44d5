"""A program that trains and pre-trains while it gets signals. It is a separate process, since the signals are real."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from napari_pbip.config import PretrainSettings
from napari_pbip.engine.training import pretrain as pretraining_job
from napari_pbip.engine.training.pretrain import pretrain
from napari_pbip.engine.training.train import train
from napari_pbip.events import Finished, Job, Step
from napari_pbip.signals import Stopped, answer_signals
from tests.engine.conftest import settings_for


def sit(job: Job, stops: list[signal.Signals], after: float) -> bool:
    """Run a job until signals stop it, some time after its first step and at its third; return whether it finished."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    answer_signals()
    stepped, late, over = threading.Event(), threading.Event(), threading.Event()

    def stop() -> None:
        stepped.wait()
        late.wait(after)  # the machine may have become faster
        if not over.is_set():
            for number in stops:
                os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop)
    thread.start()
    finished, steps = False, 0
    try:
        try:
            for event in job:
                if isinstance(event, Step) and "loss" in event.values:
                    stepped.set()
                    steps += 1
                    if steps == 3:
                        late.set()
                finished = finished or isinstance(event, Finished)
        finally:
            for one in (over, stepped, late):
                one.set()
            thread.join()
        time.sleep(0.01)  # one that came with the end is answered here
    except (KeyboardInterrupt, Stopped):
        job.close()
    return finished


def main(kind: str, work: Path, source: Path, sittings: Any) -> None:
    """Run a job as a whole, and again with interruptions.

    Args:
        kind: ``train`` or ``pretrain``.
        work: Where the runs are written.
        source: The folder of the tiles, or a slide.
        sittings: A shared number, which counts how often the interrupted job was started.
    """
    make: Callable[[Path, bool], Job]
    if kind == "train":
        settings = settings_for(source, train={"steps": 6, "batch_size": 6, "validate_every": 1})
        make = lambda out, resume: train(settings, out, resume=resume)  # noqa: E731
    else:
        pretraining_job._TILE = 96  # the encoder is fitted in a second
        values = {"steps": 6, "batch_size": 3, "crop": 64, "encoder_tiles": 16, "precision": "float32"}
        pretraining = PretrainSettings.parse({"images": (source,), "device": "cpu", **values})
        make = lambda out, resume: pretrain(pretraining, out, resume=resume)  # noqa: E731
    torch.set_num_threads(1)
    ends = [time.monotonic() for e in make(work / "whole", False) if isinstance(e, Step) and "loss" in e.values]
    step_seconds = (ends[-1] - ends[0]) / len(ends)
    rng = random.Random(0)
    both = [signal.SIGINT, signal.SIGTERM]
    while True:
        stops = [both[:1], both[1:], both][sittings.value % 3]
        resume = (work / "parts").exists()
        sittings.value += 1
        if sit(make(work / "parts", resume), stops, rng.uniform(0, 1.5 * step_seconds)):
            break
