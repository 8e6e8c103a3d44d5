"""Labelled tiles are exported in layouts that are read again with the same labels."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from napari_pbip import cli, samples
from napari_pbip.bank import LabelledTile, TileSet, load_tiles
from napari_pbip.bank.tiles import Origin
from napari_pbip.config import DataSettings
from napari_pbip.engine.outputs.export_tiles import TILE_FORMATS, export_tiles
from napari_pbip.errors import OutputError
from napari_pbip.events import Finished, Step, Warned
from napari_pbip.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_names(("tumour", "stroma", "fat"), ("#AA0000", "#00AA00", "#0000AA"))


@pytest.fixture
def tiles() -> TileSet:
    """Return real tiles of one and of two classes, with and without a place on a slide."""
    pictures = sorted(samples.tiles().rglob("*.png"))[:6] or sorted(samples.tiles().rglob("*.jpg"))[:6]
    labels = [{0}, {1}, {0, 2}, {2}, {1}, {0}]
    origins = [Origin("slide 1", 0, 448), Origin("slide 1", 448, 0), Origin("slide/2", 8, 8), *[None] * 3]
    made = (
        LabelledTile(*one[:1], frozenset(one[1]), origin=one[2]) for one in zip(pictures, labels, origins, strict=True)
    )
    return TileSet(TAXONOMY, tuple(made), "csv", samples.tiles(), "train")


def by_content(tiles: TileSet) -> dict[str, frozenset[int]]:
    return {tile.file_hash(): tile.labels for tile in tiles}


@pytest.mark.parametrize(
    ("name", "layout"), [("bcss-wsss", "bcss"), ("tile-table", "csv"), ("class-folders", "folders")]
)
def test_the_layouts_are_read_with_the_same_labels(tiles: TileSet, tmp_path: Path, name: str, layout: str):
    *events, last = export_tiles(tiles, tmp_path / "out", name)
    expected = by_content(tiles)
    warned = [event for event in events if isinstance(event, Warned)]
    if name == "class-folders":
        expected = {key: labels for key, labels in expected.items() if len(labels) == 1}
        assert warned[0].message.startswith("1 of 6 tiles have no single class")
    else:
        assert not warned
    assert last == Finished(tmp_path / "out", {"tiles": len(expected)})
    again = load_tiles(tmp_path / "out")
    assert again.layout == layout
    assert again.taxonomy == TAXONOMY
    assert by_content(again) == expected
    origins = {tile.file_hash(): tile.origin for tile in again}
    first, second = (tiles.tiles[n] for n in (0, 1))
    assert origins[first.file_hash()] == first.origin
    assert origins[second.file_hash()] == second.origin


def test_tiles_of_equal_names_are_all_there(tiles: TileSet, tmp_path: Path):
    for folder, tile in zip(("a", "b"), tiles, strict=False):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes(tile.path.read_bytes())
    same = tuple(LabelledTile(tmp_path / folder / "x.png", frozenset({0})) for folder in ("a", "b"))
    list(export_tiles(TileSet(TAXONOMY, same, "csv", tmp_path, "train"), tmp_path / "out", "class-folders"))
    assert len(list((tmp_path / "out" / "tumour").iterdir())) == 2


def test_nothing_is_replaced_or_half_written(tiles: TileSet, tmp_path: Path):
    job = export_tiles(tiles, tmp_path / "out", "tile-table")
    next(event for event in job if isinstance(event, Step))
    job.close()
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        list(export_tiles(tiles, tmp_path / "out", "tile-table"))
    slashed = TileSet(Taxonomy.from_names(("a/b",)), tiles.tiles[:1], "csv", tmp_path, "train")
    with pytest.raises(OutputError, match="cannot be called 'a/b'"):
        list(export_tiles(slashed, tmp_path / "other", "class-folders"))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", TILE_FORMATS)
def test_the_command(tmp_path: Path, name: str):
    arguments = ["export", str(samples.tiles()), "--format", name, "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert by_content(load_tiles(tmp_path / "out", settings=DataSettings())) == by_content(load_tiles(samples.tiles()))
