from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from pydantic import ValidationError
from skimage.color import deltaE_ciede2000, rgb2lab

from napari_pbip.taxonomy import BCSS, LUAD, Taxonomy


@pytest.mark.parametrize("names", [(), ("TUM", "TUM"), ("TUM", " "), tuple(str(i) for i in range(65))])
def test_wrong_names_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        Taxonomy.from_names(names)


def test_names_are_equal_that_look_equal() -> None:
    """macOS writes accents as two characters (NFD)."""
    apart = unicodedata.normalize("NFD", "Stróma")
    assert apart != "Stróma"
    assert Taxonomy.from_names((f"{apart} ", "TUM")) == Taxonomy.from_names(("Stróma", "TUM"))
    assert Taxonomy.from_names(("TUM", "Stróma")).index(apart) == 1
    with pytest.raises(ValidationError, match="cannot both be named “Stróma”"):
        Taxonomy.from_names((apart, "Stróma"))


def test_json_round_trip() -> None:
    assert Taxonomy.from_json(BCSS.to_json()) == BCSS


def test_the_two_published_orders_differ() -> None:
    assert BCSS.index("NEC") == 3
    assert LUAD.index("NEC") == 1
    with pytest.raises(KeyError, match="no class"):
        LUAD.index("TUM")


# Machado, Oliveira & Fernandes (2009), severity 1.0, acting on linear RGB
_DICHROMACY = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("kind", _DICHROMACY)
def test_default_colours_can_be_told_apart_by_colour_blind_readers(kind: str) -> None:
    rgb = Taxonomy.from_names([str(i) for i in range(7)]).colours / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(_DICHROMACY[kind]).T, 0, 1)
    lab = rgb2lab(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055))
    difference = deltaE_ciede2000(lab[:, None], lab[None])
    assert difference[~np.eye(7, dtype=bool)].min() > 8  # well above the just noticeable difference of about 1


def test_many_classes_have_many_colours() -> None:
    colours = Taxonomy.from_names([str(i) for i in range(21)]).colours
    assert len({tuple(c) for c in colours}) == 21
