"""Files of earlier versions can still be opened; see tests/data/formats/README.md."""

from __future__ import annotations

import csv
import json
import lzma
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from napari_pbip import samples
from napari_pbip.bank import ImageBank, load_single_tiles
from napari_pbip.bank.labelled_slides import LabelledSlides
from napari_pbip.config import JobSettings, SegmentSettings, ThresholdSettings
from napari_pbip.engine.banks.build_bank import build_bank
from napari_pbip.engine.compare import compare
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.runs import load_model
from napari_pbip.engine.training.train import train
from napari_pbip.errors import OtherResult
from napari_pbip.events import Finished, Job, RunStep, Started
from napari_pbip.models import backbones, encoders
from napari_pbip.results import ScoreStore
from napari_pbip.results.label_files import open_labels
from napari_pbip.slides import TissueMask, open_slide
from napari_pbip.slides.mpp import read_sidecar
from tests.data.formats.make import weak_data

FORMATS = Path(__file__).parent / "data" / "formats"
STORE = Path("results", "CMU-1-Small-Region", "CMU-1-Small-Region.ome.zarr")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Unpack the files into a folder that may be changed."""
    folder = tmp_path / "kept"
    shutil.copytree(FORMATS, folder)
    for packed in folder.rglob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()
    return folder


def move(file: Path, before: str, now: Path) -> None:
    """Replace a path in a file, as if the file had been made with that path."""
    text = file.read_text(encoding="utf-8")
    assert before in text
    file.write_text(text.replace(json.dumps(before), json.dumps(str(now))), encoding="utf-8")


def finish(job: Job) -> Finished:
    last = list(job)[-1]
    assert isinstance(last, Finished)
    return last


def test_settings(kept: Path) -> None:
    settings = JobSettings.read(kept / "settings" / "job.yaml")
    assert settings.method.name == "cam"
    assert (settings.bank.encoder, settings.bank.k, settings.train.steps) == ("tiny", 2, 2)


def test_a_bank_is_read_and_brought_up_to_date(kept: Path) -> None:
    bank = ImageBank.read(kept / "bank")
    assert bank.taxonomy.names == ("LYM", "MUS")
    assert len(bank.tiles) == 10
    assert bank.k == (2, 2)
    folder = kept / "tiles"
    for name in bank.taxonomy.names:
        shutil.copytree(samples.tiles() / name, folder / name)
    settings = JobSettings.read(kept / "settings" / "job.yaml")
    tiles = load_single_tiles(folder, settings.data)
    summary = finish(build_bank(tiles, kept / "bank", bank.settings, settings.data, update=True)).summary
    assert (summary["encoded"], summary["clustered"], summary["tiles"]) == (0, [], 10)


def test_a_run_is_loaded_and_gone_on_with(kept: Path, tmp_path: Path) -> None:
    assert load_model(kept / "run", "best").facts.step == 2
    assert load_model(kept / "run", "last").facts.taxonomy.names == ("LYM", "MUS")
    weak_data(tmp_path / "weak")
    settings = json.loads((kept / "run" / "run.json").read_text(encoding="utf-8"))["settings"]
    move(kept / "run" / "run.json", settings["data"]["folder"], tmp_path / "weak")
    settings["data"]["folder"] = str(tmp_path / "weak")
    settings["train"]["steps"] = 3
    events = list(train(JobSettings.parse(settings), kept / "run", resume=True))
    assert next(e for e in events if isinstance(e, Started)).done == 2
    assert load_model(kept / "run", "last").facts.step == 3


def test_pretrained_weights_start_backbones_and_encoders(kept: Path) -> None:
    backbones.load("mit-b0", kept / "pretrained")
    assert encoders.load("pretrained", kept / "pretrained").spec.dimension


def test_labels_of_a_project(kept: Path) -> None:
    labelled = LabelledSlides.read(kept / "project" / "tiles")
    assert labelled is not None
    assert labelled.taxonomy.names == ("tumour", "stroma")
    with open_slide(samples.slide()) as slide:
        assert [one.identity for one in labelled.slides] == [slide.identity]
    assert dict(labelled.tiles[0]) == {(1, 2): {0}, (2, 2): {0, 1}, (3, 5): {1}}


def test_a_result_is_read_and_gone_on_with(kept: Path) -> None:
    store = ScoreStore.open(kept / "project" / STORE)
    done, planned = store.progress
    assert done == planned == 12
    (labels, *_), facts = open_labels(store)
    assert facts.cells[""] == {1: 79, 2: 83, 255: 0}  # as areas.csv beside it has them
    assert [np.count_nonzero(labels[:] == value) for value in (1, 2, 255)] == [79, 83, 0]
    with open_slide(samples.slide()) as slide:
        assert store.facts.slide.identity == slide.identity
        assert TissueMask.read((kept / "project" / STORE).parent / "tissue.png", slide).array.any()
    reading = SegmentSettings(precision="float32", device="cpu", overlap=16, batch_size=8)
    out = (kept / "project" / STORE).parent
    job = segment(samples.slide(), kept / "run", out, reading, ThresholdSettings(), resume=True)
    with pytest.raises(OtherResult, match="another model"):  # than the flattened weights of the kept run
        list(job)


def test_a_comparison_is_not_done_again(kept: Path, tmp_path: Path) -> None:
    weak_data(tmp_path / "weak")
    scores = kept / "comparison" / "runs" / "cam" / "seed3" / "scores.json"
    before = json.loads(scores.read_text(encoding="utf-8"))["settings"]["data"]["folder"]
    move(scores, before, tmp_path / "weak")
    values = yaml.safe_load((kept / "comparison" / "compare.yaml").read_text(encoding="utf-8"))
    values["data"]["folder"] = str(tmp_path / "weak")
    values["backbone"] = {"name": "mit-b0", "weights": "builtin"}  # the defaults of that version
    values["compare"]["axes"]["method"]["CAM"]["method"]["synthesis"] = 0
    events = list(compare(values, kept / "comparison"))
    assert [e.finished for e in events if isinstance(e, RunStep)] == [True]
    with (kept / "comparison" / "table.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    miou = json.loads(scores.read_text(encoding="utf-8"))["protocols"]["oracle"]["miou"]
    assert float(row["oracle_miou"]) == pytest.approx(miou)


def test_a_sidecar(kept: Path) -> None:
    assert read_sidecar(kept / "sidecar" / "slide.tif") == 0.25
