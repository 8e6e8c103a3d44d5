"""Comparisons of small runs on real tissue: what is trained, skipped, reported and written."""

from __future__ import annotations

import csv
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_pbip.engine import compare as module
from napari_pbip.engine.compare import compare
from napari_pbip.errors import ConfigError, OutputError
from napari_pbip.events import Event, Finished, RunStep, Started, Warned


def values_for(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return settings of CAM, PBIP, and an encoder that is not on this machine, with two seeds each."""
    values: dict[str, Any] = {
        "data": {"folder": str(folder), "mpp": 0.5},
        "bank": {"encoder": "tiny", "k": 2},
        "train": {"steps": 2, "batch_size": 8, "learning_rate": 5e-4, "precision": "float32", "device": "cpu"},
        "compare": {
            "axes": {
                "method": {
                    "CAM": {"method": {"name": "cam"}},
                    "PBIP": {"method": {"name": "pbip"}},
                    "no weights": {"bank": {"encoder": "plip", "weights": str(folder / "nowhere")}},
                }
            },
            "seeds": [3, 4],
            "pictures": 2,
        },
    }
    values["compare"].update(changes)
    return values


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def compared(weak_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    out = tmp_path_factory.mktemp("compare") / "out"
    return out, list(compare(values_for(weak_data), out))


def test_a_run_that_fails_is_reported_and_the_others_go_on(compared: tuple[Path, list[Event]]) -> None:
    out, events = compared
    assert isinstance(events[0], Started)
    assert events[0].total == 6
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.summary["failed"] == 2
    told = [event.message for event in events if isinstance(event, Warned) and "failed" in event.message]
    assert len(told) == 2
    assert all("no weights, seed" in message and "nowhere" in message for message in told)
    rows = table(out / "results.csv")
    assert [(row["method"], row["seed"]) for row in rows] == [
        (name, seed) for name in ("CAM", "PBIP", "no weights") for seed in ("3", "4")
    ]
    assert ["nowhere" in row["error"] for row in rows] == [False] * 4 + [True] * 2
    assert "no weights, seed 3, 4: " in (out / "report.html").read_text(encoding="utf-8")
    said = [event.message for event in events if isinstance(event, Warned)]
    assert len(said) == len({message.partition(": ")[2] for message in said}) + 1  # the failure is told of each seed


def test_a_run_that_fails_in_an_unforeseen_way_does_not_stop_the_others(
    weak_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_model, calls = module.load_model, []

    def full(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise RuntimeError("CUDA out of memory.")
        return load_model(*args)

    monkeypatch.setattr(module, "load_model", full)
    values = values_for(weak_data, axes={"method": {"CAM": {"method": {"name": "cam"}}}})
    *_, end = compare(values, tmp_path / "out")
    assert isinstance(end, Finished)
    assert end.summary["failed"] == 1
    errors = [row["error"] for row in table(tmp_path / "out" / "results.csv")]
    assert errors == ["The graphics card's memory is full; use a smaller batch_size.", ""]


def test_progress_counts_runs_and_names_them(compared: tuple[Path, list[Event]]) -> None:
    steps = [event for event in compared[1] if isinstance(event, RunStep)]
    assert [step.done for step in steps if step.finished] == [1, 2, 3, 4, 5, 6]
    assert steps[0].run == "CAM, seed 3"
    assert any("loss" in step.values for step in steps)
    assert all(step.done <= 6 for step in steps)


def test_the_figures_are_those_of_the_runs(compared: tuple[Path, list[Event]]) -> None:
    out, _ = compared
    runs = table(out / "results.csv")
    scores = [json.loads((out / "runs" / "pbip" / f"seed{seed}" / "scores.json").read_text()) for seed in (3, 4)]
    for row, score in zip(runs[2:4], scores, strict=True):
        assert float(row["oracle_miou"]) == score["protocols"]["oracle"]["miou"]
        assert float(row["predicted_iou_LYM"]) == score["protocols"]["predicted"]["per_class"]["LYM"]["iou"]
        assert float(row["seconds_per_step"]) > 0
        assert int(row["parameters"]) > 2_900_000
    assert scores[0]["settings"]["train"]["seed"] == 3
    means = table(out / "table.csv")
    values = [score["protocols"]["predicted"]["miou"] for score in scores]
    assert float(means[1]["predicted_miou"]) == pytest.approx(np.mean(values))
    assert float(means[1]["predicted_miou_deviation"]) == pytest.approx(np.std(values, ddof=1))
    assert float(means[1]["predicted_miou_low"]) <= float(means[1]["predicted_miou"])
    assert 0 < float(means[0]["oracle_p_permutation"] or means[1]["oracle_p_permutation"]) <= 1
    assert means[2]["seeds"] == "0"
    assert means[2]["predicted_miou"] == ""


def test_runs_that_agree_in_their_bank_share_it(compared: tuple[Path, list[Event]]) -> None:
    out, _ = compared
    assert len(list((out / "banks").glob("tiny-*"))) == 1
    assert not list((out / "runs").rglob("bank"))


def test_the_report_needs_no_other_file_and_shows_the_maps(compared: tuple[Path, list[Event]]) -> None:
    out, _ = compared
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2 * (
        2 + 2
    )  # tile, truth and two methods; of the third there is none
    assert 'src="' not in page.replace('src="data:', "")
    assert page.count('class="shaded"') == 2 * 3 * 2 * 2  # of two methods and three protocols, two classes
    open_tags: list[str] = []

    class Balance(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "img"):
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Balance().feed(page)
    assert not open_tags
    with Image.open(out / "runs" / "cam" / "seed3" / "map_0.png") as picture:
        assert picture.size == (64, 64)


def test_what_is_done_is_not_done_again(
    compared: tuple[Path, list[Event]], weak_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(compared[0], tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("scores.json")}
    (out / "runs" / "cam" / "seed4" / "scores.json").unlink()  # as if it had been stopped before the evaluation
    trained: list[Path] = []
    train = module.train
    monkeypatch.setattr(module, "train", lambda s, folder, **o: trained.append(folder) or train(s, folder, **o))
    again = values_for(weak_data, axes={"method": {"CAM": {"method": {"name": "cam"}}, "PBIP": {}}})
    list(compare(again, out))
    assert [folder.relative_to(out / "runs") for folder in trained] == [Path("cam", "seed4")]
    after = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("scores.json")}
    assert {path.parent.relative_to(out / "runs") for path in after if after[path] != before[path]} == {
        Path("cam/seed4")
    }
    assert len(table(out / "results.csv")) == 4


def test_what_an_earlier_version_did_is_not_done_again(
    compared: tuple[Path, list[Event]], weak_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(compared[0], tmp_path / "out")
    changed = [*(out / "runs").rglob("scores.json"), *(out / "runs").rglob("run.json")]
    for path in changed:  # the default was no change of stains
        document = json.loads(path.read_text(encoding="utf-8"))
        document["settings"]["train"]["stain_augmentation"] = 0.0
        path.write_text(json.dumps(document), encoding="utf-8")
    trained: list[Path] = []
    monkeypatch.setattr(module, "train", lambda settings, folder, **options: trained.append(folder))
    again = values_for(weak_data, axes={"method": {"CAM": {"method": {"name": "cam"}}, "PBIP": {}}})
    list(compare(again, out))
    assert len(changed) == 8
    assert not trained
    assert len(table(out / "results.csv")) == 4


def test_other_settings_in_the_same_folder_are_told(
    compared: tuple[Path, list[Event]], weak_data: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(compared[0], tmp_path / "out")
    other = values_for(weak_data, axes={"method": {"CAM": {"method": {"name": "cam"}, "train.learning_rate": 1e-3}}})
    *_, end = compare(other, out)
    assert isinstance(end, Finished)
    assert end.summary["failed"] == 2
    assert "train.learning_rate" in table(out / "results.csv")[0]["error"]


def test_settings_that_are_wrong_stop_everything_before_anything_is_trained(weak_data: Path, tmp_path: Path) -> None:
    for axes, reason in (
        ({"loss": {"ours": {}, "typo": {"train.epoch": 3}}}, "typo.*train.epochs"),
        ({"loss": {"a+": {}, "a-": {}}}, "differ in their letters"),
        ({"loss": {}}, "differ in their letters"),
        ({"data": {"a": {"data.folder": "x"}, "b": {}}}, "one data folder"),
    ):
        with pytest.raises(ConfigError, match=reason):
            list(compare(values_for(weak_data, axes=axes), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(weak_data: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError):
            list(compare(values_for(weak_data), tmp_path, overwrite=overwrite))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_comparison_that_was_stopped_goes_on(weak_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    values = values_for(weak_data, axes={"method": {"CAM": {"method": {"name": "cam"}}}})
    values["train"]["steps"] = 4
    job = compare(values, out)
    for event in job:
        if isinstance(event, RunStep) and event.run == "CAM, seed 4" and "loss" in event.values:
            break
    job.close()
    state = json.loads((out / "runs" / "cam" / "seed4" / "run.json").read_text())
    assert 0 < state["step"] < 4  # a training saves itself when it is stopped
    assert table(out / "results.csv")[1]["oracle_miou"] == ""
    *_, end = compare(values, out)
    assert isinstance(end, Finished)
    assert end.summary["failed"] == 0
    assert json.loads((out / "runs" / "cam" / "seed4" / "run.json").read_text())["step"] == 4
    assert all(row["oracle_miou"] for row in table(out / "results.csv"))
