"""A project opens as it was left: in the same sitting, after a restart, on another machine, beside another window."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import napari
import pytest

from napari_pbip.config import DataSettings, JobSettings, ThresholdSettings, TrainSettings
from napari_pbip.engine.sample_project import sample_labels
from napari_pbip.gui.docks.slides import SlidesWidget
from napari_pbip.gui.docks.train import TrainWidget
from napari_pbip.gui.sessions import session_of
from napari_pbip.project import FILE, Project
from tests.gui.qt_helpers import Settle, open_slides
from tests.gui.sitting import sitting as of_sitting
from tests.waiting import PATIENCE


@pytest.fixture
def widget(viewer: Any, settle: Settle) -> SlidesWidget:
    widget = SlidesWidget(viewer)
    viewer.window.add_dock_widget(widget)
    settle()
    return widget


def opened(session: Any, settle: Settle) -> None:
    """Wait until a project is open as it was left."""
    settle(lambda: not session.project.opening and not session.jobs)
    settle()


def sitting(what: str, study: Path, locale: str) -> dict[str, Any]:
    """Run a sitting in a language, in a process of its own; return what is there at its end."""
    return of_sitting("tests.gui.state.project_process", what, study, locale)  # type: ignore[no-any-return]


def test_a_script_that_ends_without_quitting_loses_nothing(display: None, study: Path) -> None:
    script = (
        "import sys, napari; from pathlib import Path; from napari_pbip.gui.sessions import session_of\n"
        "viewer = napari.Viewer(show=False); session = session_of(viewer); study = Path(sys.argv[1])\n"
        "session.folder = study / 'project'; session.slides.open(study / 'slides' / 'skin.svs')\n"
        "viewer.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(study)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert "Traceback" not in done.stderr
    assert [slide.path.name for slide in Project.open(study / "project").slides] == ["skin.svs"]


def test_after_a_restart_everything_is_as_it_was(display: None, study: Path) -> None:
    left = sitting("work", study, "de_DE")  # with decimal commas
    assert left["slides"] == [["tumour.tif", 0.25, True], ["skin.svs", pytest.approx(0.499), False]]
    [thresholds] = left["thresholds"].values()
    assert thresholds["delta"] == pytest.approx(0.25)
    assert list(thresholds["class_delta"]) == ["STR"]
    assert (left["hidden"], left["opacity"], left["current"]) == ([2], pytest.approx(0.6), "skin.svs")
    assert left["camera"][:2] == [300, 400]
    assert left["step"] == "Project"
    assert left["sorted"] == ["TUM\n%", "DescendingOrder"]
    assert left["rows"] == ["skin.svs"]  # by the filter
    assert left["colours"] == ["#123456", 0x12, 0x34, 0x56, 255]
    (study / "slides" / "tumour.tif.mpp.json").unlink()  # the project remembers what the user said, too
    there = study.with_name("other machine")
    study.rename(there)
    (there / "last-project.txt").write_text(str(there / "project"), encoding="utf-8")
    found = sitting("look", there, "C")
    moved = json.loads(json.dumps(left).replace(str(study), str(there)))
    assert found == moved


def test_another_folder_is_another_project(viewer: Any, widget: Any, settle: Settle, study: Path) -> None:
    session = session_of(viewer)
    first = session.folder
    first.mkdir()
    labels = sample_labels()
    labels.write(first / "tiles")
    labels.write_tables(first / "tiles")
    session.change(data=DataSettings(folder=first / "tiles"), train=TrainSettings(epochs=7))
    open_slides(viewer, widget, settle, study / "slides" / "tumour.tif")
    widget.project.choose_folder(study / "project")
    assert session.settings == JobSettings()
    assert not len(session.slides)
    assert session.project.slides == ()
    open_slides(viewer, widget, settle, study / "slides" / "skin.svs")
    result = session.results.open(study / "project" / "results" / "skin" / "skin.ome.zarr")
    result.display.thresholds = ThresholdSettings(delta=0.4)
    widget.project.choose_folder(first)
    opened(session, settle)
    assert [one.slide.path.name for one in session.slides] == ["tumour.tif"]
    assert not len(session.results)
    assert session.settings.train.epochs == 7
    widget.project.choose_folder(study / "project")
    opened(session, settle)
    assert [one.slide.path.name for one in session.slides] == ["skin.svs"]
    assert session.results[0].thresholds.delta == 0.4
    assert session.results.current is session.results[0]


def test_a_folder_of_an_earlier_version_opens_with_its_tiles(viewer: Any, settle: Settle, tmp_path: Path) -> None:
    session, folder = session_of(viewer), tmp_path / "earlier"
    labels = sample_labels()
    labels.write(folder / "tiles")
    labels.write_tables(folder / "tiles")
    session.folder = folder
    train = TrainWidget(viewer)  # without a visit to Label tiles
    viewer.window.add_dock_widget(train)
    settle()
    assert "<b>labelled on slides</b>" in train.source.text()
    assert not train.missing.isVisible()
    assert not (folder / FILE).exists()  # nothing was changed


def test_slides_opened_before_a_project_was_chosen_come_along(viewer: Any, settle: Settle, study: Path) -> None:
    other = napari.Viewer()
    session = session_of(other)
    try:
        session.slides.open(study / "slides" / "skin.svs")
        (study / "new").mkdir()
        session.folder = study / "new"
        assert [one.slide.path.name for one in session.slides] == ["skin.svs"]
        session.project.save()
        assert [slide.path.name for slide in Project.open(study / "new").slides] == ["skin.svs"]
    finally:
        session.close()
        other.close()


def test_a_window_that_looks_makes_no_folder(viewer: Any, settle: Settle, study: Path) -> None:
    session = session_of(viewer)
    session.slides.open(study / "slides" / "skin.svs")
    session.project.save()
    session.project.close()
    assert not session.folder.exists()


def test_slides_that_lie_elsewhere_are_asked_for_once(viewer: Any, widget: Any, settle: Settle, study: Path) -> None:
    session = session_of(viewer)
    widget.project.choose_folder(study / "project")
    open_slides(viewer, widget, settle, study / "slides" / "skin.svs", study / "slides" / "tumour.tif")
    session.results.open(study / "project" / "results" / "skin" / "skin.ome.zarr")
    settle()
    widget.project.choose_folder(study / "nothing")
    (study / "archive" / "2026").mkdir(parents=True)
    for name in ("skin.svs", "tumour.tif"):
        (study / "slides" / name).rename(study / "archive" / "2026" / name)
    widget.project.choose_folder(study / "project")
    opened(session, settle)
    assert not len(session.slides)
    assert "Slides that are not where they were: skin.svs, tumour.tif." in widget.project.missing.text()
    assert widget.project.missing_button.isVisible()
    session.project.find_missing(study / "archive")  # the folder that the button asks for
    opened(session, settle)
    assert sorted(one.slide.path for one in session.slides) == sorted((study / "archive" / "2026").iterdir())
    assert not widget.project.missing.isVisible()
    session.slides.show(session.slides.of_path(study / "archive" / "2026" / "skin.svs"))
    assert session.results.current is session.results[0]  # it belongs to its slide at the new place
    assert session.results[0].layer.visible
    widget.project.choose_folder(study / "nothing")
    widget.project.choose_folder(study / "project")
    opened(session, settle)
    assert session.project.missing == ()


def test_a_missing_slide_that_the_user_opens_is_recognised(
    viewer: Any, widget: Any, settle: Settle, study: Path
) -> None:
    session = session_of(viewer)
    widget.project.choose_folder(study / "project")
    open_slides(viewer, widget, settle, study / "slides" / "skin.svs")
    widget.project.choose_folder(study / "nothing")
    elsewhere = (study / "slides" / "skin.svs").rename(study / "renamed.svs")
    widget.project.choose_folder(study / "project")
    opened(session, settle)
    open_slides(viewer, widget, settle, elsewhere)
    assert [slide.path for slide in session.project.slides] == [elsewhere]
    assert session.project.missing == ()


def test_a_damaged_file_is_told_and_left_as_it_is(viewer: Any, widget: Any, settle: Settle, study: Path) -> None:
    session, file = session_of(viewer), study / "project" / FILE
    file.write_text('{"format": 1, "slides"', encoding="utf-8")
    widget.project.choose_folder(study / "project")
    open_slides(viewer, widget, settle, study / "slides" / "skin.svs")
    session.project.save()
    assert "is left as it is; restore it from a backup" in widget.project.problem.text()
    assert file.read_text(encoding="utf-8") == '{"format": 1, "slides"'
    file.unlink()
    widget.project.choose_folder(study / "nothing")
    widget.project.choose_folder(study / "project")
    assert not widget.project.problem.isVisible()


def test_a_slide_that_cannot_be_opened_any_more_is_told(viewer: Any, widget: Any, settle: Settle, study: Path) -> None:
    session = session_of(viewer)
    widget.project.choose_folder(study / "project")
    open_slides(viewer, widget, settle, study / "slides" / "skin.svs", study / "slides" / "tumour.tif")
    session.results.open(study / "project" / "results" / "skin" / "skin.ome.zarr")
    widget.project.choose_folder(study / "nothing")
    (study / "slides" / "skin.svs").write_bytes(b"not any more")
    shutil.rmtree(study / "project" / "results" / "skin")
    widget.project.choose_folder(study / "project")
    opened(session, settle)
    assert [one.slide.path.name for one in session.slides] == ["tumour.tif"]
    assert "skin.svs" in widget.project.problem.text()
    assert "skin.ome.zarr" in widget.project.problem.text()
    session.project.save()
    assert [slide.path.name for slide in Project.open(study / "project").slides] == ["skin.svs", "tumour.tif"]


def test_two_windows_notice_each_other(viewer: Any, widget: Any, settle: Settle, study: Path) -> None:
    session = session_of(viewer)
    widget.project.choose_folder(study / "project")
    other = napari.Viewer()
    second = session_of(other)
    try:
        late = SlidesWidget(other)
        other.window.add_dock_widget(late)
        late.project.choose_folder(study / "project")
        settle()
        assert "open in another window" in late.project.problem.text()
        assert not widget.project.problem.isVisible()
        open_slides(other, late, settle, study / "slides" / "tumour.tif")
        open_slides(viewer, widget, settle, study / "slides" / "skin.svs")
        second.project.save()
        session.project.save()
        assert [slide.path.name for slide in Project.open(study / "project").slides] == ["skin.svs"]
        widget.project.choose_folder(study / "nothing")
        settle(lambda: second.project.problem is None)  # by itself
        assert not late.project.problem.isVisible()
        assert [slide.path.name for slide in second.project.slides] == ["skin.svs", "tumour.tif"]
        second.project.save()
        assert [slide.path.name for slide in Project.open(study / "project").slides] == ["skin.svs", "tumour.tif"]
    finally:
        second.close()
        other.close()
        settle()
