"""The script for Slurm of the documentation, with programs in the place of sbatch and srun that start it here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_pbip import samples
from napari_pbip.results.places import find_stores
from napari_pbip.results.store import ScoreStore
from tests.waiting import PATIENCE

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "cluster.md"
SBATCH = """#!/bin/bash
# sbatch --ntasks=N SCRIPT: what a batch system gives a script
export SLURM_JOB_ID=7 SLURM_NTASKS=${1#--ntasks=}
exec bash "$2"
"""
SRUN = """#!/bin/bash
# srun COMMAND...: one process for each task; a signal ends them all
trap 'kill $(jobs -p)' TERM
for task in $(seq $SLURM_NTASKS); do "$@" & done
wait
wait
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a script of bash")
def test_the_script_for_slurm_segments_a_folder(sample_pixels: np.ndarray, tmp_path: Path) -> None:
    script = re.search(r"```bash\n(#!/bin/bash.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert script is not None
    (tmp_path / "segment.sbatch").write_text(script[1])
    shutil.copytree(samples.project() / "model", tmp_path / "run")
    (tmp_path / "slides").mkdir()
    for name, top in (("a", 1200), ("b", 1500)):
        resolution = {"resolution": (1e4 / 0.499, 1e4 / 0.499), "resolutionunit": "CENTIMETER"}
        pixels = sample_pixels[top : top + 400, 600:1000]
        tifffile.imwrite(tmp_path / f"slides/{name}.tif", pixels, tile=(256, 256), photometric="rgb", **resolution)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = ["sbatch", "--ntasks=1", "segment.sbatch"]  # more would prove no more
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Results of 2 slides in results" in done.stderr + done.stdout
    stores = [ScoreStore.open(path) for path in find_stores(tmp_path / "results")]
    assert sorted(store.facts.slide.name for store in stores) == ["a", "b"]
    assert all(done == planned > 0 for done, planned in (store.progress for store in stores))
    assert not list(tmp_path.glob("scheduler-*.json"))
