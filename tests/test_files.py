from __future__ import annotations

from pathlib import Path

import pytest

from napari_pbip.errors import OutputError
from napari_pbip.files import prepare_folder, write_json, writing


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
    with pytest.raises(OutputError, match="--overwrite"):
        prepare_folder(folder, "run.json", overwrite=False)
    prepare_folder(folder, "run.json", overwrite=True)
    assert list(folder.iterdir()) == []


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
