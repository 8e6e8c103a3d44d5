"""Every job with labelled tiles first reports what it recognised, and what is probably wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_pbip.bank import load_single_tiles
from napari_pbip.config import BankSettings, DataSettings, JobSettings
from napari_pbip.engine.banks.build_bank import build_bank
from napari_pbip.engine.banks.inspect_tiles import inspect_tiles
from napari_pbip.engine.banks.zero_shot import zero_shot
from napari_pbip.engine.compare import compare
from napari_pbip.engine.inference.evaluate import evaluate
from napari_pbip.engine.training.train import train
from napari_pbip.events import Event, Finished, Job, Noted, Warned

COLOURS = {"A": (230, 150, 190), "B": (120, 90, 170)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSettings:
    """Write two classes with masks that number them from 1, and a file that is not a tile."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)

    def tile(path: Path, colour: tuple[int, int, int]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(np.array(colour) + rng.normal(0, 12, (64, 64, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(path)

    for name, colour in COLOURS.items():
        for i in range(3):
            tile(folder / "Train" / name / f"{i}.png", colour)
    (folder / "Train" / "A" / "extra.npy").touch()
    tile(folder / "Val" / "img" / "a.png", COLOURS["A"])
    (folder / "Val" / "mask").mkdir()
    Image.fromarray(np.repeat([1, 2], 32).astype(np.uint8)[None].repeat(64, 0)).save(folder / "Val" / "mask" / "a.png")
    return DataSettings(folder=folder, mpp=0.5)


def job_settings(data: DataSettings, method: str) -> JobSettings:
    return JobSettings.parse(
        {
            "data": data.model_dump(mode="json"),
            "method": {"name": method},
            "bank": {"encoder": "texture", "k": 1},
            "train": {"steps": 1, "batch_size": 4, "device": "cpu"},
        }
    )


TRAIN = (
    "Found 6 tiles for training: a folder for each class (A 3, B 3). The data also hold val. "
    "Left out: 1 .npy, such as extra.npy (no pictures that are read)."
)
VAL = "Found 1 tile for validation: masks, which give the classes (A 0, B 1). The data also hold train."


def said(job: Job) -> tuple[list[str], list[str], list[Event]]:
    """Return the notes and the warnings of a job."""
    events = list(job)
    assert isinstance(events[-1], Finished)
    noted = [event.message for event in events if isinstance(event, Noted)]
    return noted, [event.message for event in events if isinstance(event, Warned)], events


@pytest.fixture(scope="module")
def trained(data: DataSettings, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[str]]:
    run = tmp_path_factory.mktemp("runs") / "pbip"
    noted, warned, _ = said(train(job_settings(data, "pbip"), run))
    return run, noted, warned


def test_a_training_tells_both_splits_once_though_it_builds_a_bank(trained: tuple[Path, list[str], list[str]]) -> None:
    _, noted, warned = trained
    assert noted[:2] == [TRAIN, VAL]
    assert [note.split(":")[0] for note in noted[2:]] == ["Recommended for now"]
    assert sum("count the classes from 1" in sentence for sentence in warned) == 1


def test_the_other_jobs_tell_it_too(
    data: DataSettings, trained: tuple[Path, list[str], list[str]], tmp_path: Path
) -> None:
    run = trained[0]
    noted, warned, _ = said(evaluate(run, data, "val"))
    assert noted == [VAL]
    assert "count the classes from 1" in warned[0]
    assert data.folder is not None
    tiles = load_single_tiles(data.folder, data)
    bank = BankSettings(encoder="texture", k=1)
    assert said(build_bank(tiles, tmp_path / "bank", bank, data))[0] == [TRAIN]
    assert said(zero_shot(data, bank=tmp_path / "bank"))[0] == [TRAIN]
    assert said(zero_shot(data, bank=tmp_path / "bank"))[0] == [TRAIN]


def test_a_comparison_tells_each_set_once(data: DataSettings, tmp_path: Path) -> None:
    values = job_settings(data, "cam").model_dump(mode="json", exclude_unset=True)
    values["compare"] = {"axes": {"method": {"CAM": {"method.name": "cam"}}}, "seeds": [0, 1], "split": "val"}
    noted, warned, _ = said(compare(values, tmp_path / "comparison"))
    assert sorted(noted) == sorted([VAL, TRAIN])
    assert sum("count the classes from 1" in sentence for sentence in warned) == 1


def test_the_window_is_told_by_one_place(data: DataSettings) -> None:
    _, warned, events = said(inspect_tiles(data))
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.summary["notes"] == [
        "Found 6 tiles for training: a folder for each class (A 3, B 3).",
        "Found 1 tile for validation: masks, which give the classes (A 0, B 1).",
        "Left out: 1 .npy, such as extra.npy (no pictures that are read).",
    ]
    assert "count the classes from 1" in warned[0]


def test_validation_that_is_not_used_is_told(data: DataSettings, tmp_path: Path) -> None:
    assert data.folder is not None
    shutil.copytree(data.folder / "Train", tmp_path / "train")
    own = data.model_copy(update={"folder": tmp_path})
    noted, _, _ = said(train(job_settings(own, "cam"), tmp_path / "none"))
    assert "no validation masks (no split val)" in noted[-1]
    shutil.copytree(data.folder / "Train", tmp_path / "val")
    noted, _, _ = said(train(job_settings(own, "cam"), tmp_path / "labels"))
    assert "no validation masks (the split val has labels only)" in noted[-1]
    mask = data.folder / "Val" / "mask" / "a.png"
    (tmp_path / "tiles.csv").write_text(
        "path,mask,split,A,B\n"
        "train/A/0.png,,train,1,0\ntrain/B/0.png,,train,0,1\ntrain/A/1.png,,train,1,0\ntrain/B/1.png,,train,0,1\n"
        f"val/A/0.png,{mask},val,1,0\nval/B/0.png,,val,0,1\n"
    )
    _, warned, _ = said(train(job_settings(own, "cam"), tmp_path / "some"))
    assert any("Only 1 of 2 validation tiles have masks" in sentence for sentence in warned)
