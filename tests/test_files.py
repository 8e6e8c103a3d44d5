from __future__ import annotations

import json
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from napari_pbip.errors import OutputError
from napari_pbip.files import prepare_folder, present, safe_name, write_json, write_table, writing, writing_folder


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "facts.json"
    write_json(target, {"a": 1})
    with pytest.raises(KeyboardInterrupt), writing(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["facts.json"]
    assert target.read_text() == '{\n  "a": 1\n}\n'


def test_an_earlier_result_is_never_replaced_silently(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    prepare_folder(folder, "run.json", overwrite=False)
    (folder / "run.json").write_text("{}")
    with pytest.raises(OutputError, match="`overwrite=True`"):
        prepare_folder(folder, "run.json", overwrite=False)
    prepare_folder(folder, "run.json", overwrite=True)
    assert list(folder.iterdir()) == []


def test_what_a_killed_process_began_to_write_is_no_result(tmp_path: Path) -> None:
    """A job that was killed before its first file had its name can start again without ``--overwrite``."""
    (tmp_path / ".run.json.part").write_text("{")
    prepare_folder(tmp_path, "run.json", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(OutputError, match="not deleted"):
        prepare_folder(tmp_path, "run.json", overwrite=True)
    assert (tmp_path / "thesis.docx").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="The disk is full"), writing(tmp_path / "facts.json") as temporary:
        temporary.symlink_to("/dev/full")
        temporary.write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        write_json(tmp_path / "out" / "facts.json", {})


def test_a_replaced_folder_is_there_whenever_the_process_is_killed(tmp_path: Path, monkeypatch: Any) -> None:
    """It is killed at each step of the replacement (renames and removals raise an error that nothing catches)."""

    class Killed(BaseException):
        pass

    def write(text: str) -> None:
        with writing_folder(tmp_path / "labels") as folder:
            (folder / "zarr.json").write_text(text)

    for steps in range(8):
        write("before")
        left = steps

        def step(real: Any) -> Any:
            def run(*args: Any, **kwargs: Any) -> Any:
                nonlocal left
                if left == 0:
                    raise Killed
                left -= 1
                return real(*args, **kwargs)

            return run

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", step(Path.replace))
            patch.setattr(shutil, "rmtree", step(shutil.rmtree))
            try:
                write("after")
                ended = True
            except Killed:
                ended = False
        found = (present(tmp_path / "labels") / "zarr.json").read_text()
        assert found == "after" if ended else found in ("before", "after")
        write("again")
        assert [one.name for one in tmp_path.iterdir()] == ["labels"]
        assert (tmp_path / "labels" / "zarr.json").read_text() == "again"
    assert ended


@pytest.mark.parametrize("kept", range(4))
def test_replacing_a_result_is_finished_after_a_kill(kept: int, tmp_path: Path, monkeypatch: Any) -> None:
    """Whatever was deleted before the kill, the folder is still recognised as a result, and no deleted file returns."""
    folder = tmp_path / "run"
    prepare_folder(folder, "run.json", overwrite=False)
    for name in ("a.safetensors", "run.json", "z.csv"):
        (folder / name).write_text("x")
    moved = 0

    def step(self: Path, target: Path, real: Any = Path.replace) -> Path:
        nonlocal moved
        if moved == kept:
            raise KeyboardInterrupt
        moved += 1
        moved_to: Path = real(self, target)
        return moved_to

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", step)
        with suppress(KeyboardInterrupt):
            prepare_folder(folder, "run.json", overwrite=True)
    assert moved == min(kept, 3)
    prepare_folder(folder, "run.json", overwrite=True)
    assert list(folder.iterdir()) == []


def test_what_a_file_manager_leaves_in_a_folder_is_nothing(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    prepare_folder(tmp_path, "run.json", overwrite=False)


def test_a_file_that_another_program_has_open_is_waited_for(tmp_path: Path, monkeypatch: Any) -> None:
    """With the error of Windows while a virus scanner or viewer reads the file."""
    target, refused = tmp_path / "facts.json", 0
    write_json(target, {"a": 1})

    def busy(self: Path, to: Path, real: Any = Path.replace) -> Path:
        nonlocal refused
        if refused < 3:
            refused += 1
            error = PermissionError(13, "The process cannot access the file because it is being used")
            error.winerror = 32
            raise error
        moved: Path = real(self, to)
        return moved

    monkeypatch.setattr(Path, "replace", busy)
    write_json(target, {"a": 2})
    assert (refused, json.loads(target.read_text())) == (3, {"a": 2})


def test_a_file_that_may_not_be_replaced_is_one_sentence_at_once(tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(self: Path, to: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        write_json(tmp_path / "facts.json", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("CMU-1-Small-Region", "CMU-1-Small-Region"),
        ("S 12/34: b?", "S 12_34_ b_"),
        ("CON", "CON_"),
        ("nul.v2", "nul_.v2"),
        ("com\u00b9", "com\u00b9_"),
        ("console", "console"),
        ("ends in a dot.", "ends in a dot._"),
        ("space ", "space _"),
        ("", "_"),
        ("a\tb", "a_b"),
        ("mu\u0308nchen", "m\u00fcnchen"),
        ("\u75c5\u7406" * 60, "\u75c5\u7406" * 13),
    ],
)
def test_names_that_every_system_can_hold(name: str, safe: str) -> None:
    assert safe_name(name) == safe
    assert safe_name(safe) == safe


def test_long_names_are_written(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 250 + ".json")
    write_json(target, {})
    assert [one.name for one in tmp_path.iterdir()] == [target.name]


def test_a_table_is_parquet_if_its_name_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("ä, b", Path("a.svs"), 1, 0.1 + 0.2), ("c", None, 2, None)]
    for name, read in (("table.csv", pd.read_csv), ("table.parquet", pd.read_parquet)):
        write_table(tmp_path / name, ["name", "path", "count", "value"], rows)
        table = read(tmp_path / name)
        assert table["name"].tolist() == ["ä, b", "c"]
        assert (table["path"][0], table["count"].tolist()) == ("a.svs", [1, 2])
        assert table["value"][0] == (0.3 if name.endswith("csv") else 0.1 + 0.2)
        assert table.isna().loc[1, ["path", "value"]].all()
    write_table(tmp_path / "empty.parquet", ["name"], [])
    assert list(pd.read_parquet(tmp_path / "empty.parquet").columns) == ["name"]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OutputError, match=r"pip install napari-pbip\[parquet\]"):
        write_table(tmp_path / "other.parquet", ["name"], [])
