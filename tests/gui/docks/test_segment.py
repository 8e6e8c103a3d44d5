"""Segmenting in the window: the queue, the widget, and the growing tissue map."""

from __future__ import annotations

import csv
import json
import shutil
from contextlib import suppress

import numpy as np
import psutil
import pytest
import shapely
import tifffile
from PIL import Image
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_pbip import samples
from napari_pbip.config import SegmentSettings, ThresholdSettings
from napari_pbip.engine.inference.segment import segment
from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.docks.segment import SegmentWidget
from napari_pbip.gui.docks.slides import SlidesWidget
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.queued_slide import Status
from napari_pbip.project import Project
from napari_pbip.results import ScoreStore, open_labels
from napari_pbip.results.corrections import CorrectionEditor
from napari_pbip.results.slide_maps import SlideMaps
from napari_pbip.slides import open_slide
from napari_pbip.slides.regions import Kind, Region, Regions
from tests.gui.napari_privates import pixels_shown
from tests.gui.qt_helpers import answer, click, type_text
from tests.gui.state.project_process import make_store

QUICK = SegmentSettings(precision="float32", device="cpu", overlap=16, batch_size=2)


@pytest.fixture
def session(viewer, runs):
    session = session_of(viewer)
    shutil.copytree(runs, session.models_folder)
    session.change(segment=QUICK)
    return session


@pytest.fixture
def widget(viewer, session, settle):
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Segment", area="right")
    settle(lambda: widget.model.count() == 3)
    widget.choose_model(session.models_folder / "first")
    assert widget.model.currentText() == "first"
    return widget


@pytest.fixture
def fine(session, widget):
    """Return the widget with a model that segments slowly."""
    widget.choose_model(session.models_folder / "fine")
    return widget


def drop(widget, *paths):
    """Drop files on the widget, as from a file manager."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    buttons, keys, action = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, Qt.DropAction.CopyAction
    enter = QDragEnterEvent(QPoint(20, 20), action, data, buttons, keys)
    QApplication.sendEvent(widget, enter)
    assert enter.isAccepted()
    QApplication.sendEvent(widget, QDropEvent(QPointF(20, 20), action, data, buttons, keys))


def all_ended(session):
    return lambda: session.segmenting.slides and not any(one.status.active for one in session.segmenting.slides)


@pytest.fixture(scope="module")
def uninterrupted(runs, tmp_path_factory) -> np.ndarray:
    out = tmp_path_factory.mktemp("uninterrupted")
    list(segment(samples.slide(), runs / "fine", out, QUICK, ThresholdSettings()))
    return ScoreStore.open(next(out.glob("*.ome.zarr"))).scores[0][:]


def test_a_slide_is_segmented_stopped_and_resumed(viewer, session, fine, settle, uninterrupted):
    slide = session.slides.open(samples.slide())
    settle(lambda: fine.segment_button.isEnabled())
    assert fine.slide.currentText() == samples.slide().name
    assert "LYM" in fine.facts.text()
    click(fine.segment_button)
    [queued] = session.segmenting.slides
    [row] = fine.queue.rows
    settle(lambda: queued.done > 20)
    # the map is there before the first block is finished, and the slide is still what the user works on
    settle(lambda: len(session.results) == 1)
    settle(lambda: not np.isnan(session.results[0].store.presence()).all())
    settle(lambda: len(np.unique(pixels_shown(session.results[0].layer))) > 1)
    assert queued.status is Status.RUNNING
    assert not ScoreStore.open(queued.store).written.any()
    assert viewer.layers.selection.active is slide.layer
    assert f"of {queued.total:,} tiles" in row.text.text()
    click(row.stop_button)
    settle(lambda: queued.status is Status.STOPPED)
    assert 0 < queued.done < queued.total
    assert row.resume_button.isVisible()
    assert "Stopped at" in row.text.text()
    click(row.resume_button)
    settle(lambda: queued.status is Status.DONE)
    assert queued.store == session.result_folder(slide.slide) / "CMU-1-Small-Region.ome.zarr"
    assert queued.store.parent.name.startswith("CMU-1-Small-Region-")
    np.testing.assert_array_equal(ScoreStore.open(queued.store).scores[0][:], uninterrupted)
    assert "Done" in row.text.text()
    assert not row.stop_button.isVisible()
    # what is on the screen is the whole map
    store = session.results[0].store
    settle(lambda: not np.isnan(store.presence()[:, store.planned]).any())
    click(fine.queue.clear_button)
    settle()
    assert session.segmenting.slides == fine.queue.rows == []
    assert len(session.results) == 1


def test_workers_segment_a_slide_and_one_that_is_killed_or_stopped_costs_nothing(
    viewer, session, fine, settle, uninterrupted, monkeypatch
):
    monkeypatch.setattr("napari_pbip.engine.cluster.connect._CONNECT_SECONDS", 1.0)
    session.slides.open(samples.slide())
    settle(lambda: fine.segment_button.isEnabled())
    click(fine.more_button)

    def choose(scheduler):
        field = fine.scheduler_form.editor("scheduler")
        type_text(field, scheduler)
        QTest.keyClick(field, Qt.Key.Key_Return)

    def workers():
        found = []
        for one in psutil.Process().children():
            with suppress(psutil.Error):  # it has just ended
                if "spawn_main" in " ".join(one.cmdline()):
                    found.append(one)
        return found

    assert fine.scheduler_form.editor("scheduler").placeholderText() == "none"
    choose("somewhere")
    assert fine.scheduler_form.problem("scheduler").text().startswith("✖  A scheduler is local:N, with N processes, or")
    choose("tcp://127.0.0.1:1")  # where nobody is
    click(fine.segment_button)
    settle(all_ended(session))
    [queued], [row] = session.segmenting.slides, fine.queue.rows
    assert "No scheduler answers at tcp://127.0.0.1:1;" in row.notice.text()
    assert "or correct “Scheduler”:" in row.notice.text()
    choose("local:1")
    click(row.resume_button)
    settle(lambda: queued.done > 0)  # a process starts, which loads torch
    [worker] = workers()
    worker.kill()
    before = queued.done
    settle(lambda: queued.done > before)
    click(row.stop_button)
    settle(lambda: queued.status is Status.STOPPED)
    settle(lambda: not workers())
    assert 0 < queued.done < queued.total
    choose("")  # the rest is done in this process
    click(row.resume_button)
    settle(lambda: queued.status is Status.DONE)
    np.testing.assert_allclose(ScoreStore.open(queued.store).scores[0][:], uninterrupted, atol=1e-3)
    store = session.results[0].store
    settle(lambda: not np.isnan(store.presence()[:, store.planned]).any())


def test_only_regions_are_segmented_and_the_rest_when_they_have_grown(viewer, session, widget, settle):
    slides = SlidesWidget(viewer)
    viewer.window.add_dock_widget(slides, name="Slides", area="left")
    slide = session.slides.open(samples.slide())
    settle(lambda: widget.segment_button.isEnabled())
    small = Region("small", Kind.ANALYSE, shapely.box(700, 900, 1400, 1700))
    large = Region("large", Kind.ANALYSE, shapely.box(500, 300, 1800, 2800))
    session.regions.change(slide, Regions((small,)))
    click(widget.segment_button)
    settle(all_ended(session))
    [queued] = session.segmenting.slides
    first = ScoreStore.open(queued.store)
    planned = int(first.planned.sum())
    assert queued.total == planned < 30
    assert slides.regions.notice.text() == ""
    before = first.read_scores(0, slice(None), slice(None))
    session.regions.change(slide, Regions((small, large)))
    settle()
    assert "tiles in the regions have no scores yet" in slides.regions.notice.text()
    click(widget.segment_button)
    settle(all_ended(session))
    settle(lambda: slides.regions.notice.text() == "")
    second = ScoreStore.open(queued.store)
    assert int(second.planned.sum()) > planned
    counted = first.tiles_and_tissue(0, slice(None), slice(None))[2]
    inside = second.cells_in("small", 0, slice(None), slice(None)) & counted
    np.testing.assert_array_equal(second.read_scores(0, slice(None), slice(None))[:, inside], before[:, inside])
    with (queued.store.parent / "areas.csv").open(encoding="utf-8") as file:
        assert {row["region"] for row in csv.DictReader(file)} == {"", "small", "large"}


def test_what_the_user_looks_at_comes_first_and_again_when_the_view_moves(viewer, session, fine, settle, monkeypatch):
    monkeypatch.setattr("napari_pbip.engine.inference.fill_store.SHOW_SECONDS", 0.1)
    slide = session.slides.open(samples.slide())

    def look_at(x, y):
        camera_of(viewer).zoom = 4.0
        camera_of(viewer).center = (y * slide.slide.mpp, x * slide.slide.mpp)
        settle()

    def nearest(x, y):
        """Return the distance, in tiles, from a place to the middle of the nearest analysed tile."""
        store = ScoreStore.open(queued.store)
        pixels = store.facts.grid.model_mpp / store.facts.slide.mpp
        known = np.argwhere(~np.isnan(store.presence()[0])) * store.facts.grid.stride + store.facts.grid.tile / 2
        return np.abs(known - np.array([y, x]) / pixels).max(1).min(initial=99999) / store.facts.grid.tile

    def go_on(tiles):
        """Let the job continue by one batch, because the window of a test may be slower than the network."""
        upto = queued.done + tiles
        while queued.done < upto:
            job.resume()
            job.pause()
            settle()

    look_at(1400, 2600)
    session.job_started.connect(lambda job: job.pause())
    click(fine.segment_button)
    [queued], [job] = session.segmenting.slides, session.jobs
    go_on(8)
    x, y, width, height = queued.view
    assert x < 1400 < x + width
    assert 1900 < y < 2600 < y + height
    assert nearest(1400, 2600) < 1
    assert nearest(1000, 300) > 3
    look_at(1000, 300)
    go_on(10)
    assert queued.view[1] < 300 < queued.view[1] + queued.view[3] < 1200
    assert nearest(1000, 300) < 1
    session.segmenting.stop()
    settle(lambda: queued.status is Status.STOPPED)


def test_files_and_folders_dropped_on_the_widget_join_the_queue(viewer, session, widget, settle, tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in ("a.svs", "b.svs"):  # others than the one that lies alone: a copy of a slide is that slide
        (folder / name).write_bytes(samples.slide().read_bytes() + name.encode())
    (folder / "notes.txt").write_text("no slide")
    alone = tmp_path / "alone.svs"
    shutil.copy(samples.slide(), alone)
    drop(widget, alone, folder)
    assert [one.path for one in session.segmenting.slides] == [alone]
    settle(lambda: [one.slide.path for one in session.slides] == [alone])  # an empty window shows it
    settle(lambda: len(widget.queue.rows) == 3 and widget.queue.rows[1].remove_button.isVisible())
    first, second, third = session.segmenting.slides
    assert (first.status, second.status, third.status) == (Status.RUNNING, Status.WAITING, Status.WAITING)
    drop(widget, alone)  # once is enough
    assert len(session.segmenting.slides) == 3
    click(widget.queue.rows[1].remove_button)
    settle(all_ended(session))
    assert [one.status for one in session.segmenting.slides] == [Status.DONE, Status.DONE]
    assert {path.name.rsplit("-", 1)[0] for path in session.results_folder.iterdir()} == {"alone", "b"}
    # what is not open has no layer until it is asked for
    assert [result.store.path.name for result in session.results] == ["alone.ome.zarr"]
    click(widget.queue.rows[1].show_button)
    settle(lambda: len(session.results) == 2)
    assert {result.store.path.name for result in session.results} == {"alone.ome.zarr", "b.ome.zarr"}
    assert session.slides[-1].slide.path == folder / "b.svs"


def test_a_bad_slide_says_why_and_the_next_begins(viewer, session, widget, settle, tmp_path):
    text, plain, good = tmp_path / "text.svs", tmp_path / "plain.tif", tmp_path / "good.svs"
    text.write_text("no slide")
    with open_slide(samples.slide()) as slide:
        picture = slide.read(0, 0, 512, 512, 2.0)
    tifffile.imwrite(plain, picture, tile=(256, 256), photometric="rgb")
    shutil.copy(samples.slide(), good)
    drop(widget, text, plain, good)
    settle(all_ended(session))
    assert [one.status for one in session.segmenting.slides] == [Status.FAILED, Status.FAILED, Status.DONE]
    bad, unknown, _ = widget.queue.rows
    assert "text.svs" in bad.notice.text()
    assert "open it in Slides" in unknown.notice.text()
    assert "--" not in bad.notice.text() + unknown.notice.text()
    # the way out works
    (tmp_path / "plain.tif.mpp.json").write_text(json.dumps({"mpp": 2.0}))
    assert unknown.resume_button.text() == "Try again"
    click(unknown.resume_button)
    settle(all_ended(session))
    assert unknown.slide.status is Status.DONE
    assert not unknown.notice.isVisible()


def test_a_result_of_another_model_is_replaced_only_when_the_user_says_so(viewer, session, widget, settle):
    session.slides.open(samples.slide())
    click(widget.segment_button)
    settle(all_ended(session))
    [queued] = session.segmenting.slides
    before = ScoreStore.open(queued.store).facts.model.hash
    widget.choose_model(session.models_folder / "second")
    click(widget.segment_button)
    settle(all_ended(session))
    [queued], [row] = session.segmenting.slides, widget.queue.rows
    assert queued.status is Status.OCCUPIED
    assert "another model" in row.notice.text()
    click(row.replace_button)
    asked = answer(row, settle, "Cancel")
    assert queued.store.name in asked
    assert "labels that were saved" in asked
    assert ScoreStore.open(queued.store).facts.model.hash == before
    click(row.replace_button)
    answer(row, settle, "Replace it")
    settle(all_ended(session))
    assert queued.status is Status.DONE
    assert ScoreStore.open(queued.store).facts.model.hash != before
    assert [result.store.facts.model.hash == before for result in session.results] == [False]
    assert len(viewer.layers) == 2


def test_the_map_of_another_model_is_kept_beside_the_first(viewer, session, widget, settle):
    slide = session.slides.open(samples.slide())
    small = Region("small", Kind.ANALYSE, shapely.box(500, 300, 1800, 2800))
    session.regions.change(slide, Regions((small,)))

    def segment_with(name):
        widget.choose_model(session.models_folder / name)
        click(widget.segment_button)
        settle(all_ended(session))
        settle()
        [queued], [row] = session.segmenting.slides, widget.queue.rows
        return queued, row

    def visible():
        settle(lambda: not session.jobs)
        return [result.store.path for result in session.results if result.layer.visible]

    queued, _ = segment_with("first")
    first = queued.store
    before = {path: path.read_bytes() for path in first.parent.rglob("*") if path.is_file()}
    queued, row = segment_with("second")
    assert queued.status is Status.OCCUPIED
    assert "another model, “first”; keep both, replace that one, or remove this row." in row.notice.text()
    assert not row.resume_button.isVisible()
    click(row.keep_button)
    settle(all_ended(session))
    assert queued.status is Status.DONE, queued.sentence
    second = queued.store
    assert second.parent == first.parent / "further-maps" / "2"
    assert {path: path.read_bytes() for path in before} == before
    assert ScoreStore.open(second).facts.model.run == "second"
    assert ScoreStore.open(second).regions.identity == ScoreStore.open(first).regions.identity != ""
    with (second.parent / "areas.csv").open(encoding="utf-8") as file:
        assert {row["region"] for row in csv.DictReader(file)} == {"", "small"}
    # the new one is in view, and regions that are drawn count for both
    assert visible() == [second]
    assert len(session.results) == 2
    assert session.results.current.layer.name.endswith("tissue map, model “second”")
    session.regions.change(slide, Regions((Region("large", Kind.ANALYSE, shapely.box(300, 300, 1900, 2900)),)))
    assert {result.store.regions.identity for result in session.results} == {session.regions.of(slide).identity}
    session.regions.change(slide, Regions((small,)))
    # what a model has mapped already is neither asked for nor computed again
    queued, row = segment_with("first")
    assert (queued.status, queued.store) == (Status.DONE, first)
    assert visible() == [first]
    session.project.save()
    assert Project.open(session.folder).slides[0].map == first
    session.maps.choose(slide.slide.path, second)
    click(row.show_button)
    assert visible() == [first]
    # the map that is shown is replaced, and no other one
    session.maps.choose(slide.slide.path, second)
    assert visible() == [second]
    queued, row = segment_with("fine")
    click(row.replace_button)
    corrections = ScoreStore.open(second).corrections
    editor = CorrectionEditor(corrections, "A. Person")
    corrections.cells[4:6, 4:6] = 2
    editor.save()
    editor.close()
    assert "by “second” beside the new one by “fine”?" in answer(row, settle, "Replace it")
    settle(all_ended(session))
    assert "was corrected by hand" in queued.sentence
    shutil.rmtree(second / "corrections")
    click(row.resume_button)
    settle(all_ended(session))
    assert queued.status is Status.DONE, queued.sentence
    assert queued.store == second
    assert visible() == [second]
    with open_slide(samples.slide()) as opened:
        found = SlideMaps.find(session.result_folder(opened), opened.name, opened.identity)
    assert [one.model for one in found.maps] == ["first", "fine"]


def test_maps_by_one_model_with_other_settings_are_kept_beside_each_other(viewer, session, widget, settle):
    session.slides.open(samples.slide())

    def segment(overlap):
        session.change(segment=QUICK.model_copy(update={"overlap": overlap}))
        click(widget.segment_button)
        settle(all_ended(session))
        return session.segmenting.slides[0], widget.queue.rows[0]

    first = segment(QUICK.overlap)[0].store
    queued, row = segment(0)
    assert queued.status is Status.OCCUPIED
    assert f"(“Overlap” in Segment was {QUICK.overlap}, now 0); keep both" in row.notice.text()
    click(row.keep_button)
    settle(all_ended(session))
    assert (queued.status, queued.store.parent) == (Status.DONE, first.parent / "further-maps" / "2"), queued.sentence
    second = queued.store
    assert [ScoreStore.open(store).facts.settings["overlap"] for store in (first, second)] == [QUICK.overlap, 0]
    assert segment(QUICK.overlap)[0].store == first  # each is gone on with by its settings
    assert segment(0)[0].store == second
    [slide] = session.project.slides
    assert slide.maps_in(session.results_folder).titles == {
        first: f"first, overlap {QUICK.overlap}",
        second: "first, overlap 0",
    }


def test_both_maps_are_kept_for_all_slides(viewer, session, widget, settle, tmp_path):
    paths = [tmp_path / "a.tif", tmp_path / "b.tif"]
    with open_slide(samples.slide()) as slide:
        for number, path in enumerate(paths):
            pixels = slide.read(600, 600 + 600 * number, 512, 512, 2.0)
            tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb")
            path.with_name(f"{path.name}.mpp.json").write_text(json.dumps({"mpp": 2.0}))
            with open_slide(path) as part:
                session.result_folder(part).mkdir(parents=True)
                make_store(part, session.result_folder(part) / f"{path.stem}.ome.zarr")
    drop(widget, *paths)
    settle(all_ended(session))
    assert [one.status for one in session.segmenting.slides] == [Status.OCCUPIED] * 2
    click(widget.queue.keep_button)
    settle(all_ended(session))
    assert [one.status for one in session.segmenting.slides] == [Status.DONE] * 2
    assert not widget.queue.keep_button.isVisible()
    assert len(list(session.results_folder.glob("*/further-maps/2/*.ome.zarr"))) == 2


def test_a_damaged_result_is_replaced_when_the_user_says_so(viewer, session, widget, settle):
    session.slides.open(samples.slide())
    click(widget.segment_button)
    settle(all_ended(session))
    [queued], [row] = session.segmenting.slides, widget.queue.rows
    facts = queued.store / "zarr.json"
    whole = facts.read_bytes()
    facts.write_bytes(whole[:100])
    click(widget.segment_button)
    settle(all_ended(session))
    [queued], [row] = session.segmenting.slides, widget.queue.rows
    assert queued.status is Status.OCCUPIED
    assert f"{queued.store} is damaged" in row.notice.text()
    assert row.notice.text().endswith("; replace it, or restore it and try again.")
    click(row.resume_button)  # in vain
    settle(all_ended(session))
    assert queued.status is Status.OCCUPIED
    click(row.replace_button)
    answer(row, settle, "Cancel")
    assert facts.read_bytes() == whole[:100]
    click(row.replace_button)
    answer(row, settle, "Replace it")
    settle(all_ended(session))
    assert queued.status is Status.DONE
    assert ScoreStore.open(queued.store).progress == (queued.total, queued.total)
    assert not row.replace_button.isVisible()


def test_layers_deleted_while_it_runs_stay_away_and_the_result_is_whole(viewer, session, fine, settle):
    slide = session.slides.open(samples.slide())
    click(fine.segment_button)
    [queued] = session.segmenting.slides
    settle(lambda: len(session.results) == 1)
    viewer.layers.remove(session.results[0].layer)
    viewer.layers.remove(slide.layer)
    settle(all_ended(session))
    assert queued.status is Status.DONE
    assert ScoreStore.open(queued.store).progress == (queued.total, queued.total)
    assert not viewer.layers


def test_the_queue_outlives_the_widget(viewer, session, fine, settle):
    session.slides.open(samples.slide())
    click(fine.segment_button)
    [queued] = session.segmenting.slides
    settle(lambda: queued.done > 4)
    viewer.window.remove_dock_widget(fine)
    fine.close()
    fine.deleteLater()
    settle()
    again = SegmentWidget(viewer)
    viewer.window.add_dock_widget(again, name="Segment", area="right")
    assert again.model.currentText() == "fine"
    [row] = again.queue.rows
    assert row.slide is queued
    settle(all_ended(session))
    assert "Done" in row.text.text()


def test_closing_the_window_while_it_runs_keeps_what_is_finished(viewer, session, fine, settle, uninterrupted):
    session.slides.open(samples.slide())
    click(fine.segment_button)
    [queued] = session.segmenting.slides
    session.segmenting.add([samples.slide().with_name("another.svs")], session.models_folder / "first")
    settle(lambda: queued.done > 4)
    session.close()
    assert session.jobs == []
    assert [one.status for one in session.segmenting.slides] == [Status.STOPPED, Status.WAITING]
    store = ScoreStore.open(queued.store)
    known = ~np.isnan(store.read_scores(0, slice(None), slice(None)))
    assert (known.sum() > 0) == (~np.isnan(store.presence())).any()


def test_a_window_that_is_closed_stops_its_slide_and_keeps_what_is_finished(viewer, session, fine, settle):
    session.slides.open(samples.slide())
    click(fine.segment_button)
    [queued] = session.segmenting.slides
    settle(lambda: queued.done > 4)
    viewer.close()
    settle(all_ended(session))
    assert queued.status is Status.STOPPED
    assert ScoreStore.open(queued.store).kept() is not None


def test_a_disk_that_cannot_be_written_is_a_sentence_and_trying_again_works(viewer, session, widget, settle):
    session.results_folder.write_text("in the way")
    session.slides.open(samples.slide())
    click(widget.segment_button)
    settle(all_ended(session))
    [queued], [row] = session.segmenting.slides, widget.queue.rows
    assert queued.status is Status.FAILED
    assert str(session.results_folder) in row.notice.text()
    session.results_folder.unlink()
    click(row.resume_button)
    settle(all_ended(session))
    assert queued.status is Status.DONE


def test_the_tissue_that_the_user_painted_is_what_is_segmented(viewer, session, widget, settle):
    slide = session.slides.open(samples.slide())
    mask = np.zeros((300, 224), np.uint8)
    mask[:100] = 255
    session.tissue_file(slide.slide).parent.mkdir(parents=True)
    Image.fromarray(mask).save(session.tissue_file(slide.slide))
    click(widget.segment_button)
    settle(all_ended(session))
    [queued] = session.segmenting.slides
    assert queued.status is Status.DONE
    planned = ScoreStore.open(queued.store).planned
    assert planned[: len(planned) // 3].all()
    assert not planned[len(planned) // 3 + 2 :].any()


def test_without_a_model_the_widget_says_what_to_do(viewer, settle, tmp_path):
    session = session_of(viewer)
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Segment", area="right")
    session.slides.open(samples.slide())
    settle(lambda: not session.jobs)
    assert "Train a model first" in widget.model_notice.text()
    assert not widget.segment_button.isEnabled()
    drop(widget, samples.slide())
    assert session.segmenting.slides == []
    assert widget.notice.isVisible()
    widget.choose_model(tmp_path)
    assert "no trained model" in widget.model_notice.text()
    assert not widget.segment_button.isEnabled()


def test_settings_are_those_of_the_session(viewer, session, widget, settle):
    assert not widget.form.isVisible()
    click(widget.more_button)
    assert widget.form.isVisible()
    overlap = widget.form.editor("overlap")
    overlap.setFocus()
    overlap.selectAll()
    QTest.keyClicks(overlap, "32")
    QTest.keyClick(overlap, Qt.Key.Key_Return)
    assert session.settings.segment == QUICK.model_copy(update={"overlap": 32})
    session.change(segment=QUICK)
    assert overlap.text() == "16"
    overlap.selectAll()
    QTest.keyClicks(overlap, "17")
    session.slides.open(samples.slide())
    click(widget.segment_button)
    assert session.segmenting.slides == []
    assert "multiple of 16" in widget.form.problem("overlap").text()


def test_microns_per_pixel_that_were_corrected_in_the_window_count(session, widget, settle):
    slide = session.slides.open(samples.slide())
    slide.slide.give_mpp(1.0)  # as where it cannot be kept beside the slide
    click(widget.segment_button)
    settle(all_ended(session))
    [queued] = session.segmenting.slides
    assert queued.status is Status.DONE, queued.sentence
    assert ScoreStore.open(queued.store).facts.slide.mpp == 1.0


def test_what_is_queued_is_segmented_as_things_were_then(session, widget, settle, tmp_path):
    before = tmp_path / "project"
    paths = [tmp_path / f"{name}.svs" for name in ("one", "two")]
    for path in paths:
        shutil.copy(samples.slide(), path)
    session.change(thresholds=ThresholdSettings(delta=0.6, class_delta={"a class of another model": 0.4}))
    widget.take(paths)
    session.change(thresholds=ThresholdSettings(delta=0.1), segment=QUICK.model_copy(update={"overlap": 32}))
    session.folder = tmp_path / "elsewhere"
    settle(lambda: all(slide.status is Status.DONE for slide in session.segmenting.slides))
    for slide in session.segmenting.slides:
        assert slide.store.is_relative_to(before / "results")
        store = ScoreStore.open(slide.store)
        assert open_labels(store)[1].thresholds == ThresholdSettings(delta=0.6)
        assert store.facts.grid.overlap == 16
    assert not (tmp_path / "elsewhere" / "results").exists()


def test_a_map_without_classes_says_what_to_change(viewer, session, widget, settle):
    session.change(thresholds=ThresholdSettings(presence=1))
    session.slides.open(samples.slide())
    settle(lambda: widget.segment_button.isEnabled())
    click(widget.segment_button)
    settle(all_ended(session))
    [row] = widget.queue.rows
    assert row.advice.isVisible()
    assert row.advice.text().startswith("100% of the analysed tissue is not assigned")
