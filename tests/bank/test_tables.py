"""Tables of tiles as spreadsheets, R and pandas write them, and other tables in data folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_pbip.bank import find_splits, load_tiles
from napari_pbip.config import DataSettings
from napari_pbip.errors import DataError

ROWS = "S1/a.png,1,0\nS2/b.png,0,1\n"
PLAIN = f"path,TUM,STR\n{ROWS}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write two tiles in a folder per slide; these folders must not become classes."""
    for path in ("S1/a.png", "S2/b.png"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tiles.csv", PLAIN.encode()),
        ("tiles.csv", PLAIN.encode("utf-8-sig")),
        ("tiles.csv", PLAIN.encode("utf-16")),
        ("tiles.csv", b"\xfe\xff" + PLAIN.encode("utf-16-be")),
        ("tiles.csv", PLAIN.replace("\n", "\r\n").encode()),
        ("tiles.csv", f"sep=,\n{PLAIN}".encode()),
        ("tiles.csv", f"sep=;\r\n{PLAIN.replace(',', ';')}".encode()),
        ("tiles.csv", f'"path","TUM","STR"\n{ROWS}'.encode()),
        ("tiles.csv", f" Path , TUM,STR\n\n{ROWS}\n".encode()),
        ("tiles.csv", PLAIN.replace(",", "\t").encode()),
        ("tiles.csv", PLAIN.replace("/", "\\").encode()),
        ("TILES.CSV", PLAIN.encode()),
        ("tiles.tsv", PLAIN.replace(",", "\t").encode()),
        ("tiles.csv", b",path,TUM,STR\n0,S1/a.png,1,0\n1,S2/b.png,0,1\n"),
        ("tiles.csv", b'"path";"TUM";"STR";"slide";"X";"Y"\nS1/a.png;1;0;a;5;6\nS2/b.png;0;1;"b,c\nd";7;8\n'),
    ],
)
def test_tables_of_every_make_are_read(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    for named in (folder, folder / name):
        tiles = load_tiles(named)
        assert tiles.layout == "csv"
        assert tiles.taxonomy.names == ("TUM", "STR")
        assert [t.class_index for t in tiles] == [0, 1]
        assert [t.path.name for t in tiles] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (PLAIN.encode("utf-16-le"), "save it as CSV in UTF-8"),
        (PLAIN.replace("TUM", "Tumör").encode("latin-1"), "save it as CSV in UTF-8"),
        (PLAIN.replace("path", "filename").encode(), "call that column path"),
        (b"path,label\nS1/a.png,TUM\nS2/b.png,STR\n", "a 0/1 column for each class"),
        (b"path,TUM,bytes\nS1/a.png,1,12345\n", "holds '12345' in the column bytes"),
        (b"path,TUM,TUM\nS1/a.png,1,0\n", "two columns 'TUM'"),
        (b"path,TUM,STR\nS1/a.png,1\n", "does not match its header"),
    ],
)
def test_a_table_that_cannot_be_read_is_no_reason_to_take_folders(folder: Path, content: bytes, says: str) -> None:
    (folder / "tiles.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"\.$") as caught:
        load_tiles(folder)
    assert says in str(caught.value)
    assert "data.layout=folders" in str(caught.value) or "two columns" in says
    assert load_tiles(folder, settings=DataSettings(layout="folders")).taxonomy.names == ("S1", "S2")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.csv", b"path,bytes,sha\nS1/a.png,12345,ab\n"),
        ("files.csv", b"path\nS1/a.png\n"),
        ("patients.csv", b"patient,age\np1,70\n"),
        ("notes.csv", "gr\xf6\xdfe\n1\n".encode("latin-1")),
        ("labels.xlsx", b"PK\x03\x04"),
    ],
)
def test_other_tables_are_left_out_and_told(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    tiles = load_tiles(folder)
    assert tiles.taxonomy.names == ("S1", "S2")
    assert any(name in note for note in tiles.notes)


def test_a_manifest_beside_the_folders_of_splits(folder: Path) -> None:
    for split in ("train", "val"):
        (folder / split / "A").mkdir(parents=True)
        (folder / split / "A" / "a.png").touch()
    (folder / "manifest.csv").write_text("path,bytes\ntrain/A/a.png,12345\n")
    assert find_splits(folder, DataSettings()) == ("train", "val")


def test_several_tables_are_not_chosen_among(folder: Path) -> None:
    (folder / "one.csv").write_text(PLAIN)
    (folder / "manifest.csv").write_text("path,bytes\nS1/a.png,5\n")
    assert load_tiles(folder).layout == "csv"
    (folder / "two.csv").write_text(PLAIN)
    with pytest.raises(DataError, match=r"one\.csv, two\.csv"):
        load_tiles(folder)


def test_a_table_beside_its_pictures(tmp_path: Path) -> None:
    (tmp_path / "tiles.csv").write_text("path,A,B\na.png,1,0\nb.png,0,1\n")
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    assert load_tiles(tmp_path).layout == "csv"
    (tmp_path / "c[10].png").touch()
    with pytest.raises(DataError, match=r"data\.layout"):
        load_tiles(tmp_path)


def test_rows_that_come_twice_or_contradict_are_told(folder: Path) -> None:
    (folder / "tiles.csv").write_text(PLAIN + ROWS)
    (warning,) = load_tiles(folder).warnings
    assert "2 rows of tiles.csv list a tile again, such as row 4 (a.png)" in warning
    (folder / "tiles.csv").write_text(PLAIN + "S1/a.png,0,1\n")
    (warning,) = load_tiles(folder).warnings
    assert "a.png is labelled TUM in row 2 of tiles.csv and STR in row 4" in warning


def test_a_column_that_is_no_class_is_told(folder: Path) -> None:
    (folder / "tiles.csv").write_text("path,TUM,STR,qc_pass\nS1/a.png,1,0,1\nS2/b.png,0,1,1\n")
    tiles = load_tiles(folder)
    assert "qc_pass 2" in tiles.description
    assert "Every tile shows qc_pass" in tiles.warnings[0]
    named = load_tiles(folder, settings=DataSettings(classes=("TUM", "STR")))
    assert not named.warnings
    assert any("qc_pass" in note for note in named.notes)


def test_splits_of_rows(folder: Path) -> None:
    (folder / "tiles.csv").write_text(
        "path,split,A,B\nS1/a.png,Training,1,0\nS2/b.png,TEST,0,1\nS2/b.png,unused,0,1\nS1/a.png,test,1,0\n"
    )
    assert find_splits(folder, DataSettings()) == ("train", "test")
    train = load_tiles(folder)
    assert [t.path.name for t in train] == ["a.png"]
    assert any("1 rows" in note and "'unused'" in note for note in train.notes)
    assert "another split" in train.warnings[0]
    assert train.splits == ("train", "test")


def test_a_row_is_told_by_its_line(folder: Path) -> None:
    (folder / "tiles.csv").write_text("sep=,\npath,A,B\n\nS1/a.png,1,0\nS1/gone.png,1,0\n")
    with pytest.raises(DataError, match=r"Row 5 of .*gone\.png"):
        load_tiles(folder)
