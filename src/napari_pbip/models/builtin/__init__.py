"""The weights that come with the package, an encoder and its backbone; MODEL_CARD.md says what they learned from."""

from __future__ import annotations

from pathlib import Path

from napari_pbip.errors import WeightsUnavailable

WEIGHTS = Path(__file__).with_name("model.safetensors")
"""As ``napari-pbip pretrain`` writes them; ``tools/make_builtin_weights.py`` made them."""
BACKBONE = "mit-b0"
"""Name of the backbone in the catalogue."""


def backbone_weights(name: str) -> Path:
    """The file with the weights of a backbone.

    Raises
    ------
    WeightsUnavailable
        If the package comes with none of that backbone.
    """
    if name != BACKBONE:
        raise WeightsUnavailable(
            f"napari-pbip comes with weights of {BACKBONE} only; leave backbone.weights empty to train {name} from "
            "scratch, or name a file with its weights."
        )
    return WEIGHTS
