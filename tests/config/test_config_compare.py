from __future__ import annotations

from pathlib import Path

import pytest

from napari_pbip.config import CompareJob, override, planned_runs
from napari_pbip.errors import ConfigError

FILE = """
data: {folder: tiles}
bank: {encoder: clip, k: 4}
method: {name: pbip, preset: paper}
compare:
  seeds: [7, 8]
  axes:
    encoder:
      CLIP: {bank.weights: weights/clip}
      texture: {bank: {encoder: texture}}
    loss:
      both: {}
      one: {method.theta_background: 0, train.epochs: 2}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "job.yaml").write_text(FILE, encoding="utf-8")
    return tmp_path / "job.yaml"


def test_every_combination_is_planned_with_every_seed(file: Path) -> None:
    compare, runs = planned_runs(CompareJob.read_values(file))
    assert [(*run.choices, run.seed) for run in runs] == [
        (encoder, loss, seed) for encoder in ("CLIP", "texture") for loss in ("both", "one") for seed in (7, 8)
    ]
    assert all(run.settings.train.seed == run.seed for run in runs)
    assert runs[3].name == "CLIP, one, seed 8"
    assert runs[3].folder == Path("clip_one/seed8")
    assert compare.split == "test"


def test_a_choice_lays_its_settings_over_those_of_the_file(file: Path) -> None:
    _, runs = planned_runs(CompareJob.read_values(file))
    clip, texture = runs[2].settings, runs[6].settings
    assert clip.method.model_dump()["theta_background"] == 0
    assert clip.method.model_dump()["stage_weights"] == (1, 1, 1, 0)  # the preset still holds
    assert clip.train.epochs == 2
    assert (clip.bank.encoder, clip.bank.k) == ("clip", 4)
    assert (texture.bank.encoder, texture.bank.k) == ("texture", 3)  # what a section held is gone with it


def test_paths_count_from_the_folder_of_the_file_in_choices_too(file: Path) -> None:
    _, runs = planned_runs(CompareJob.read_values(file))
    assert runs[0].settings.data.folder == file.parent / "tiles"
    assert runs[0].settings.bank.weights == file.parent / "weights/clip"
    assert runs[4].settings.bank.weights is None


def test_settings_on_top_reach_all_runs_and_the_plan_itself(file: Path) -> None:
    values = override(CompareJob.read_values(file), ["compare.seeds=[1]", "backbone.name=mit-b1"])
    _, runs = planned_runs(values)
    assert len(runs) == 4
    assert all(run.settings.backbone.name == "mit-b1" for run in runs)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("compare=null", "'compare' is missing"),
        ("compare.axes={}", "compare.axes"),
        ("compare.axes.loss.bad={bank.k.more: 1}", "CLIP, bad: 'bank.k.more' cannot be set: 'k' is"),
        ("compare.seed=3", "compare.seed.*compare.seeds"),
        ("compare.seeds=[]", "compare.seeds"),
    ],
)
def test_what_is_wrong_is_named(file: Path, change: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        planned_runs(override(CompareJob.read_values(file), [change]))


def test_a_file_without_the_section_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("data: {folder: tiles}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="'compare' is missing"):
        CompareJob.read_values(tmp_path / "job.yaml")
