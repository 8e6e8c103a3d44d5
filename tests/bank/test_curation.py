from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_pbip.bank import Curation
from napari_pbip.bank.curation import CURATION
from napari_pbip.errors import BankError
from napari_pbip.taxonomy import Taxonomy

CLASSES = Taxonomy.from_names(("MUS", "TUM"))
A, B = "a" * 64, "b" * 64


def test_removed_and_moved() -> None:
    curation = Curation().remove([A]).move([B], "TUM")
    assert curation.class_of(A, 0, CLASSES) is None
    assert curation.class_of(B, 0, CLASSES) == 1
    assert curation.class_of("c" * 64, 0, CLASSES) == 0
    assert curation.move([A], "MUS").class_of(A, 1, CLASSES) == 0
    assert not Curation()
    assert curation


def test_written_and_read(tmp_path: Path) -> None:
    assert Curation.read(tmp_path) == Curation()
    curation = Curation().remove([A]).move([B], "TUM")
    curation.write(tmp_path)
    assert Curation.read(tmp_path) == curation
    assert json.loads((tmp_path / CURATION).read_text())["tiles"] == {A: None, B: "TUM"}


def test_a_class_that_is_no_more() -> None:
    curation = Curation().move([A, B], "FAT")
    assert curation.class_of(A, 1, CLASSES) == 1
    assert curation.unknown(CLASSES) == {"FAT": 2}


@pytest.mark.parametrize(
    "text",
    ['{"format": 1, "tiles": {"abc": null}}', '{"format": 2, "tiles": {}}', '{"tiles": {', '{"tiles": {}, "more": 1}'],
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / CURATION).write_text(text)
    with pytest.raises(BankError, match=r"cannot be read; restore it") as caught:
        Curation.read(tmp_path)
    assert str(caught.value).endswith(".")
