"""Slides that were not segmented when napari was closed: the project remembers them, and nothing begins by itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import tifffile

from napari_pbip import samples
from napari_pbip.config import SegmentSettings, ThresholdSettings
from napari_pbip.engine.inference.segment import segment
from napari_pbip.project import Project
from napari_pbip.results import ScoreStore
from napari_pbip.slides import open_slide
from tests.gui.state.test_project import sitting

WAITING = "waiting (stopped when the project was closed)"


def test_slides_that_were_not_done_are_resumed_after_a_restart(display: None, tmp_path: Path, runs: Path) -> None:
    study = tmp_path / "study"
    (study / "slides").mkdir(parents=True)
    shutil.copy(samples.slide(), study / "slides" / "skin.svs")
    with open_slide(samples.tumour()) as slide:
        for name, x in (("tumour.tif", 1500), ("second.tif", 2700)):  # of a few tiles each
            part = slide.read_scaled(x, 2000, 1200, 1200, 1)
            tifffile.imwrite(study / "slides" / name, part, photometric="rgb", tile=(256, 256))
    shutil.copytree(runs, study / "project" / "models")
    assert sitting("queue", study, "C")["states"] == ["running", "waiting", "waiting"]

    [left] = Project.open(study / "project").queue
    assert [path.name for path in left.slides] == ["skin.svs", "tumour.tif", "second.tif"]
    assert (left.model.name, left.settings.segment.overlap) == ("fine", 16)
    moved = tmp_path / "other machine"
    study.rename(moved)
    (moved / "last-project.txt").write_text(str(moved / "project"), encoding="utf-8")

    found = sitting("resume", moved, "C")
    assert found["table"] == {"skin.svs": WAITING, "tumour.tif": WAITING, "second.tif": WAITING}
    assert found["said"].endswith("since the project was closed: skin.svs, tumour.tif, second.tif.")
    assert found["rows"] == ["Waiting; it was stopped when the project was closed"] * 3
    assert not found["begun"]
    assert found["began"] > 20  # from its store
    assert found["states"] == ["done", "done"]
    assert found["models"] == ["fine", "fine"]
    assert not found["still said"]
    assert Project.open(moved / "project").queue == ()
    settings = SegmentSettings(precision="float32", device="cpu", overlap=16, batch_size=2)
    list(segment(samples.slide(), runs / "fine", tmp_path / "at once", settings, ThresholdSettings()))
    at_once = ScoreStore.open(next((tmp_path / "at once").glob("*.ome.zarr")))
    resumed = ScoreStore.open(Path(found["stores"][0]))
    np.testing.assert_array_equal(resumed.scores[0][:], at_once.scores[0][:])
