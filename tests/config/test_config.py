from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_pbip.config import BackboneSettings, CamSettings, JobSettings, PbipSettings, override
from napari_pbip.errors import ConfigError
from napari_pbip.models import backbones, builtin


def test_a_backbone_starts_from_the_weights_that_come_with_the_package_where_there_are_such() -> None:
    started = {name: BackboneSettings(name=name).weights for name in backbones.catalogue()}
    assert {name for name, weights in started.items() if weights is not None} == {builtin.BACKBONE}
    assert BackboneSettings().weights == "builtin"
    assert BackboneSettings.parse({"weights": None}).weights is None


def test_words_are_no_paths(tmp_path: Path) -> None:
    for word, weights in (("builtin", "builtin"), ("mine", tmp_path / "mine")):
        (tmp_path / "job.yaml").write_text(f"backbone: {{weights: {word}}}")
        assert JobSettings.read(tmp_path / "job.yaml").backbone.weights == weights


def test_settings_survive_yaml(tmp_path: Path) -> None:
    settings = JobSettings.parse(
        {
            "data": {"folder": "/data/tiles", "classes": ["TUM", "STR"]},
            "bank": {"k": {"TUM": 4, "STR": "auto"}},
            "method": {"name": "pbip", "preset": "released", "delta": 0.3},
            "train": {"learning_rate": 3e-4},
            "thresholds": {"class_delta": {"TUM": 0.4}},
        }
    )
    settings.write(tmp_path / "job.yaml")
    assert JobSettings.read(tmp_path / "job.yaml") == settings


def test_a_preset_fills_in_only_what_is_not_given() -> None:
    released = PbipSettings(preset="released")
    assert released.delta == 0.5
    assert released.mask == "released"
    assert PbipSettings(preset="released", delta=0.3).delta == 0.3
    assert PbipSettings().delta == 0.15
    assert PbipSettings(preset="paper").beta == 0.5


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"trian": {}}, ("'trian'", "'train'")),
        ({"train": {"epocs": 3}}, ("'train.epocs'", "'train.epochs'")),
        ({"method": {"name": "pbip", "delt": 0.2}}, ("'method.delt'", "'method.delta'")),
        ({"train": {"epochs": 0}}, ("'train.epochs'", "greater than or equal to 1")),
        ({"method": {"name": "pbib"}}, ("method", "pbib", "pbip")),
        ({"bank": {"k": 0}}, ("'bank.k'",)),
        ({"bank": {"k": {"TUM": 0}}}, ("'bank.k.TUM'", "greater than or equal to 1")),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it(values: dict[str, object], words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        JobSettings.parse(values)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_relative_paths_count_from_the_settings_file(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("data: {folder: tiles}\nbank_folder: bank\n")
    settings = JobSettings.read(tmp_path / "job.yaml")
    assert settings.data.folder == tmp_path / "tiles"
    assert settings.bank_folder == tmp_path / "bank"


def test_assignments_go_on_top(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("train: {epochs: 3, seed: 1}\n")
    values = override(JobSettings.read_values(tmp_path / "job.yaml"), ["train.epochs=9", "method={name: cam}"])
    settings = JobSettings.parse(values)
    assert (settings.train.epochs, settings.train.seed) == (9, 1)
    assert isinstance(settings.method, CamSettings)


@pytest.mark.parametrize("assignment", ["train.epochs", "=3", "train.epochs.sub=3", "a=[1"])
def test_a_wrong_assignment_is_a_config_error(assignment: str) -> None:
    with pytest.raises(ConfigError):
        override({"train": {"epochs": 3}}, [assignment])


@pytest.mark.parametrize("text", ["- a list\n", "a: [1\n", "\x00"])
def test_a_file_that_is_no_settings_file_is_a_config_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"job\.yaml"):
        JobSettings.read(tmp_path / "job.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        JobSettings.read(tmp_path / "missing.yaml")


@given(st.lists(st.sampled_from(["train.epochs=2", "train.seed=4", "bank.k=auto"])))
def test_override_leaves_its_input_alone(assignments: list[str]) -> None:
    values = {"train": {"epochs": 1}, "bank": {"k": 3}}
    override(values, assignments)
    assert values == {"train": {"epochs": 1}, "bank": {"k": 3}}


def test_every_setting_has_a_help_text() -> None:
    def check(model: type[JobSettings]) -> None:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if hasattr(part, "model_fields"):
                    check(part)

    check(JobSettings)
