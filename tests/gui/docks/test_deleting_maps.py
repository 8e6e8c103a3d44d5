"""Deleting maps of slides in the dock *Project*, and undoing it: on disk, in the table and in the viewer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from napari_pbip import cli, samples
from napari_pbip.claims import claim
from napari_pbip.config import ThresholdSettings
from napari_pbip.gui.compat import grid_of
from napari_pbip.gui.docks.tune import TuneWidget
from napari_pbip.gui.panels.cohort_table import MODEL, SLIDE, STATE
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.queued_slide import Status
from napari_pbip.project import FILE, Project
from napari_pbip.results import ScoreStore, write_labels
from napari_pbip.results.corrections import CorrectionEditor, sittings_in
from napari_pbip.results.places import FURTHER_MAPS, REMOVED_MAPS, find_stores
from napari_pbip.slides import open_slide
from tests.gui.docks.test_project import all_known, click_cell, row_of, shown
from tests.gui.docks.test_segment import QUICK, drop
from tests.gui.qt_helpers import Settle, answer, click
from tests.gui.state.project_process import make_store


@pytest.fixture
def maps(viewer: Any, widget: Any, settle: Settle, tmp_path: Path) -> tuple[Path, Path]:
    """The two maps of a slide by different models; another slide has one by the first of these."""
    session, folder = session_of(viewer), tmp_path / "slides"
    folder.mkdir()
    shutil.copy(samples.slide(), folder / "skin.svs")
    shutil.copy(samples.frozen_section(), folder / "frozen.svs")
    for path in folder.iterdir():
        with open_slide(path, None if path.stem == "skin" else 0.5) as slide:
            first = session.result_folder(slide) / f"{path.stem}.ome.zarr"
            stores = [first, first.parent / FURTHER_MAPS / "2" / first.name][: 2 if path.stem == "skin" else 1]
            for seed, store in enumerate(stores):
                store.parent.mkdir(parents=True)
                make_store(slide, store, ("run", "second")[seed], seed)
                write_labels(ScoreStore.open(store), ThresholdSettings())
                (store.parent / "areas.csv").write_text("of this map", encoding="utf-8")
            if path.stem == "skin":
                skin = first, stores[1]
    drop(widget, folder)
    all_known(widget, settle, 2)
    return skin


def ask(widget: Any, settle: Settle, slide: str, title: str) -> None:
    """Choose a map of a slide, and ask to delete it."""
    click_cell(widget, row_of(widget, slide), SLIDE)
    widget.maps.setCurrentText(title)
    widget.maps.activated.emit(widget.maps.currentIndex())
    settle(lambda: shown(widget, MODEL)[row_of(widget, slide)] == title)
    settle()
    click(widget.delete_button)


def at_rest(session: Any, settle: Settle) -> None:
    settle(lambda: not session.jobs and not session.project.opening)
    settle()


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_corrected_map_is_deleted_and_comes_back_as_it_was(
    viewer: Any, widget: Any, settle: Settle, maps: tuple[Path, Path]
) -> None:
    session, (first, second) = session_of(viewer), maps
    corrections = ScoreStore.open(second).corrections
    editor = CorrectionEditor(corrections, "A. Person")
    assert corrections.cells is not None
    corrections.cells[4:6, 4:6] = 2
    editor.save()
    editor.close()
    session.maps.show({next(one.path for one in session.project.slides if one.name == "skin"): second})
    click_cell(widget, row_of(widget, "skin.svs"), SLIDE, twice=True)
    at_rest(session, settle)
    session.results.of_store(second).display.thresholds = ThresholdSettings(delta=0.7)
    before = files(first.parent)

    def visible() -> list[Path]:
        at_rest(session, settle)
        return [result.store.path for result in session.results if result.layer.visible]

    def becomes(model: str, state: str) -> None:
        at_rest(session, settle)
        row = row_of(widget, "skin.svs")
        settle(lambda: (shown(widget, MODEL)[row], shown(widget, STATE)[row]) == (model, state))

    assert visible() == [second]
    ask(widget, settle, "skin.svs", "second")
    said = answer(widget, settle, "Cancel")
    assert "Delete the map of skin.svs by “second”?" in said
    assert "corrected by hand: A. Person on 20" in said
    assert "4 cells" in said
    at_rest(session, settle)
    assert files(first.parent) == before
    click(widget.delete_button)
    answer(widget, settle, "Delete")
    becomes("run", "done")
    assert visible() == [first]  # the one that is counted now
    assert len(session.results) == 1
    assert not second.parent.exists()
    assert len(find_stores(session.folder)) == 2
    session.project.save()
    assert str(second) not in (session.folder / FILE).read_text(encoding="utf-8")
    out = session.folder.with_name("all.csv")
    done = CliRunner().invoke(cli.app, ["statistics", str(session.folder), "--out", str(out)])
    assert "2 results" in done.output, done.output
    click(widget.undo.undo_button)
    becomes("second", "done, 2 maps")
    assert visible() == [second]
    assert session.results.of_store(second).thresholds.delta == 0.7
    assert files(first.parent) == before
    assert sittings_in(second)[0].who == "A. Person"
    click(widget.undo.redo_button)
    becomes("run", "done")
    # what belongs to the slide stays when its last map goes
    (first.parent / "regions.geojson").write_bytes(b"the regions")
    ask(widget, settle, "skin.svs", "run")
    answer(widget, settle, "Delete")
    becomes("", "")
    assert not visible()
    assert (first.parent / "regions.geojson").exists()
    assert not widget.delete_button.isVisible()
    (first.parent / "regions.geojson").unlink()
    for _ in range(2):
        click(widget.undo.undo_button)
        at_rest(session, settle)
    assert files(first.parent) == before
    becomes("second", "done, 2 maps")
    # deleted maps are there until the project is closed
    for _ in range(2):
        click(widget.undo.redo_button)
        at_rest(session, settle)
    assert len(list((first.parent / REMOVED_MAPS).iterdir())) == 2
    session.folder = session.folder.with_name("another")
    at_rest(session, settle)
    settle(lambda: not list(first.parent.iterdir()))


def test_maps_by_one_model_of_several_slides_go_together(
    viewer: Any, widget: Any, settle: Settle, maps: tuple[Path, Path]
) -> None:
    session, first = session_of(viewer), maps[0]
    widget.table.selectAll()
    settle()
    assert widget.maps.currentText() == "run"
    with claim(first.parent, "segmenting"):  # by another process
        click(widget.delete_button)
        assert "Delete the maps of 2 slides by “run”?" in answer(widget, settle, "Delete")
        at_rest(session, settle)
    assert "The map of skin.svs was not deleted: " in widget.project.problem.text()
    assert "(segmenting); wait until that has ended, or stop it." in widget.project.problem.text()
    assert [path.exists() for path in maps] == [True, True]
    settle(lambda: sorted(shown(widget, STATE)) == ["", "done, 2 maps"])
    assert session.history.last == "deletion of a map"
    click_cell(widget, row_of(widget, "skin.svs"), SLIDE)
    click(widget.delete_button)
    answer(widget, settle, "Delete")
    at_rest(session, settle)
    assert not widget.project.problem.isVisible()
    assert [path.exists() for path in maps] == [False, True]
    settle(lambda: sorted(shown(widget, MODEL)) == ["", "second"])
    # a place from which a map can come back is not given to another one
    [slide] = [one for one in session.project.slides if one.name == "skin"]
    assert slide.maps_in(session.results_folder).free_folder() == first.parent / FURTHER_MAPS / "3"


def test_what_is_shown_of_a_deleted_map_beside_another_one_is_closed(
    viewer: Any, widget: Any, settle: Settle, maps: tuple[Path, Path]
) -> None:
    session, second = session_of(viewer), maps[1]
    tune = TuneWidget(viewer)
    viewer.window.add_dock_widget(tune, name="Tune")
    click_cell(widget, row_of(widget, "skin.svs"), SLIDE, twice=True)
    at_rest(session, settle)
    tune.compare.compare(second, "second")
    settle(lambda: tune.compare.beside_button.isVisible() and not session.jobs)
    click(tune.compare.beside_button)
    settle(lambda: grid_of(viewer).enabled and not session.jobs)
    session.maps.delete({session.current_slide.slide.path: second})
    at_rest(session, settle)
    assert not grid_of(viewer).enabled
    assert not second.exists()
    assert [layer.name for layer in viewer.layers] == ["skin", "skin tissue map"]


def test_maps_that_a_job_reads_stay_until_it_ends(
    viewer: Any, widget: Any, settle: Settle, maps: tuple[Path, Path], tmp_path: Path
) -> None:
    session, skin = session_of(viewer), next(one for one in session_of(viewer).project.slides if one.name == "skin")
    widget.write_statistics(tmp_path / "statistics.csv")
    session.maps.delete({skin.path: maps[1]})
    at_rest(session, settle)
    assert "No map can be deleted while maps are exported" in widget.project.problem.text()
    session.maps.delete({skin.path: maps[1]})
    at_rest(session, settle)
    assert [path.exists() for path in maps] == [True, False]


def test_a_map_that_is_being_made_is_not_deleted(viewer: Any, widget: Any, settle: Settle, runs: Path) -> None:
    session = session_of(viewer)
    shutil.copytree(runs, session.models_folder)
    session.change(segment=QUICK)
    session.slides.open(samples.slide())
    session.segmenting.add([samples.slide()], session.models_folder / "fine")
    [queued] = session.segmenting.slides
    settle(lambda: queued.done > 4)
    session.maps.delete({samples.slide(): queued.store})
    settle()
    assert queued.status is Status.RUNNING
    assert "was not deleted: it is being made; stop that in 5 Segment" in widget.project.problem.text()
    session.segmenting.cancel(queued)
    at_rest(session, settle)
    session.maps.delete({samples.slide(): queued.store})
    at_rest(session, settle)
    assert not queued.store.exists()
    session.segmenting.resume(queued)  # from the beginning, and not where one may come back
    at_rest(session, settle)
    assert queued.status is Status.DONE, queued.sentence
    assert queued.store.parent.name == "2"
    session.history.undo()
    at_rest(session, settle)
    assert len(find_stores(session.results_folder)) == 2


def test_what_a_process_left_that_was_killed_is_deleted_when_the_project_opens(
    viewer: Any, widget: Any, settle: Settle, maps: tuple[Path, Path]
) -> None:
    session, (first, second) = session_of(viewer), maps
    session.project.save()
    folder, removed = session.folder, first.parent / REMOVED_MAPS / "7"
    session.folder = folder.with_name("another")
    at_rest(session, settle)
    shutil.copytree(second.parent, removed)
    shutil.copytree(second.parent, removed.parent.with_name(f"{REMOVED_MAPS}-0123") / "8")  # it was being deleted
    assert len(find_stores(folder)) == 3
    session.folder = folder
    at_rest(session, settle)
    settle(lambda: not list(first.parent.glob(f"{REMOVED_MAPS}*")))
    assert [path.exists() for path in maps] == [True, True]
    assert len(Project.open(folder).slides) == 2
