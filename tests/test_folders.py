"""Other contents of folders with pictures: links, folders of the system, our results."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_pbip.errors import DataError
from napari_pbip.folders import listing, walk


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_system_and_result_folders_are_told_apart(tmp_path: Path) -> None:
    data = [touch(tmp_path / name / "a.png") for name in ("A", "bank")]
    system = ["@eaDir", "$RECYCLE.BIN", "__MACOSX", ".ipynb_checkpoints", "lost+found", "System Volume Information"]
    for name in system:
        touch(tmp_path / name / "a.png")
    touch(tmp_path / "a bank" / "features.safetensors")
    touch(tmp_path / "a run" / "run.json")
    touch(tmp_path / "a result" / "s.ome.zarr" / "pbip" / "zarr.json")
    touch(tmp_path / "a result" / "areas.csv")
    touch(tmp_path / "s.ome.zarr" / "pbip" / "zarr.json")
    touch(tmp_path / "Thumbs.db")
    touch(tmp_path / "._a.png")
    found = listing(tmp_path)
    assert {path.name for path in found.folders} == {"A", "bank"}
    assert {path.name for path in found.system} == set(system)
    assert {path.name for path in found.results} == {"a bank", "a run", "a result", "s.ome.zarr"}
    assert found.files == ()
    assert walk([tmp_path]).files == tuple(data)


def test_a_slide_of_ome_zarr_is_no_result(tmp_path: Path) -> None:
    touch(tmp_path / "slide.ome.zarr" / "zarr.json")
    assert listing(tmp_path).folders == (tmp_path / "slide.ome.zarr",)


def test_links_are_followed_and_never_round_and_round(tmp_path: Path) -> None:
    inside = touch(tmp_path / "data" / "A" / "a.png")
    touch(tmp_path / "data" / "B" / "b.png")
    touch(tmp_path / "elsewhere" / "c.png")
    (inside.parent / "more").symlink_to(tmp_path / "elsewhere")
    (inside.parent / "up").symlink_to(tmp_path / "data")
    (inside.parent / "self").symlink_to(inside.parent)
    assert [path.name for path in walk([tmp_path / "data" / "A"]).files] == ["a.png", "c.png"]


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        listing(tmp_path / "gone")
