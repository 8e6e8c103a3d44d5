"""Missing requirements of a training, found from the settings only."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_pbip.config import JobSettings
from napari_pbip.engine.training.requirements import missing_requirements, starts_from_bank
from napari_pbip.models.encoders import lookup


@pytest.mark.parametrize(
    ("method", "encoder", "pretrained", "needed"),
    [
        ({"name": "pbip"}, "texture", False, []),
        ({"name": "lpd"}, "texture", False, []),
        ({"name": "pbip", "probe_share": 0.5}, "texture", False, ["method.probe_share"]),
        ({"name": "pbip", "probe_share": 0.5, "synthesis": 0}, "efficientnet-lite0", False, ["method.probe_share"]),
        ({"name": "pbip", "probe_share": 0.5}, "efficientnet-lite0", False, []),
        ({"name": "cam"}, None, False, []),
        ({"name": "probe"}, "texture", False, ["bank.encoder"]),
        ({"name": "probe"}, "medclip", False, ["bank.encoder"]),
        ({"name": "probe"}, "efficientnet-lite0", False, []),
        ({"name": "probe"}, "dinov2-small", False, []),
        ({"name": "construct"}, "texture", False, ["bank.encoder", "backbone.weights"]),
        ({"name": "construct"}, "medclip", True, ["bank.encoder"]),  # Swin
        ({"name": "construct"}, "uni", False, ["backbone.weights"]),
        ({"name": "construct"}, None, False, ["backbone.weights"]),
        ({"name": "construct"}, "uni", True, []),
        ({"name": "construct"}, "efficientnet-lite0", True, []),
        ({"name": "construct", "structure": 0}, "phikon", False, []),
        ({"name": "construct", "start": "text"}, "uni", True, ["method.start"]),
        ({"name": "construct", "start": "text"}, "plip", True, []),
        ({"name": "construct", "start": "text"}, "transformers", True, []),  # its weights tell
    ],
)
def test_what_each_method_needs(
    method: dict[str, object], encoder: str | None, pretrained: bool, needed: list[str], tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").touch()
    weights = tmp_path if pretrained else None
    settings = JobSettings.parse({"method": method, "backbone": {"weights": weights}})
    found = missing_requirements(settings, None if encoder is None else lookup(encoder))
    assert list(found) == needed
    assert all(str(error).count(". ") == 0 for error in found.values())


@pytest.mark.parametrize(("name", "says"), [("nowhere", "no weights of efficientnet-lite0"), ("lite.pth", "pickle")])
def test_weights_that_cannot_be_used_are_known_before_training(name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "lite.pth").touch()
    found = missing_requirements(JobSettings.parse({"backbone": {"weights": tmp_path / name}}), None)
    assert says in str(found["backbone.weights"])


def test_weights_that_come_with_the_package_are_of_one_backbone() -> None:
    found = missing_requirements(JobSettings.parse({"backbone": {"name": "resnet50", "weights": "builtin"}}), None)
    assert "efficientnet-lite0 only" in str(found["backbone.weights"])
    assert not missing_requirements(
        JobSettings.parse({"backbone": {"name": "efficientnet-lite0"}, "method": {"name": "construct"}}), None
    )


def test_where_prototypes_come_from() -> None:
    from_bank = {
        (name, start): starts_from_bank(JobSettings.parse({"method": {"name": name, **start_of(start)}}))
        for name, start in (("pbip", ""), ("lpd", ""), ("cam", ""), ("construct", "bank"), ("construct", "text"))
    }
    assert [key for key, value in from_bank.items() if value] == [("pbip", ""), ("construct", "bank")]


def start_of(start: str) -> dict[str, str]:
    return {"start": start} if start else {}
