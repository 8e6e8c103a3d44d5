"""What is missing before a training is begun, told by the settings alone."""

from __future__ import annotations

import pytest

from napari_pbip.config import JobSettings
from napari_pbip.engine.needs import starts_from_bank, still_needed
from napari_pbip.models.encoders import lookup


@pytest.mark.parametrize(
    ("method", "encoder", "weights", "needed"),
    [
        ({"name": "pbip"}, "texture", None, []),
        ({"name": "lpd"}, "texture", None, []),
        ({"name": "cam"}, None, None, []),
        ({"name": "construct"}, "texture", None, ["bank.encoder", "backbone.weights"]),
        ({"name": "construct"}, "medclip", "mit", ["bank.encoder"]),  # Swin
        ({"name": "construct"}, "uni", None, ["backbone.weights"]),
        ({"name": "construct"}, None, None, ["backbone.weights"]),
        ({"name": "construct"}, "uni", "mit", []),
        ({"name": "construct", "structure": 0}, "phikon", None, []),
        ({"name": "construct", "start": "text"}, "uni", "mit", ["method.start"]),
        ({"name": "construct", "start": "text"}, "plip", "mit", []),
        ({"name": "construct", "start": "text"}, "transformers", "mit", []),  # its weights tell
    ],
)
def test_what_each_method_needs(
    method: dict[str, object], encoder: str | None, weights: str | None, needed: list[str]
) -> None:
    settings = JobSettings.parse({"method": method, "backbone": {"weights": weights}})
    found = still_needed(settings, None if encoder is None else lookup(encoder))
    assert list(found) == needed
    assert all(str(error).count(". ") == 0 for error in found.values())


def test_where_prototypes_come_from() -> None:
    from_bank = {
        (name, start): starts_from_bank(JobSettings.parse({"method": {"name": name, **start_of(start)}}))
        for name, start in (("pbip", ""), ("lpd", ""), ("cam", ""), ("construct", "bank"), ("construct", "text"))
    }
    assert [key for key, value in from_bank.items() if value] == [("pbip", ""), ("construct", "bank")]


def start_of(start: str) -> dict[str, str]:
    return {"start": start} if start else {}
