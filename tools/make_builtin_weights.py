"""Make the weights that come with the package anew: pre-train on the slides that come with it.

    python tools/make_builtin_weights.py OUT [--steps 4000] [--resume]

OUT keeps what resuming needs. The finished weights go to ``src/napari_pbip/models/builtin``, beside the model card;
``pretrain.json`` there says how they were made. An hour on one processor core.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from napari_pbip import samples
from napari_pbip.config import PretrainSettings, TissueSettings
from napari_pbip.engine.training.pretrain import MARKER, MODEL, pretrain
from napari_pbip.events import Step
from napari_pbip.files import write_json
from napari_pbip.models import builtin
from napari_pbip.slides import save_mpp

SLIDES = {samples.slide(): None, samples.frozen_section(): 0.5, samples.tumour(): 1.0}
"""With the microns per pixel of those whose files do not say: by the size of their nuclei, within a factor of two.
That is good enough here, where crops differ by as much on purpose."""

TISSUE = TissueSettings(largest_hole_um=200)
"""What the weights in the package were taught on."""


def main() -> None:
    """Pre-train, and put the result into the package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    slides = options.out / "slides"
    slides.mkdir(parents=True, exist_ok=True)
    for slide, mpp in SLIDES.items():
        copy = Path(shutil.copy(slide, slides))
        if mpp is not None:
            save_mpp(copy, mpp)
    run = options.out / "run"
    settings = PretrainSettings(images=(slides,), steps=options.steps, tissue=TISSUE)
    for event in pretrain(settings, run, resume=options.resume):
        if not isinstance(event, Step) or event.done % 100 == 0:
            print(event, flush=True)
    shutil.copy(run / MODEL, builtin.WEIGHTS)
    facts = json.loads((run / MARKER).read_text())
    facts["settings"]["images"] = facts["learned_from"]["images"] = [slide.name for slide in SLIDES]
    write_json(builtin.WEIGHTS.with_name(MARKER), facts)


if __name__ == "__main__":
    main()
