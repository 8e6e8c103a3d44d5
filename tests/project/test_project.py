"""The project file: written and read, moved with its slides, damaged, newer; and slides that lie elsewhere now."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from napari_pbip import samples
from napari_pbip.bank.labelled_slides import LabelledSlides
from napari_pbip.config import DataSettings, JobSettings, ThresholdSettings, TrainSettings
from napari_pbip.engine.sample_project import sample_labels
from napari_pbip.errors import ProjectError
from napari_pbip.project import FILE, Project, ProjectResult, ProjectSlide, find_slides, last_project, remember
from napari_pbip.slides import open_slide


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder with two slides in ``slides`` and place for a project beside them."""
    slides = tmp_path / "study" / "slides"
    slides.mkdir(parents=True)
    shutil.copy(samples.slide(), slides / "skin.svs")
    shutil.copy(samples.tumour(), slides / "tumour.tif")
    return tmp_path / "study"


def _project(study: Path, elsewhere: Path) -> Project:
    folder = study / "project"
    slides = []
    for name in ("skin.svs", "tumour.tif"):
        with open_slide(study / "slides" / name) as slide:
            if slide.mpp is None:
                slide.give_mpp(0.5)
            slides.append(ProjectSlide.of(slide, is_open=name == "skin.svs"))
    store = folder / "results" / "skin-0123" / "skin.ome.zarr"
    thresholds = ThresholdSettings(delta=0.3, class_delta={"dermis": 0.6})
    settings = JobSettings(
        data=DataSettings(folder=folder / "tiles", mpp=0.5),
        bank_folder=elsewhere / "bank",
        train=TrainSettings(epochs=3),
    )
    return Project(
        slides=tuple(slides),
        current=slides[0].path,
        results=(ProjectResult(path=store, thresholds=thresholds, hidden=frozenset({1, 255}), opacity=0.7, open=True),),
        model=folder / "models" / "model 1",
        settings=settings,
        titles={"dermis": "corium"},
    )


def test_everything_comes_back(study: Path, tmp_path: Path) -> None:
    project = _project(study, tmp_path / "elsewhere")
    project.write(study / "project")
    assert Project.open(study / "project") == project


def test_where_the_microns_per_pixel_come_from(study: Path) -> None:
    skin, tumour = _project(study, study).slides
    assert (skin.mpp_from, skin.mpp) == ("slide", pytest.approx(0.499))
    assert (tumour.mpp_from, tumour.mpp) == ("user", 0.5)
    with open_slide(tumour.path) as slide:  # another machine, or the file beside the slide is gone
        tumour.give_mpp(slide)
        assert slide.mpp == 0.5
        assert slide.mpp_is_given
    Path(f"{tumour.path}.mpp.json").write_text('{"mpp": 0.25}', encoding="utf-8")
    with open_slide(tumour.path) as slide:  # the slide's own file was corrected since
        tumour.give_mpp(slide)
        assert slide.mpp == 0.25


def test_people_can_read_the_file(study: Path, tmp_path: Path) -> None:
    _project(study, tmp_path / "elsewhere").write(study / "project")
    document = json.loads((study / "project" / FILE).read_text(encoding="utf-8"))
    assert document["format"] == 2
    assert [slide["path"] for slide in document["slides"]] == ["../slides/skin.svs", "../slides/tumour.tif"]
    assert document["results"][0]["path"] == "results/skin-0123/skin.ome.zarr"
    assert document["model"] == "models/model 1"
    assert document["settings"]["data"]["folder"] == "tiles"
    assert document["settings"]["bank_folder"] == str(tmp_path / "elsewhere" / "bank")
    assert document["settings"]["backbone"]["weights"] == "builtin"


def test_the_map_that_is_shown_is_remembered_and_was_the_first_one_before(study: Path) -> None:
    project, folder = _project(study, study), study / "project"
    chosen = folder / "results" / "skin-0123" / "further-maps" / "second-0123" / "skin.ome.zarr"
    slides = (project.slides[0].model_copy(update={"map": chosen}), project.slides[1])
    project.model_copy(update={"slides": slides}).write(folder)
    assert Project.open(folder).slides == slides
    document = json.loads((folder / FILE).read_text(encoding="utf-8"))
    assert document["slides"][0]["map"] == "results/skin-0123/further-maps/second-0123/skin.ome.zarr"
    for slide in document["slides"]:
        del slide["map"]
    (folder / FILE).write_text(json.dumps(document | {"format": 1}), encoding="utf-8")
    assert Project.open(folder) == project


def test_a_moved_project_finds_its_slides(study: Path, tmp_path: Path) -> None:
    project = _project(study, tmp_path / "elsewhere")
    project.write(study / "project")
    there = tmp_path / "other machine" / "studie"
    there.parent.mkdir()
    study.rename(there)
    moved = Project.open(there / "project")
    assert [slide.path for slide in moved.slides] == [there / "slides" / "skin.svs", there / "slides" / "tumour.tif"]
    assert moved.current == there / "slides" / "skin.svs"
    assert moved.results[0].path.is_relative_to(there / "project" / "results")
    assert moved.settings.data.folder == there / "project" / "tiles"
    assert moved.settings.bank_folder == tmp_path / "elsewhere" / "bank"


def test_a_folder_without_the_file_says_what_it_can(tmp_path: Path) -> None:
    assert Project.open(tmp_path / "nothing") == Project()
    tiles = tmp_path / "tiles"
    labels = sample_labels()
    labels.write(tiles)
    assert Project.open(tmp_path).settings.data.folder is None  # the tiles were not cut
    labels.write_tables(tiles)
    assert Project.open(tmp_path).settings.data == DataSettings(folder=tiles, mpp=labels.size.mpp)
    (tiles / "labels.json").write_text("{", encoding="utf-8")
    assert Project.open(tmp_path) == Project()
    assert not (tmp_path / FILE).exists()
    assert LabelledSlides.read(tmp_path / "models") is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe{",
        b"[" * 100_000,
        b'{"slides": []}',
        b'{"format": "1"}',
        b'{"format": 1, "slides": 3}',
        b'{"format": 1, "slides": [{"path": "a.svs"}]}',
        b'{"format": 1, "slides": [{"path": "a.svs", "name": "a", "identity": "0", "mpp": 1e9}]}',
        b'{"format": 1, "colour": "red"}',
        b'{"format": 1, "settings": {"method": {"name": "of another package"}}}',
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ProjectError, match=r"cannot be read.*backup, or move it away") as caught:
        Project.open(tmp_path)
    assert str(caught.value).count(". ") == 0
    assert (tmp_path / FILE).read_bytes() == content


def test_a_newer_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"format": 3, "what": "we do not know"}', encoding="utf-8")
    with pytest.raises(ProjectError, match="newer version of napari-pbip; update"):
        Project.open(tmp_path)


def test_slides_elsewhere_are_found_by_name_and_identity(study: Path, tmp_path: Path) -> None:
    slides = _project(study, tmp_path).slides
    archive = tmp_path / "archive"
    (archive / "2024" / "a").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(archive / "skin.svs", "PNG")  # of this name, but another picture
    for slide, place in zip(slides, ("2024", "2024/a"), strict=True):
        slide.path.rename(archive / place / slide.path.name)
    found = find_slides(slides, archive)
    assert found == {
        slides[0].path: archive / "2024" / "skin.svs",
        slides[1].path: archive / "2024" / "a" / "tumour.tif",
    }
    assert find_slides(slides, tmp_path / "study") == {}


@pytest.mark.skipif(os.name == "nt", reason="the path is one of this system there")
def test_a_slide_with_a_path_of_windows_is_found_on_another_system(study: Path, tmp_path: Path) -> None:
    first = _project(study, tmp_path).slides[0]
    foreign = first.model_copy(update={"path": study / "D:\\slides\\skin.svs"})  # as a project resolves it
    assert find_slides([foreign], first.path.parent) == {foreign.path: first.path}


def test_equal_slides_of_one_name_are_each_found_once(study: Path, tmp_path: Path) -> None:
    first = _project(study, tmp_path).slides[0]
    second = first.model_copy(update={"path": study / "copies" / "skin.svs"})
    for place in ("a", "b"):
        (tmp_path / "new" / place).mkdir(parents=True)
        shutil.copy(first.path, tmp_path / "new" / place / "skin.svs")
    found = find_slides([first, second], tmp_path / "new")
    assert set(found) == {first.path, second.path}
    assert len(set(found.values())) == 2


@pytest.mark.skipif(os.name == "nt", reason="Windows asks the system for its folders, not the environment")
def test_the_last_project_is_remembered_while_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert last_project() is None
    folder = tmp_path / "stüdy"
    folder.mkdir()
    remember(folder)
    assert last_project() == folder
    folder.rmdir()
    assert last_project() is None
