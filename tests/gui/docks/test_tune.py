"""Thresholds, the legend, and the explanation of the map, with real moves, keys and clicks."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QEventLoop, QPoint, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QLabel

from napari_pbip import samples
from napari_pbip.config import JobSettings, SegmentSettings, ThresholdSettings
from napari_pbip.engine.inference.segment import segment
from napari_pbip.engine.run_facts import MARKER
from napari_pbip.engine.training.train import train
from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.docks.legend import LegendWidget
from napari_pbip.gui.docks.train import TrainWidget
from napari_pbip.gui.docks.tune import TuneWidget
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.settings_file import read_settings, write_settings
from napari_pbip.gui.state.steps import Step
from napari_pbip.results import ScoreStore, open_labels
from napari_pbip.taxonomy import BCSS, UNASSIGNED
from tests.engine.conftest import settings_for
from tests.gui.napari_privates import canvas_of, main_window, pixels_shown
from tests.gui.qt_helpers import click, drop_on_viewer, open_workflow, type_text


def place(viewer, y: float, x: float) -> QPoint:
    """Return the position on the canvas of a position in micrometres."""
    camera, canvas = camera_of(viewer), canvas_of(viewer)
    _, cy, cx = camera.center
    return QPoint(
        round(canvas.width() / 2 + (x - cx) * camera.zoom), round(canvas.height() / 2 + (y - cy) * camera.zoom)
    )


def shown(result) -> np.ndarray:
    return pixels_shown(result.layer)


def test_a_slide_without_a_map_does_not_get_the_thresholds_of_another(tune, viewer, settle, result):
    assert tune.controls.isVisible()
    session_of(viewer).slides.open(samples.slide())
    settle()
    assert not tune.controls.isVisible()
    viewer.layers.selection.active = result.layer
    settle()
    assert tune.controls.isVisible()


def test_without_a_result_it_says_what_to_do(tune, viewer, settle, store, tmp_path):
    assert "Segment a slide" in tune.title.text()
    assert not tune.controls.isVisible()
    tune.open(tmp_path)
    settle(lambda: "not a score store" in tune.notice.text())
    assert "not a score store" in tune.notice.text()
    assert "\n" not in tune.notice.text()
    tune.open(store)
    assert f"Opening {store.name}" in tune.notice.text()
    assert not tune.controls.isVisible()
    settle(lambda: tune.controls.isVisible())
    assert tune.controls.delta.number.lineEdit().width() > 40  # with the style of napari
    assert tune.notice.text() == "⚠  This map of slide was made from an array, so no slide is opened with it."


def test_a_result_that_is_dropped_on_the_window_is_read_in_a_thread(tune, viewer, settle, store, tmp_path):
    session = session_of(viewer)
    there: list[int] = []

    def drop() -> None:
        drop_on_viewer(viewer, lambda: there.append(len(viewer.layers)), store)
        drop_on_viewer(viewer, settle, broken)

    broken = shutil.copytree(store, tmp_path / "broken.ome.zarr")
    (broken / "zarr.json").write_text("{")
    notification_manager.records.clear()
    loop = QEventLoop()  # as in a window that runs
    QTimer.singleShot(0, drop)
    session.job_started.connect(lambda job: job.ended.connect(lambda _: session.jobs or loop.quit()))
    QTimer.singleShot(20_000, loop.quit)
    loop.exec()
    settle(lambda: not session.jobs)
    assert there == [0]
    assert [result.store.path for result in session.results] == [store]
    settle(lambda: tune.controls.isVisible())
    messages = [one.message for one in notification_manager.records if "made from an array" not in one.message]
    assert ["broken.ome.zarr" in one for one in messages] == [True]


def test_keys_on_a_slider_move_the_map(tune, viewer, settle, result):
    settle()
    before = shown(result)
    slider = tune.controls.delta.slider
    slider.setFocus()
    for _ in range(3):
        QTest.keyClick(slider, Qt.Key.Key_PageUp)
    settle()
    assert result.thresholds.delta == pytest.approx(0.45)
    assert np.count_nonzero(shown(result) == UNASSIGNED) > np.count_nonzero(before == UNASSIGNED)


def test_a_class_has_a_threshold_of_its_own_until_it_follows_again(tune, settle, result):
    row = tune.controls.rows[1]
    row.slider.slider.setFocus()
    QTest.keyClick(row.slider.slider, Qt.Key.Key_PageUp)
    assert result.thresholds.class_delta == {"STR": pytest.approx(0.25)}
    QTest.keyClick(tune.controls.delta.slider, Qt.Key.Key_PageUp)
    assert [r.slider.value() for r in tune.controls.rows] == pytest.approx([0.25] * 4)
    QTest.keyClick(tune.controls.delta.slider, Qt.Key.Key_PageUp)
    assert [r.slider.value() for r in tune.controls.rows] == pytest.approx([0.35, 0.25, 0.35, 0.35])
    QTest.mouseClick(row.follow, Qt.MouseButton.LeftButton)
    assert result.thresholds.class_delta == {}
    assert row.slider.value() == pytest.approx(0.35)


def test_presence_scope_opacity_and_classes(tune, settle, result):
    QTest.keyClick(tune.controls.presence.slider, Qt.Key.Key_End)
    settle()
    assert set(np.unique(shown(result))) <= {0, UNASSIGNED}
    QTest.keyClick(tune.controls.presence.slider, Qt.Key.Key_Home)
    QTest.keyClick(tune.controls.scope, Qt.Key.Key_Down)
    QTest.keyClick(tune.controls.opacity.slider, Qt.Key.Key_End)
    eye = tune.legend.rows[1].eye
    QTest.mouseClick(eye, Qt.MouseButton.LeftButton, pos=QPoint(5, eye.height() // 2))
    settle()
    assert result.thresholds == ThresholdSettings(presence=0, scope="tile")
    assert result.layer.opacity == 1
    assert result.display.hidden == {1}
    result.layer.opacity = 0.25  # from napari's own control
    assert tune.controls.opacity.value() == pytest.approx(0.25)
    QTest.mouseClick(tune.reset_button, Qt.MouseButton.LeftButton)
    settle()
    assert result.thresholds == ThresholdSettings()
    assert not result.display.hidden
    assert tune.controls.presence.value() == pytest.approx(0.5)


def test_a_slider_changes_what_it_is_for_and_nothing_else(tune, settle, result):
    told: list[str] = []
    for name in ("thresholds", "hidden", "opacity"):
        getattr(result.display.events, name).connect(lambda *_, name=name: told.append(name))
    QTest.keyClick(tune.controls.opacity.slider, Qt.Key.Key_End)
    QTest.keyClick(tune.controls.delta.slider, Qt.Key.Key_PageUp)
    settle()
    assert told == ["opacity", "thresholds"]
    assert tune.controls.opacity.value() == result.layer.opacity == 1


def test_a_second_result_opens_with_the_thresholds_on_screen(tune, viewer, settle, result, finished, tmp_path):
    QTest.keyClick(tune.controls.delta.slider, Qt.Key.Key_PageUp)
    QTest.keyClick(tune.controls.rows[1].slider.slider, Qt.Key.Key_End)
    on_screen = ThresholdSettings(delta=0.25, class_delta={"STR": 1})
    assert result.thresholds == on_screen
    results = session_of(viewer).results
    opened = results.open(
        shutil.copytree(finished, tmp_path / "b" / "slide.ome.zarr"), session_of(viewer).settings.thresholds
    )
    assert opened.thresholds == on_screen
    viewer.open(shutil.copytree(finished, tmp_path / "c" / "slide.ome.zarr"), plugin="napari-pbip")
    assert results[-1].thresholds == on_screen
    settle()
    opened.display.thresholds = ThresholdSettings(delta=0.5)  # from then on each has its own
    assert {one.thresholds.delta for one in results} == {0.25, 0.5}


def test_settings_are_saved_as_the_screen_shows_and_loaded_onto_it(tune, viewer, settle, result, tmp_path):
    session, file = session_of(viewer), tmp_path / "settings.yaml"
    QTest.keyClick(tune.controls.presence.slider, Qt.Key.Key_Home)
    QTest.keyClick(tune.controls.delta.slider, Qt.Key.Key_PageUp)
    write_settings(session, file)
    assert JobSettings.read(file).thresholds == ThresholdSettings(delta=0.25, presence=0)
    before = shown(result)
    JobSettings(thresholds=ThresholdSettings(delta=0.9, presence=0)).write(file)
    read_settings(session, file)
    settle()
    assert tune.controls.delta.value() == pytest.approx(0.9)
    assert np.count_nonzero(shown(result) == UNASSIGNED) > np.count_nonzero(before == UNASSIGNED)
    viewer.layers.remove(result.layer)
    assert session.settings.thresholds.delta == 0.9  # with which the next one opens


def test_other_settings_leave_the_thresholds_alone(tune, viewer, settle, result):
    train = TrainWidget(viewer)
    viewer.window.add_dock_widget(train, name="Train")
    QTest.keyClick(tune.controls.delta.slider, Qt.Key.Key_PageUp)
    epochs = train.form.editor("train.epochs")
    type_text(epochs, "3")
    QTest.keyClick(epochs, Qt.Key.Key_Return)
    settings = session_of(viewer).settings
    assert settings.train.epochs == 3
    assert settings.thresholds == result.thresholds == ThresholdSettings(delta=0.25)
    settle(lambda: not session_of(viewer).jobs)


def test_frozen_labels_are_what_is_shown(tune, viewer, settle, result, store):
    QTest.keyClick(tune.controls.delta.slider, Qt.Key.Key_PageUp)
    QTest.keyClick(tune.controls.rows[2].slider.slider, Qt.Key.Key_PageUp)
    QTest.mouseClick(tune.save_button, Qt.MouseButton.LeftButton)
    assert not tune.save_button.isEnabled()
    settle(lambda: tune.save_button.isEnabled())
    result.view.micrometres = 0  # all cells, not only as many as the screen shows
    levels, facts = open_labels(ScoreStore.open(store))
    np.testing.assert_array_equal(np.asarray(result.view.levels[0]), levels[0][:])
    assert facts.thresholds == result.thresholds == session_of(viewer).settings.thresholds
    assert (store.parent / "areas.csv").exists()
    assert "areas.csv" in tune.notice.text()


def test_what_is_under_the_cursor_is_told(tune, viewer, settle, result):
    um = result.store.cell_um
    for row, column in ((100, 120), (300, 555)):
        QTest.mouseMove(canvas_of(viewer), place(viewer, row * um, column * um))
        settle()
        label, _ = result.value_at((row * um, column * um))
        name = "not assigned" if label == UNASSIGNED else BCSS.names[label - 1]
        assert tune.hover.text().startswith(f"<b>{name}</b>")
        assert all(name in tune.hover.text() for name in BCSS.names)


def test_the_legend_follows_the_thresholds(viewer, settle, result):
    dock = LegendWidget(viewer)
    viewer.window.add_dock_widget(dock, name="Legend")
    legend = dock.legend
    settle(lambda: not legend.exactness.text())
    assert list(legend.rows) == [1, 2, 3, 4, UNASSIGNED, 0]
    before = float(legend.rows[UNASSIGNED].share.text())
    result.display.thresholds = ThresholdSettings(delta=0.8)
    settle(lambda: "approximate" in legend.exactness.text())
    assert legend.rows[UNASSIGNED].share.text().startswith("≈")
    settle(lambda: not legend.exactness.text())
    assert float(legend.rows[UNASSIGNED].share.text()) > before
    shares = [float(row.share.text()) for row in legend.rows.values()]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    QTest.mouseClick(legend.rows[1].eye, Qt.MouseButton.LeftButton, pos=QPoint(5, legend.rows[1].eye.height() // 2))
    assert result.display.hidden == {1}
    result.display.hidden = frozenset({UNASSIGNED})
    assert legend.rows[1].eye.isChecked()
    assert not legend.rows[UNASSIGNED].eye.isChecked()


def test_what_a_map_says_is_in_sight_on_a_small_screen(viewer, settle, result):
    """Legend, values, Why? and thresholds are, in the panel and in the dock; and napari's status bar has the class."""
    window = main_window(viewer)
    window.resize(1366, 768)
    tune = TuneWidget(viewer)
    panel = open_workflow(viewer, settle)
    click(panel.buttons[Step.TUNE])
    settle()
    viewer.window.add_dock_widget(tune, name="Tune")
    for dock, page in ((panel.parentWidget().parentWidget(), panel.pages[Step.TUNE]), (tune.parentWidget(), tune)):
        dock.raise_()
        settle()
        for part in (page.legend, page.hover, page.why_button, page.controls.presence):
            assert part.visibleRegion().boundingRect().height() == part.height()
    um = result.store.cell_um
    assert window.height() == 768
    assert (
        f"class: {BCSS.names[result.value_at((100 * um, 120 * um))[0] - 1]}"
        in result.layer.get_status((100 * um, 120 * um), world=True)["value"]
    )


def test_a_map_that_is_mostly_not_assigned_says_what_to_change(tune, settle, result):
    assert not tune.legend.advice.isVisible()
    QTest.keyClick(tune.controls.presence.slider, Qt.Key.Key_End)
    settle(lambda: tune.legend.advice.isVisible())
    labels = {label.text() for label in tune.controls.findChildren(QLabel)}
    named = set(re.findall("“(.+?)”", tune.legend.advice.text()))
    assert named == {"Class presence", "All classes"} <= labels
    QTest.keyClick(tune.controls.presence.slider, Qt.Key.Key_Home)
    settle(lambda: not tune.legend.advice.isVisible())


def test_a_layer_that_is_deleted_leaves_the_widgets_usable(tune, viewer, settle, result, store):
    dock = LegendWidget(viewer)
    viewer.window.add_dock_widget(dock, name="Legend")
    legend = dock.legend
    QTest.mouseClick(tune.save_button, Qt.MouseButton.LeftButton)
    viewer.layers.remove(result.layer)
    settle(lambda: not session_of(viewer).jobs)
    assert "No tissue map" in tune.title.text()
    assert "No tissue map" in legend.title.text()
    assert not legend.rows
    assert open_labels(ScoreStore.open(store))[0][0][:].any()
    tune.open(store)
    settle(lambda: legend.rows)


def test_docks_can_be_closed_and_opened_again(tune, viewer, settle, result):
    result.display.thresholds = ThresholdSettings(delta=0.33)
    viewer.window.remove_dock_widget(tune)
    tune.deleteLater()
    settle()
    result.display.thresholds = ThresholdSettings(delta=0.44)
    QTest.mouseMove(canvas_of(viewer), place(viewer, 800, 800))
    settle()
    again = TuneWidget(viewer)
    viewer.window.add_dock_widget(again, name="Tune")
    assert again.controls.delta.value() == pytest.approx(0.44)


@pytest.fixture(scope="module")
def trained(weak_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with a PBIP model of two steps and its result for the sample slide."""
    project = tmp_path_factory.mktemp("project")
    run = project / "models" / "first"
    list(train(settings_for(weak_data, data={"mpp": 4.0}, method={"name": "pbip"}, train={"steps": 2}), run))
    quick = SegmentSettings(precision="float32", device="cpu", overlap=16, batch_size=8)
    list(segment(samples.slide(), run, project / "results" / "slide", quick, ThresholdSettings()))
    return project


@contextmanager
def gone(path: Path) -> Iterator[None]:
    """Remove a file for a while."""
    away = path.rename(path.with_suffix(".away"))
    yield
    away.rename(path)


def test_a_click_shows_the_prototype_and_its_tiles(tune, viewer, settle, trained):
    session = session_of(viewer)
    session.folder = trained
    slide = session.slides.open(samples.slide())
    tune.open(next((trained / "results" / "slide").glob("*.ome.zarr")))
    settle(lambda: tune.controls.isVisible())
    viewer.reset_view()
    assert session.results.current is session.results[0]
    QTest.mouseClick(tune.why_button, Qt.MouseButton.LeftButton)
    spot = place(viewer, 600, 500)
    QTest.mouseMove(canvas_of(viewer), spot)
    QTest.mouseClick(canvas_of(viewer), Qt.MouseButton.LeftButton, pos=spot)
    assert "Loading the model first; the first time" in tune.why.text.text()
    settle(lambda: tune.why.pictures)
    assert "similarity" in tune.why.text.text()
    assert not tune.why.notice.isVisible()
    with gone(trained / "models" / "first" / MARKER):  # the model stays loaded
        QTest.mouseClick(canvas_of(viewer), Qt.MouseButton.LeftButton, pos=place(viewer, 700, 300))
        assert tune.why.text.text() == "Looking…"
        settle(lambda: not session.jobs)
    assert "similarity" in tune.why.text.text()
    assert slide.slide.path == samples.slide()


def test_a_missing_model_is_one_sentence(tune, viewer, settle, trained, tmp_path):
    path = shutil.copytree(next((trained / "results" / "slide").glob("*.ome.zarr")), tmp_path / "slide.ome.zarr")
    root = path / "zarr.json"
    root.write_text(root.read_text().replace(str(trained), str(tmp_path / "gone")))
    tune.open(path)
    settle(lambda: tune.controls.isVisible())
    viewer.reset_view()
    QTest.mouseClick(tune.why_button, Qt.MouseButton.LeftButton)
    settle()
    QTest.mouseClick(canvas_of(viewer), Qt.MouseButton.LeftButton, pos=place(viewer, 600, 500))
    settle(lambda: tune.why.notice.isVisible())
    assert "put it back" in tune.why.notice.text()


def test_the_map_follows_the_smoothing(tune, result, settle):
    """A wide smoothing moves the slider's map at once, and what is saved with the settings."""
    level = result.view.drawn_level(0)
    everything = slice(None), slice(None)
    tune.controls.smoothing.slider.setValue(0)
    rough = result.view.read(level, *everything)
    QTest.keyClick(tune.controls.smoothing.slider, Qt.Key.Key_End)
    assert result.display.thresholds.smoothing_um == 200
    smooth = result.view.read(level, *everything)
    edges = [np.count_nonzero(np.diff(labels.astype(int), axis=0)) for labels in (rough, smooth)]
    assert edges[1] < edges[0]
