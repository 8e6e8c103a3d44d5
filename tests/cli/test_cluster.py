"""The script for Slurm of the documentation, with programs in the place of sbatch and srun that start it here."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_pbip import samples
from napari_pbip.results.places import find_stores
from napari_pbip.results.store import ScoreStore
from tests.waiting import PATIENCE, wait_until

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
BROKEN_DASK = """#!/bin/bash
echo "dask: no such module on this machine" >&2
exit 1
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a script of bash")
Submit = Callable[[], "subprocess.Popen[str]"]


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.fixture
def submit(tmp_path: Path) -> Submit:
    """Return what submits the script of the page in a folder; programs in its ``bin`` come before all others."""
    script = re.search(r"```bash\n(#!/bin/bash.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert script is not None
    (tmp_path / "segment.sbatch").write_text(script[1])
    for name, text in (("sbatch", SBATCH), ("srun", SRUN)):
        program(tmp_path / "bin", name, text)
    path = os.pathsep.join([str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}

    def submitted() -> subprocess.Popen[str]:
        command = ["sbatch", "--ntasks=1", "segment.sbatch"]  # more would prove no more
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True)

    return submitted


def test_the_script_for_slurm_goes_on_where_its_time_was_over(
    submit: Submit, sample_pixels: np.ndarray, tmp_path: Path
) -> None:
    shutil.copytree(samples.project() / "model", tmp_path / "run")
    (tmp_path / "slides").mkdir()
    for name, top in (("a", 1200), ("b", 1500)):
        resolution = {"resolution": (1e4 / 0.499, 1e4 / 0.499), "resolutionunit": "CENTIMETER"}
        pixels = sample_pixels[top : top + 400, 600:1000]
        tifffile.imwrite(tmp_path / f"slides/{name}.tif", pixels, tile=(256, 256), photometric="rgb", **resolution)
    job = submit()
    wait_until(lambda: any((tmp_path / "results").glob("*/*.ome.zarr")))
    job.send_signal(signal.SIGTERM)  # as Slurm does to the script, two minutes before its time is over
    out, err = job.communicate(timeout=PATIENCE)
    assert job.returncode == 143, out + err
    assert "resume" in out + err
    assert not list(tmp_path.glob("scheduler-*.json"))
    job = submit()
    out, err = job.communicate(timeout=PATIENCE)
    assert job.returncode == 0, err
    assert "Results of 2 slides in results" in out + err
    stores = [ScoreStore.open(path) for path in find_stores(tmp_path / "results")]
    assert sorted(store.facts.slide.name for store in stores) == ["a", "b"]
    assert all(done == planned > 0 for done, planned in (store.progress for store in stores))
    assert not list(tmp_path.glob("scheduler-*.json"))


def test_the_script_for_slurm_does_not_wait_for_a_scheduler_that_has_not_started(
    submit: Submit, tmp_path: Path
) -> None:
    program(tmp_path / "bin", "dask", BROKEN_DASK)
    job = submit()
    _, err = job.communicate(timeout=PATIENCE)
    assert job.returncode == 1
    assert "no such module on this machine" in err
    assert "The scheduler has not started; what is written above says why." in err
