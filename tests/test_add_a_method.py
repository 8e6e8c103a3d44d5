"""docs/how-to/add-a-method.md, followed word by word in a copy of the package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from napari_pbip import samples
from napari_pbip.bank.mosaics import write_masked, write_training
from tests.test_readme import ROOT, blocks

PAGE = ROOT / "docs" / "how-to" / "add-a-method.md"
LIST = "| CamSettings,"


def test_a_new_method_is_one_module_one_class_and_its_name(tmp_path: Path) -> None:
    package = tmp_path / "src" / "napari_pbip"
    shutil.copytree(ROOT / "src" / "napari_pbip", package, ignore=shutil.ignore_patterns("__pycache__"))
    page = PAGE.read_text(encoding="utf-8")
    module, settings, call = blocks(PAGE)
    assert "`src/napari_pbip/models/methods/lse.py`" in page
    (package / "models" / "methods" / "lse.py").write_text(module.text, encoding="utf-8")
    methods = package / "config" / "methods.py"
    text = methods.read_text(encoding="utf-8")
    assert "` | LseSettings` behind `CamSettings`" in page
    assert text.count(LIST) == text.count("\nAnyMethod = ") == 1
    text = text.replace(LIST, "| CamSettings | LseSettings,")
    text = text.replace("\nAnyMethod = ", f"\n{settings.text}\n\nAnyMethod = ")
    methods.write_text(text, encoding="utf-8")

    _make_tiles(tmp_path / "tiles")
    program, *arguments = call.text.split()
    assert program == "napari-pbip"
    quick = ["--set", "train.steps=2", "--set", "train.batch_size=4"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    done = subprocess.run(
        [sys.executable, "-m", "napari_pbip", *arguments, *quick],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["settings"]["method"] == {
        "name": "lse",
        "sharpness": 8,
        "stage_weights": [0.0, 0.1, 1.0, 1.0],
        "fusion_weights": [0.0, 0.3, 0.3, 0.4],
        "synthesis": 0.0,
    }
    assert facts["step"] == 2


def _make_tiles(folder: Path) -> None:
    tiles = {
        name: [np.asarray(Image.open(path).convert("RGB")) for path in sorted((samples.tiles() / name).iterdir())]
        for name in ("LYM", "MUS")
    }
    rng = np.random.default_rng(0)
    write_training(folder, {name: some[:3] for name, some in tiles.items()}, 8, 64, rng)
    write_masked(folder, "val", {name: some[3:] for name, some in tiles.items()}, 2, 64, rng)
