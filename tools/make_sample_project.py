"""Make the image bank and the model of the bundled project from its labels.

    python tools/make_sample_project.py

It reads ``samples/skin/labels.json`` and the bundled slide, and writes ``bank/`` and ``model/`` beside the labels.
Paths of tiles become relative, weights are stored in half precision. It takes minutes on two processor cores.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save

from napari_pbip import samples
from napari_pbip.bank import ImageBank, load_single_tiles
from napari_pbip.bank.features import FEATURES
from napari_pbip.engine.banks.build_bank import build_bank
from napari_pbip.engine.banks.cut_tiles import cut_tiles
from napari_pbip.engine.sample_project import sample_labels, sample_settings
from napari_pbip.engine.training.train import train
from napari_pbip.events import Job, Step


def run(job: Job) -> None:
    """Run a job to its end and show its progress."""
    for event in job:
        if not isinstance(event, Step) or event.done % 20 == 0:
            print(event, flush=True)


def main() -> None:
    """Make the bank and the model."""
    shipped = samples.project()
    labelled = sample_labels()
    for part in ("bank", "model"):
        shutil.rmtree(shipped / part, ignore_errors=True)
        (shipped / part).mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        tiles, bank, model = (Path(scratch) / part for part in ("tiles", "bank", "model"))
        run(cut_tiles(labelled, tiles))
        settings = sample_settings(tiles).model_copy(update={"bank_folder": bank})
        run(build_bank(load_single_tiles(tiles, settings.data), bank, settings.bank, settings.data))
        run(train(settings, model))
        document = json.loads((bank / "bank.json").read_text(encoding="utf-8"))
        for tile in document["tiles"]:
            tile["path"] = Path(tile["path"]).relative_to(tiles).as_posix()
        (shipped / "bank" / "bank.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        for name in (FEATURES, "prototypes.safetensors"):
            shutil.copyfile(bank / name, shipped / "bank" / name)
        weights = load_file(model / "best.safetensors")
        half = {n: w.half() if w.is_floating_point() and ".running_" not in n else w for n, w in weights.items()}
        (shipped / "model" / "best.safetensors").write_bytes(save(half))
        facts = json.loads((model / "run.json").read_text(encoding="utf-8"))
        facts["settings"]["data"]["folder"] = facts["settings"]["bank_folder"] = None
        del facts["fit"]["worst"]  # which names folders of this machine
        del facts["seconds"]  # which says nothing about that of a user
        (shipped / "model" / "run.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    ImageBank.read(shipped / "bank")


if __name__ == "__main__":
    main()
