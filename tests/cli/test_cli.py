"""The commands of the README, and the messages about wrong input."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
import zarr
from PIL import Image

from napari_pbip import __version__, samples
from napari_pbip.bank.mosaics import write_masked, write_training
from napari_pbip.config import JobSettings
from napari_pbip.engine.training.train import train
from tests.cli.conftest import Called


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with weakly labelled data."""
    folder = tmp_path_factory.mktemp("work")
    tiles = {
        name: [np.asarray(Image.open(path).convert("RGB")) for path in sorted((samples.tiles() / name).iterdir())]
        for name in ("MUS", "TUM")
    }
    rng = np.random.default_rng(0)
    write_training(folder / "data", {name: some[:3] for name, some in tiles.items()}, 24, 96, rng)
    write_masked(folder / "data", "test", {name: some[3:] for name, some in tiles.items()}, 6, 96, rng)
    return folder


@pytest.fixture(scope="module")
def model(work: Path) -> Path:
    """Return an untrained model with the classes of the data."""
    values = {"data": {"folder": work / "data"}, "method": {"name": "cam"}, "train": {"steps": 1, "batch_size": 4}}
    list(train(JobSettings.parse(values), work / "model"))
    return work / "model"


def test_bank_training_evaluation_and_segmentation_leave_what_they_promise(call: Called, work: Path) -> None:
    data, bank, run, out = work / "data", work / "bank", work / "run", work / "result"
    assert call("bank", "build", data, "--out", bank, "--encoder", "texture", "--k", 2) == 0, call.error
    assert "Found 24 tiles for training: digits in the file names, as in BCSS-WSSS (MUS " in call.error
    assert "The data also hold test." in call.error
    assert call("bank", "show", bank) == 0, call.error
    sheets = [Path(line) for line in call.out.split() if line.endswith(".png")]
    assert len(sheets) == 2
    for path in sheets:
        with Image.open(path) as sheet:
            assert min(sheet.size) > 100
    assert call("bank", "classify", bank, samples.tiles(), "--json", work / "nearest.json") == 2  # other classes
    assert call("bank", "classify", bank, data, "--json", work / "nearest.json") == 0, call.error
    assert json.loads((work / "nearest.json").read_text())["prompts"]["image"]["accuracy"] > 60

    options = ("--method", "pbip", "--data", data, "--bank", bank, "--backbone", "mit-b0", "--epochs", 1, "--seed", 0)
    quick = ("--set", "train.batch_size=6", "--set", "data.mpp=0.5")
    assert call("train", *options, *quick, "--out", run) == 0, call.error

    assert call("evaluate", run, data, "--split", "test", "--json", work / "scores.json") == 0, call.error
    assert all(title in call.out for title in ("oracle (class labels)", "oracle (background)", "predicted", "mIoU"))
    scores = json.loads((work / "scores.json").read_text())
    for protocol in ("oracle", "oracle_background", "predicted"):
        figures = scores["protocols"][protocol]
        assert {"miou", "fwiou", "biou", "dice", "per_class"} <= figures.keys()
        assert 0 <= figures["miou"] <= 100
        assert set(figures["per_class"]) == {"MUS", "TUM"}

    against = "--against", work / "nowhere", "--json", work / "kept.json"
    assert call("evaluate", run, data, *against) == 2
    assert json.loads((work / "kept.json").read_text())["protocols"] == scores["protocols"]
    assert call("evaluate", run, data, "--against", run, "--json", work / "tests.json") == 0, call.error
    tests = json.loads((work / "tests.json").read_text())["against"]["protocols"]
    assert tests["predicted"] == {"difference": 0, "ends": [0, 0], "permutation": 1, "wilcoxon": 1}
    assert "predicted: mIoU +0.00 (+0.00 to +0.00) against" in call.out

    assert call("segment", samples.slide(), "--model", run, "--out", out) == 0, call.error
    assert sorted(p.name for p in out.iterdir()) == ["CMU-1-Small-Region.ome.zarr", "areas.csv", "overlay.png"]
    with (out / "areas.csv").open() as file:
        areas = {row["name"]: float(row["area_mm2"]) for row in csv.DictReader(file)}
    assert areas["MUS"] + areas["TUM"] > 0
    assert "ome" in zarr.open_group(out / "CMU-1-Small-Region.ome.zarr", mode="r").attrs
    assert call("statistics", work, "--out", work / "cohort.parquet") == 0, call.error
    assert "1 slides, 1 results" in call.error
    assert set(pd.read_parquet(work / "cohort.parquet")["class"]) == {"MUS", "TUM", "not assigned", "not analysed"}
    # nothing is replaced silently
    assert call("segment", samples.slide(), "--model", run, "--out", out) == 2
    assert "--overwrite" in call.error
    assert "--resume" in call.error


def test_a_slide_is_segmented_and_measured_in_regions(call: Called, work: Path, model: Path, tmp_path: Path) -> None:
    drawn, out = tmp_path / "drawn.geojson", tmp_path / "result"
    bed = {"name": "tumour bed", "classification": {"name": "Region*"}}
    features = [
        {"type": "Feature", "geometry": json.loads(shapely.to_geojson(shape)), "properties": properties}
        for shape, properties in (
            (shapely.Point(1100, 1400).buffer(500), bed),
            (shapely.box(1000, 0, 1060, 2900), {"classification": {"name": "Ignore*"}}),
        )
    ]
    drawn.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    command = ("segment", samples.slide(), "--model", model, "--out", out)
    assert call(*command, "--regions", drawn) == 0, call.error
    assert "tumour bed" in call.out
    assert "mm² of tissue do not count" in call.error.replace("\n", " ")
    with (out / "areas.csv").open() as file:
        assert {row["region"] for row in csv.DictReader(file)} == {"", "tumour bed"}
    store = out / "CMU-1-Small-Region.ome.zarr"
    assert call("import", drawn, "--slide", samples.slide(), "--out", out, "--regions") == 0, call.error
    assert "2 regions imported, 4 in all" in call.error.replace("\n", " ")
    assert call("export", store, "--format", "csv", "--out", tmp_path / "a.csv") == 2  # the regions have changed
    assert "give thresholds with --set" in call.error.replace("\n", " ")
    again = ("export", store, "--format", "csv", "--out", tmp_path / "a.csv", "--set", "thresholds.delta=0.5")
    assert call(*again) == 0, call.error
    assert call(*command, "--regions", tmp_path / "gone.geojson", "--overwrite") == 2
    assert "cannot be read" in call.error
    drawn.write_text(json.dumps({"type": "FeatureCollection", "features": features[:1]}), encoding="utf-8")
    assert call(*command, "--regions", drawn, "--resume") == 2
    assert "leave --regions out" in call.error.replace("\n", " ")


def test_a_log_says_what_is_going_on(call: Called, work: Path) -> None:
    """Without a terminal for progress bars, each job is named when it begins rather than when it ends."""
    settings = ("--method", "cam", "--set", "train.steps=2", "--set", "train.batch_size=4")
    assert call("train", "--data", work / "data", "--out", work / "logged", *settings) == 0, call.error
    said = [line.strip() for line in call.error.splitlines()]
    begun = next(i for i, line in enumerate(said) if line.startswith("Training"))
    drawn = next(i for i, line in enumerate(said) if "2/2" in line)
    assert begun < drawn


def test_one_settings_file_does_all(call: Called, work: Path) -> None:
    (work / "job.yaml").write_text(
        "data: {folder: data}\nmethod: {name: cam}\ntrain: {steps: 2, batch_size: 4, validate_every: 5}\n"
    )
    assert call("train", work / "job.yaml", "--out", work / "cam", "--set", "train.seed=3") == 0, call.error
    settings = json.loads((work / "cam/run.json").read_text())["settings"]
    assert settings["train"]["seed"] == 3
    assert settings["train"]["steps"] == 2


def test_tiles_are_classified_without_training(call: Called, work: Path) -> None:
    tiles = work / "zero-shot"
    for name in ("LYM", "MUS"):
        shutil.copytree(samples.tiles() / name, tiles / name)
    assert call("bank", "build", tiles, "--out", work / "zero-bank", "--k", 1) == 0, call.error
    assert call("zero-shot", tiles, "--bank", work / "zero-bank", "--json", work / "table6.json") == 0, call.error
    assert "image prompt: accuracy" in call.out
    assert "10 of 10 tiles are in the bank" in call.error.replace("\n", " ")
    figures = json.loads((work / "table6.json").read_text())["prompts"]["image"]
    assert {"accuracy", "recall", "recall_mean", "f1", "f1_mean"} <= figures.keys()
    assert call("zero-shot", tiles, "--encoder", "texture") == 2
    assert "no text tower" in call.error
    assert call("zero-shot", tiles, "--bank", work / "zero-bank", "--sentence", "LYM") == 2
    assert "CLASS=TEXT" in call.error


def test_doctor_reports(call: Called) -> None:
    code = call("doctor", "--json")
    report = json.loads(call.out)
    assert code == report["failed"]
    assert any("openslide" in str(finding).lower() for finding in report["findings"])
    call("doctor")
    assert "texture" in call.out


def test_encoders_are_listed(call: Called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NAPARI_PBIP_WEIGHTS", str(tmp_path))
    (tmp_path / "uni").mkdir()
    (tmp_path / "uni" / "model.safetensors").touch()
    assert call("encoders") == 0
    rows: dict[str, list[str]] = {}
    name = ""
    for line in call.out.splitlines():
        if "│" in line:
            first, what, where = (cell.strip() for cell in line.split("│")[1:4])
            name = first or name
            row = rows.setdefault(name, ["", ""])
            row[0], row[1] = f"{row[0]} {what}", row[1] + where
    assert {"texture", "conch", "virchow2", "dinov3-base", "transformers"} <= rows.keys()
    assert rows["uni"][1] == str(tmp_path / "uni")
    assert "CC-BY-NC-ND-4.0" in rows["uni"][0]
    assert "on request" in rows["uni"][0]
    assert "dense features every 16 pixels (8 µm)" in " ".join(rows["uni"][0].split())
    assert "dense" not in rows["texture"][0]
    assert "2560 features" in rows["virchow2"][0]
    assert "MB, not here" in rows["virchow2"][1]
    assert call("encoders", "fetch", "medclip") == 2
    assert "https://github.com/RyanWangZf/MedCLIP" in call.error


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "segment"),
        (["bank"], "classify"),
        (["--help"], "zero-shot"),
        (["train", "--help"], "--data"),
        (["segment", "-h"], "--model"),
        (["--version"], __version__),
    ],
)
def test_help_is_there(call: Called, arguments: list[str], told: str) -> None:
    call(*arguments)
    assert "Traceback" not in call.error
    assert told in call.out + call.error


def _wrong(work: Path, model: Path, tmp: Path) -> dict[str, list[object]]:
    (tmp / "no-slide.svs").write_text("no slide")
    (tmp / "unknown.yaml").write_text("train: {epocs: 3}\n")
    (tmp / "empty").mkdir()
    (tmp / "white").mkdir()
    for name in ("A", "B"):
        (tmp / "white" / name).mkdir()
        for i in range(3):
            Image.new("RGB", (64, 64), "white").save(tmp / "white" / name / f"{i}.png")
    data = work / "data"
    return {
        "no such slide": ["segment", tmp / "none.svs", "--model", model, "--out", tmp / "o"],
        "a file that is no slide": ["segment", tmp / "no-slide.svs", "--model", model, "--out", tmp / "o"],
        "a folder that is no model": ["segment", samples.slide(), "--model", tmp, "--out", tmp / "o"],
        "an unknown key": ["train", tmp / "unknown.yaml", "--out", tmp / "o"],
        "an unknown key on the line": ["train", "--data", data, "--out", tmp / "o", "--set", "train.epocs=3"],
        "an empty folder": ["bank", "build", tmp / "empty", "--out", tmp / "o"],
        "an all-white folder": ["bank", "build", tmp / "white", "--out", tmp / "o"],
        "more clusters than tiles": ["bank", "build", samples.tiles(), "--out", tmp / "o", "--k", "50"],
        "a silly k": ["bank", "build", samples.tiles(), "--out", tmp / "o", "--k", "many"],
        "an unknown encoder": ["bank", "build", samples.tiles(), "--out", tmp / "o", "--encoder", "textur"],
        "an unknown method": ["train", "--method", "pbib", "--data", data, "--out", tmp / "o"],
        "an unknown backbone": ["train", "--method", "cam", "--backbone", "mit-b9", "--data", data, "--out", tmp / "o"],
        "no data": ["train", "--method", "cam", "--out", tmp / "o"],
        "no masks": ["evaluate", model, data, "--split", "train"],
        "no such split": ["evaluate", model, data, "--split", "val"],
        "other classes": ["evaluate", model, samples.tiles(), "--split", "train"],
    }


_CASES = (
    "no such slide",
    "a file that is no slide",
    "a folder that is no model",
    "an unknown key",
    "an unknown key on the line",
    "an empty folder",
    "an all-white folder",
    "more clusters than tiles",
    "a silly k",
    "an unknown encoder",
    "an unknown method",
    "an unknown backbone",
    "no data",
    "no masks",
    "no such split",
    "other classes",
)


@pytest.mark.parametrize("case", _CASES)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    call: Called, work: Path, model: Path, tmp_path: Path, case: str
) -> None:
    cases = _wrong(work, model, tmp_path)
    assert tuple(cases) == _CASES
    assert call(*cases[case]) == 2, call.error
    assert call.error.count("Error:") == 1, call.error
    assert "Traceback" not in call.error
    assert len(call.error.split("Error:")[1].strip().splitlines()) <= 4  # one sentence, wrapped


def test_bank_show_says_what_to_look_at(call: Called, tmp_path: Path) -> None:
    for name in ("LYM", "TUM"):
        shutil.copytree(samples.tiles() / name, tmp_path / "tiles" / name)
    copied = sorted((tmp_path / "tiles" / "TUM").iterdir())[0]
    Image.open(copied).convert("RGB").rotate(90).save(copied.with_name("turned.png"))
    assert call("bank", "build", tmp_path / "tiles", "--out", tmp_path / "bank", "--k", 2) == 0, call.error
    assert call("bank", "show", tmp_path / "bank") == 0, call.error
    assert "turned.png" in call.error
    assert "turned.png" not in call.out


def test_pseudo_masks_are_a_data_set(call: Called, work: Path, model: Path) -> None:
    out = work / "pseudo"
    assert call("pseudo", model, work / "data", "--out", out, "--min-confidence", 0.1) == 0, call.error
    assert "Masks of 24 tiles (MUS " in call.error
    assert call("pseudo", model, work / "data", "--out", out) == 2
    assert "--resume" in call.error
    assert call("pseudo", model, work / "data", "--out", out, "--min-confidence", 0.1, "--resume") == 0, call.error
