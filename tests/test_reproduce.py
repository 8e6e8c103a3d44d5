"""The job files of docs/reproduce: all are valid, and one is run on small data in the published layout."""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_pbip import cli, samples
from napari_pbip.bank import load_tiles
from napari_pbip.bank.mosaics import write_masked, write_training
from napari_pbip.config import CompareJob, PbipSettings, planned_runs
from napari_pbip.models import backbones, encoders

FOLDER = Path(__file__).parents[1] / "docs" / "reproduce"
FILES = sorted(FOLDER.glob("*.yaml"))
RUNS = {"figure4": 70, "table1": 40, "table2": 20, "table3": 100, "table4": 25, "table5": 15}


@pytest.fixture(scope="module")
def bcss(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the layout of BCSS-WSSS: ``train/*[abcd].png``, ``val`` and ``test`` with ``img`` and ``mask``."""
    folder = tmp_path_factory.mktemp("bcss") / "BCSS-WSSS"
    tiles = {
        name: [np.asarray(Image.open(path).convert("RGB")) for path in sorted((samples.tiles() / name).iterdir())]
        for name in ("TUM", "STR", "LYM", "DEB")
    }
    rng = np.random.default_rng(0)
    write_training(folder, {name: some[:3] for name, some in tiles.items()}, 90, 64, rng)
    for split, some in (("val", slice(3, 4)), ("test", slice(4, 5))):
        write_masked(folder, split, {name: tile[some] for name, tile in tiles.items()}, 3, 64, rng)
    (folder / "classes.txt").unlink()  # the published data sets have none
    assert load_tiles(folder).taxonomy.names == ("TUM", "STR", "LYM", "NEC")
    return folder


@pytest.fixture
def luad(bcss: Path, tmp_path: Path) -> Path:
    """Write the same in the layout of LUAD-HistoSeg: ``training/*-[a b c d].png``."""
    folder = shutil.copytree(bcss, tmp_path / "LUAD-HistoSeg")
    (folder / "train").rename(folder / "training")
    for path in (folder / "training").iterdir():
        name, _, digits = path.stem.removesuffix("]").partition("[")
        path.rename(path.with_name(f"{name}-[{' '.join(digits)}].png"))
    return folder


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_plans_the_runs_that_its_readme_tells(file: Path) -> None:
    _, runs = planned_runs(CompareJob.read_values(file))
    assert len(runs) == RUNS[file.stem]
    assert len({run.folder for run in runs}) == len(runs)
    for run in runs:
        assert run.settings.bank.encoder in encoders.catalogue()
        assert run.settings.backbone.name in backbones.catalogue()
        assert run.settings.backbone.weights == FOLDER / "weights" / run.settings.backbone.name
        assert run.settings.train.stain_augmentation == 0
    assert f"`{file.name}`" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_there_is_a_file_for_each() -> None:
    assert {file.stem for file in FILES} == set(RUNS)


def test_ablations_start_from_the_settings_of_the_paper() -> None:
    _, runs = planned_runs(CompareJob.read_values(FOLDER / "table2.yaml"))
    whole = next(run.settings for run in runs if run.choices == ("all",))
    assert whole.method == PbipSettings(preset="paper")
    assert (whole.train.epochs, whole.train.learning_rate, whole.bank.k) == (10, 1e-5, 3)


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Compare:
    """Calls the command in this process with settings for tests."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(self, table: str, data: Path, out: Path, *assignments: str) -> int:
        quick = ["train.steps=2", "train.batch_size=6", "train.precision=float32", "train.device=cpu"]
        quick += ["bank.encoder=tiny", "bank.k=2", "compare.seeds=[0, 1]", "compare.pictures=1", *assignments]
        arguments = ["compare", str(FOLDER / table), "--data", str(data), "--out", str(out)]
        arguments += [part for assignment in quick for part in ("--set", assignment)]
        self._monkeypatch.setattr(sys, "argv", ["napari-pbip", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return int(left.value.code or 0)


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> Compare:
    return Compare(monkeypatch)


def test_a_table_in_one_command_and_in_a_second_one_where_the_first_found_no_weights(
    bcss: Path, tmp_path: Path, compare: Compare, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table2"
    assert compare("table2.yaml", bcss, out, f"backbone.weights={tmp_path / 'nowhere'}") == 1
    assert "8 of 8 runs failed" in capsys.readouterr().err
    assert all("There are no weights of mit-b1" in row["error"] for row in rows_of(out))

    assert compare("table2.yaml", bcss, out, "backbone={name: mit-b0}") == 0, capsys.readouterr().err
    rows = rows_of(out)
    assert [row["losses"] for row in rows[::2]] == [
        "classification",
        "classification, foreground",
        "classification, background",
        "all",
    ]
    for row in rows:
        assert not row["error"]
        assert 0 <= float(row["oracle_miou"]) <= 100
        assert row["predicted_iou_NEC"]
    assert "seed 1" in capsys.readouterr().err


def test_the_other_data_set(luad: Path, tmp_path: Path, compare: Compare, capsys: pytest.CaptureFixture[str]) -> None:
    only = "compare.axes={K: {'1': {bank.k: 1}, '2': {bank.k: 2}}}"
    out = tmp_path / "table4"
    called = compare("table4.yaml", luad, out, "backbone={name: mit-b0}", "compare.seeds=[0]", only)
    assert called == 0, capsys.readouterr().err
    assert [row["K"] for row in rows_of(out)] == ["1", "2"]
    assert {"predicted_iou_TE", "predicted_iou_TAS"} <= rows_of(out)[0].keys()
