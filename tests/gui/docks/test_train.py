"""The Train widget: real trainings of seconds, started, watched, stopped and resumed by mouse and keyboard."""

from __future__ import annotations

import gc
import itertools
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from napari_pbip import cli, samples
from napari_pbip.config import BackboneSettings, DataSettings, JobSettings, TrainSettings
from napari_pbip.engine.run_facts import MARKER, RunFacts
from napari_pbip.engine.training.train import train
from napari_pbip.events import Epoch, Finished, Started, Step
from napari_pbip.gui.curves import Curves
from napari_pbip.gui.jobs import State
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.steps import Step as WorkStep
from napari_pbip.models import backbones
from tests.engine.conftest import settings_for
from tests.gui.contrast import contrast
from tests.gui.qt_helpers import Settle, answer, choose_encoder, choose_entry, click, open_workflow, run_job, type_text


@pytest.fixture
def widget(viewer: Any, settle: Settle) -> Any:
    return open_widget(viewer, settle)


def open_widget(viewer: Any, settle: Settle) -> Any:
    """Return the docked widget, after it has listed the choices."""
    from napari_pbip.gui.docks.train import TrainWidget

    widget = TrainWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Train")
    settle(lambda: session_of(viewer).training.devices)
    settle()
    return widget


def rows(widget: Any) -> list[list[str]]:
    items = [widget.models.topLevelItem(i) for i in range(widget.models.topLevelItemCount())]
    return [[item.text(column) for column in range(3)] for item in items]


def same_weights(a: Path, b: Path) -> bool:
    first, second = load_file(a), load_file(b)
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def test_without_tiles_it_says_what_to_do_first(viewer: Any, widget: Any, settle: Settle) -> None:
    session = session_of(viewer)
    assert widget.missing.isVisible()
    assert "Label tiles" in widget.missing.text()
    click(widget.start_button)
    assert "no labelled tiles" in widget.name_notice.text()
    assert session.training.job is None
    session.settings = settings_for(Path("tiles"))
    settle()
    assert not widget.missing.isVisible()
    assert "those of the folder <b>tiles</b>" in widget.source.text()


def test_the_form_and_the_session_follow_each_other(viewer: Any, widget: Any) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    session = session_of(viewer)
    epochs = widget.form.editor("train.epochs")
    type_text(epochs, "3")
    QTest.keyClick(epochs, Qt.Key.Key_Return)
    assert session.settings == JobSettings(train=TrainSettings(epochs=3))
    session.change(train=TrainSettings(epochs=5))
    assert epochs.text() == "5"
    names = [
        widget.form.editor("backbone.name").itemText(i) for i in range(widget.form.editor("backbone.name").count())
    ]
    assert names == list(backbones.catalogue())
    assert widget.form.editor("train.device").findText("cpu") >= 0


def choose_method(widget: Any, name: str) -> None:
    """Choose a method with the arrow keys."""
    box = widget.form.editor("method.name")
    choose_entry(box, box.itemText(box.findData(name)))


def test_each_method_says_what_it_learns_from_and_lacks(
    viewer: Any,
    widget: Any,
    settle: Settle,
    weak_data: Path,
) -> None:
    session = session_of(viewer)
    session.settings = settings_for(weak_data, backbone={"weights": None})
    assert "only from labelled tiles" in widget.about.text()
    assert not widget.encoder.isVisible()
    choose_method(widget, "lpd")
    assert "without an image bank" in widget.about.text()
    assert "Image bank" not in widget.source.text()
    assert widget.encoder.isVisible()
    assert not widget.needs.isVisible()
    choose_method(widget, "construct")
    assert "vision transformer" in widget.needs.text()
    weights = widget.form.problem("backbone.weights")
    assert weights.isVisible()
    assert "pretrained backbone" in weights.text()
    click(widget.start_button)
    assert session.training.job is None
    assert "missing" in widget.name_notice.text()
    session.change(bank=session.settings.bank.model_copy(update={"encoder": "uni"}))
    assert not widget.needs.isVisible()
    choose_method(widget, "pbip")
    assert not weights.isVisible()
    assert "an image bank" in widget.about.text()
    choose_method(widget, "deeplab")
    assert "tiles with masks" in widget.about.text()
    assert not widget.encoder.isVisible()
    assert widget.form.editor("backbone.name").isEnabled()


def test_it_recommends_a_method_for_the_tiles_and_settings_at_hand(viewer: Any, widget: Any, settle: Settle) -> None:
    session, folder = session_of(viewer), samples.tiles()
    assert not widget.recommended.isVisible()
    session.settings = settings_for(folder)
    settle(lambda: widget.recommended.isVisible())
    assert "a linear probe" in widget.recommended.text()
    assert "Only 1 tile shows BACK alone" in widget.recommended.text()
    session.classes.give("BACK", "background", ["BACK", "TUM"])
    settle(lambda: "Only 1 tile shows background alone" in widget.recommended.text())
    session.change(data=DataSettings())
    settle(lambda: not widget.recommended.isVisible())


def test_the_recommendation_is_for_the_encoder_of_the_bank(
    viewer: Any, widget: Any, settle: Settle, tmp_path: Path
) -> None:
    session = session_of(viewer)
    for name in ("LYM", "MUS"):
        (tmp_path / "tiles" / name).mkdir(parents=True)
        for i, (y, x) in enumerate(itertools.product(range(0, 224, 64), range(0, 192, 64))):
            tile = Image.open(min((samples.tiles() / name).iterdir())).crop((x, y, x + 64, y + 64))
            tile.save(tmp_path / "tiles" / name / f"{i}.png")
    session.settings = settings_for(tmp_path / "tiles", method={"name": "cam"}, bank={"encoder": "efficientnet-lite0"})
    averaged = "averaged with that of a linear probe"
    settle(lambda: averaged in widget.recommended.text())
    session.change(bank=session.settings.bank.model_copy(update={"encoder": "texture"}))
    settle(lambda: "Recommended: PBIP" in widget.recommended.text() and averaged not in widget.recommended.text())
    session.bank.build()
    settle(lambda: session.bank.bank is not None and not session.jobs)
    session.change(bank=session.settings.bank.model_copy(update={"encoder": "efficientnet-lite0"}))
    settle()
    settle(lambda: not session.jobs)
    assert averaged not in widget.recommended.text()


def test_lpd_learns_with_the_encoder_that_is_chosen_here(
    viewer: Any,
    widget: Any,
    settle: Settle,
    weak_data: Path,
) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QAbstractSpinBox

    session = session_of(viewer)
    session.settings = settings_for(weak_data, bank={"encoder": "texture"}, train={"steps": 2})
    choose_method(widget, "lpd")
    choose_encoder(widget.encoder, "tiny")
    run_job(widget.start_button, session, settle)
    facts = RunFacts.read(session.models_folder / "model 1")
    assert facts.prototypes["encoder"]["name"] == "tiny"
    assert facts.prototypes["bank"] is None
    settle(lambda: rows(widget) and rows(widget)[0][1] == "finished")
    click(widget.prototypes_button)
    from napari_pbip.gui.panels.prototypes import PrototypesDialog

    window = widget.findChild(PrototypesDialog)
    settle(lambda: window.clusters.isVisible())
    model = window.clusters.clusters
    assert [row.number for row in model.rows if row.class_index == 0] == list(range(11))  # the class, and its ten
    assert "prototype 1" in model.headerData(1, Qt.Orientation.Vertical)
    assert len(model.rows[1].tiles) == min(24, len({t.hash for t in model.rows[1].tiles}))
    assert model.rows[1].tiles[0].similarity >= model.rows[1].tiles[1].similarity
    assert not window.clusters.findChildren(QAbstractSpinBox)
    window.close()


def test_a_bank_of_another_kind_of_encoder_is_told_before_construct_starts(
    viewer: Any,
    settle: Settle,
    weak_data: Path,
) -> None:
    from napari_pbip.bank import load_single_tiles
    from napari_pbip.engine.banks.build_bank import build_bank

    session = session_of(viewer)
    session.settings = settings = settings_for(
        weak_data, method={"name": "construct"}, backbone={"weights": weak_data}, bank={"encoder": "uni"}
    )
    texture = settings.bank.model_copy(update={"encoder": "texture"})
    list(build_bank(load_single_tiles(weak_data, settings.data), session.bank_folder, texture, settings.data))
    widget = open_widget(viewer, settle)
    settle(lambda: session.bank.bank is not None)
    assert "'texture' is neither" in widget.needs.text()
    assert not widget.encoder.isVisible()  # it is the bank's


def test_wrong_input_stops_the_start_and_is_said_at_the_field(viewer: Any, widget: Any, weak_data: Path) -> None:
    session = session_of(viewer)
    session.settings = settings_for(weak_data)
    type_text(widget.form.editor("train.epochs"), "a few")
    click(widget.start_button)
    assert session.training.job is None
    assert "2 is kept" in widget.form.problem("train.epochs").text()
    assert "setting" in widget.name_notice.text()
    type_text(widget.form.editor("train.epochs"), "2")
    rate = widget.form.editor("train.learning_rate")  # in the closed panel
    type_text(rate, "fast")
    assert not rate.isVisible()
    click(widget.start_button)
    assert rate.isVisible()
    assert session.training.job is None
    session.change(backbone=BackboneSettings(weights=weak_data / "mit.safetensors"))
    assert "no weights of efficientnet-lite0" in widget.form.problem("backbone.weights").text()
    click(widget.start_button)
    assert session.training.job is None
    assert "missing" in widget.name_notice.text()
    session.change(backbone=BackboneSettings())
    for name in ("", "  ", "../elsewhere", "a/b", ".hidden", "-x"):
        type_text(widget.name, name)
        assert "letters" in widget.name_notice.text()
        assert not widget.start_button.isEnabled()
    type_text(widget.name, "ovary 2 - b")
    assert not widget.name_notice.isVisible()
    assert widget.start_button.isEnabled()


def test_a_training_from_the_first_click_to_the_last_model(
    viewer: Any,
    widget: Any,
    settle: Settle,
    weak_data: Path,
) -> None:
    session = session_of(viewer)
    session.settings = settings_for(weak_data, method={"name": "pbip"}, train={"epochs": 3})
    told: list[int] = []
    session.training.models_changed.connect(lambda: told.append(1))
    type_text(widget.name, "first")
    click(widget.start_button)
    assert widget.bar.cancel_button.isVisible()
    settle(lambda: len(session.training.curves) >= 2 and widget.plot.loss.lines)
    assert rows(widget)[0][:2] == ["first", "training"]
    assert "cpu" in widget.bar.text.text()
    viewer.add_image(np.zeros((32, 32)))  # the window is free
    settle(lambda: not session.jobs)
    settle(lambda: rows(widget)[0][1] == "finished")
    assert widget.name_notice.text().startswith("“first” is trained, in ")
    assert widget.name_notice.text().endswith("Next: 5 Segment.")
    run = session.models_folder / "first"
    facts = RunFacts.read(run)
    assert rows(widget)[0][2] == f"{facts.best_score:.1f} %"
    assert (run / "best.safetensors").exists()
    assert len(told) >= 3
    settle()
    x, y = widget.plot.loss.lines["loss"].getData()
    assert x.tolist() == list(range(1, facts.steps + 1))
    assert set(widget.plot.loss.lines) == {"loss"}
    click(widget.plot.terms)
    assert set(widget.plot.loss.lines) > {"loss", "foreground", "background"}
    assert "foreground" in widget.plot.loss.legend.text()
    assert set(widget.plot.score.lines) == {"oracle", "predicted"}
    assert widget.plot.score.isVisible()
    # the same name again: nothing is lost without being asked for
    assert not widget.start_button.isVisible()
    click(widget.resume_button)
    assert f"3 epochs, {facts.steps} steps" in widget.name_notice.text()
    click(widget.replace_button)
    assert "first" in answer(widget, settle, "Cancel")
    assert session.training.job is None
    assert RunFacts.read(run) == facts
    # more epochs: it goes on, with the curves of before
    type_text(widget.form.editor("train.epochs"), "4")
    run_job(widget.resume_button, session, settle)
    settle()
    assert RunFacts.read(run).steps == facts.steps // 3 * 4
    x, after = widget.plot.loss.lines["loss"].getData()
    assert x.tolist() == list(range(1, facts.steps // 3 * 4 + 1))
    np.testing.assert_array_equal(after[: len(y)], y)


def test_replacing_a_model_needs_a_yes(viewer: Any, widget: Any, settle: Settle, weak_data: Path) -> None:
    session = session_of(viewer)
    run = session.models_folder / "mine"
    list(train(settings_for(weak_data, train={"steps": 1, "seed": 7}), run))
    session.training.refresh()
    settle(lambda: rows(widget))
    session.settings = settings_for(weak_data, train={"steps": 2})
    type_text(widget.name, "mine")
    assert "finished" in widget.name_notice.text()
    click(widget.replace_button)
    answer(widget, settle, "Replace it")
    settle(lambda: session.training.job is not None)
    settle(lambda: not session.jobs)
    assert RunFacts.read(run).settings.train.seed == 0
    assert RunFacts.read(run).step == 2


def test_a_training_paused_cancelled_and_resumed_is_the_one_of_the_command_line(
    viewer: Any,
    widget: Any,
    settle: Settle,
    weak_data: Path,
    tmp_path: Path,
) -> None:
    from napari_pbip.gui.settings_file import read_settings, write_settings

    session = session_of(viewer)
    session.settings = settings_for(weak_data, method={"name": "pbip"}, train={"epochs": 4})
    file = tmp_path / "job.yaml"
    write_settings(session, file)
    type_text(widget.name, "mine")
    click(widget.start_button)
    settle(lambda: len(session.training.curves) >= 1)
    click(widget.bar.pause_button)
    still = [time.monotonic(), 0]

    def held_for_two_seconds() -> bool:  # the step that is under way still ends, on a slow machine after a while
        if len(session.training.curves) != still[1]:
            still[:] = time.monotonic(), len(session.training.curves)
        return time.monotonic() - still[0] > 2

    settle(held_for_two_seconds)
    held = len(session.training.curves)
    assert held < 12
    click(widget.bar.pause_button)
    settle(lambda: len(session.training.curves) > held)
    click(widget.bar.cancel_button)
    settle(lambda: not session.jobs)
    assert "kept" in widget.bar.notice.text()
    run = session.models_folder / "mine"
    stopped = RunFacts.read(run)
    assert 0 < stopped.step < stopped.steps
    settle(lambda: rows(widget)[0][1] == f"stopped at step {stopped.step} of {stopped.steps}")
    session.settings = JobSettings()  # resuming takes the settings that the model was begun with
    run_job(widget.resume_button, session, settle)
    settle()
    assert RunFacts.read(run).finished
    x, _ = widget.plot.loss.lines["loss"].getData()
    assert x.tolist() == list(range(1, stopped.steps + 1))
    # the very same file without a window, to the very same weights
    read_settings(session, file)
    assert session.settings == JobSettings.read(file)
    done = CliRunner().invoke(cli.app, ["train", str(file), "--out", str(tmp_path / "cli")])
    assert done.exit_code == 0, done.output
    assert same_weights(tmp_path / "cli/best.safetensors", run / "best.safetensors")
    assert same_weights(tmp_path / "cli/last.safetensors", run / "last.safetensors")
    assert (tmp_path / "cli/best.safetensors").read_bytes() == (run / "best.safetensors").read_bytes()


def test_closing_the_window_stops_the_training_and_keeps_what_it_has(
    viewer: Any,
    widget: Any,
    settle: Settle,
    weak_data: Path,
) -> None:
    session = session_of(viewer)
    settings = settings_for(weak_data, train={"epochs": 50})
    session.settings = settings
    click(widget.start_button)
    job = session.training.job
    settle(lambda: len(session.training.curves) >= 1)
    session.close()
    assert job.state is State.CANCELLED
    run = session.models_folder / "model 1"
    facts = json.loads((run / "run.json").read_text())
    assert facts["step"] >= 1
    assert (run / "state.safetensors").exists()
    going_on = train(settings, run, resume=True)
    assert next(e for e in going_on if isinstance(e, Step) and "loss" in e.values).done == facts["step"] + 1
    going_on.close()


def test_a_closed_dock_loses_nothing(
    viewer: Any,
    widget: Any,
    settle: Settle,
    weak_data: Path,
) -> None:
    session = session_of(viewer)
    session.settings = settings_for(weak_data, train={"epochs": 6})
    type_text(widget.name, "long")
    click(widget.start_button)
    settle(lambda: len(session.training.curves) >= 2)
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    settle()
    gc.collect()
    seen = len(session.training.curves)
    session.change(train=session.settings.train.model_copy(update={"seed": 3}))
    again = open_widget(viewer, settle)
    assert again.bar.cancel_button.isVisible()
    assert again.name.text() == "long"
    assert again.form.editor("train.seed").text() == "3"
    settle(lambda: not session.jobs)
    settle()
    x, _ = again.plot.loss.lines["loss"].getData()
    assert x.tolist() == list(range(1, RunFacts.read(session.models_folder / "long").steps + 1))
    assert len(x) > seen


def test_models_of_earlier_days_are_listed_with_their_curves(
    viewer: Any,
    widget: Any,
    settle: Settle,
    weak_data: Path,
) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    session = session_of(viewer)
    list(train(settings_for(weak_data), session.models_folder / "old"))
    job = train(settings_for(weak_data, train={"steps": 5}), session.models_folder / "half")
    while not (isinstance(event := next(job), Step) and event.values):
        pass
    job.close()
    broken = session.models_folder / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    session.training.refresh()
    settle(lambda: len(rows(widget)) == 3)
    assert rows(widget)[0][:2] == ["broken", "cannot be read"]
    assert rows(widget)[1][:2] == ["half", "stopped at step 1 of 5"]
    assert rows(widget)[2][1] == "finished"
    item = widget.models.topLevelItem(2)
    place = widget.models.visualItemRect(item).center()
    QTest.mouseClick(widget.models.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert widget.name.text() == "old"
    settle(lambda: "loss" in widget.plot.loss.lines)
    facts = RunFacts.read(session.models_folder / "old")
    assert len(widget.plot.loss.lines["loss"].getData()[0]) == facts.steps
    assert len(widget.plot.score.lines["oracle"].getData()[0]) == 2
    QTest.keyClick(widget.models, Qt.Key.Key_Up)
    QTest.keyClick(widget.models, Qt.Key.Key_Up)
    assert widget.name.text() == "broken"
    assert "cannot be read" in widget.name_notice.text()
    assert not widget.resume_button.isVisible()
    session.folder = session.folder.parent / "another project"
    settle(lambda: not rows(widget))


def models_of(folder: Path, *names: str) -> None:
    """Put trained models into a project folder."""
    for name in names:
        shutil.copytree(samples.project() / "model", folder / "models" / name)


def test_a_free_name_is_proposed_whatever_opens_first(viewer: Any, settle: Settle, tmp_path: Path) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    session = session_of(viewer)
    first, second = tmp_path / "first", tmp_path / "second"
    models_of(first, "model 1", "model 2")
    models_of(second, "model 1")
    session.folder = first  # where Train alone opens, and has not read the models
    widget = open_widget(viewer, settle)
    assert widget.name.text() == "model 3"
    settle(lambda: rows(widget))
    assert widget.name.text() == "model 3"
    assert widget.start_button.isVisible()
    models_of(first, "model 3")  # by the command line
    session.training.refresh()
    settle(lambda: len(rows(widget)) == 3)
    assert widget.name.text() == "model 4"
    place = widget.models.visualItemRect(widget.models.topLevelItem(1)).center()
    QTest.mouseClick(widget.models.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert widget.name.text() == "model 2"
    session.training.refresh()
    settle(lambda: not session.jobs)
    assert widget.name.text() == "model 2"  # which was chosen
    session.folder = second  # where no model was
    settle(lambda: len(rows(widget)) == 1)
    assert widget.name.text() == "model 2"
    assert widget.start_button.isVisible()
    type_text(widget.name, "model 1")
    session.steps.shown = WorkStep.TRAIN
    session.project.save()
    session.folder = first
    settle(lambda: len(rows(widget)) == 3)
    assert widget.name.text() == "model 4"  # what was typed was for the other project
    type_text(widget.name, "of mine")
    session.training.refresh()
    settle(lambda: not session.jobs)
    assert widget.name.text() == "of mine"
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    session.folder = second  # which opens as it was left, on the page Train
    page = open_workflow(viewer, settle).pages[WorkStep.TRAIN]
    assert page.isVisible()
    settle(lambda: rows(page))
    assert page.name.text() == "model 2"


def test_what_goes_wrong_is_a_sentence_and_the_widget_stays_usable(
    viewer: Any,
    widget: Any,
    settle: Settle,
    weak_data: Path,
    tmp_path: Path,
) -> None:
    session = session_of(viewer)
    session.settings = settings_for(tmp_path / "unplugged")
    run_job(widget.start_button, session, settle)
    assert "unplugged" in widget.bar.notice.text()
    assert widget.start_button.isVisible()
    session.settings = settings_for(weak_data, train={"steps": 1})
    run_job(widget.start_button, session, settle)
    settle(lambda: rows(widget) and rows(widget)[0][1] == "finished")
    assert not widget.bar.notice.text().startswith("✖")


def test_a_folder_that_appeared_meanwhile_is_not_overwritten(
    viewer: Any,
    widget: Any,
    settle: Settle,
    weak_data: Path,
) -> None:
    session = session_of(viewer)
    session.settings = settings_for(weak_data)
    type_text(widget.name, "taken")
    precious = session.models_folder / "taken" / "thesis.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("chapter one")
    run_job(widget.start_button, session, settle)
    assert "holds other files than an earlier result" in widget.bar.notice.text()
    assert precious.read_text() == "chapter one"


def test_the_project_s_image_bank_is_learnt_from(viewer: Any, widget: Any, settle: Settle, weak_data: Path) -> None:
    from napari_pbip.bank import load_single_tiles
    from napari_pbip.engine.banks.build_bank import build_bank
    from napari_pbip.gui.state.training import job_settings

    session = session_of(viewer)
    session.settings = settings = settings_for(weak_data, method={"name": "pbip"}, train={"steps": 1})
    assert "built first" in widget.source.text()
    tiles = load_single_tiles(weak_data, settings.data)
    assert isinstance(list(build_bank(tiles, session.bank_folder, settings.bank, settings.data))[-1], Finished)
    session.bank.load()
    settle(lambda: "<b>that of this project</b>" in widget.source.text())
    assert job_settings(session).bank_folder == session.bank_folder
    run_job(widget.start_button, session, settle)
    run = session.models_folder / "model 1"
    assert RunFacts.read(run).settings.bank_folder == session.bank_folder
    assert not (run / "bank").exists()


def long_curves(steps: int) -> Curves:
    rng = np.random.default_rng(0)
    curves = Curves()
    terms = ("loss", "foreground", "background", "classification_2", "classification_3", "classification_4")
    curves.add([Step(i + 1, dict(zip(terms, rng.random(6), strict=True))) for i in range(steps)])
    curves.add([Epoch(1, 1, {"oracle/miou": 50.0, "predicted/miou": 40.0})])
    return curves


def test_a_hundred_thousand_steps_are_drawn_without_a_stall(application: Any, settle: Settle) -> None:
    from napari_pbip.gui.widgets.curves import CurvesPlot

    plot = CurvesPlot()
    plot.resize(500, 400)
    plot.show()
    took: dict[int, list[float]] = {}
    for steps in (4_000, 100_000):  # as many as are drawn, and more
        curves = long_curves(steps)
        plot.show_curves(curves)
        settle()
        for i in range(10):
            curves.add([Step(steps + 1 + i, {"loss": 0.5})])
            began = time.perf_counter()
            plot.redraw()
            application.processEvents()
            took.setdefault(steps, []).append(time.perf_counter() - began)
    assert np.median(took[100_000]) < 3 * np.median(took[4_000])
    assert len(plot.loss.lines["loss"].getData()[0]) <= 4000
    drawn = []
    plot.loss.lines["loss"].sigPlotChanged.connect(drawn.append)
    began = time.monotonic()
    for i in range(100):
        curves.add([Step(101_000 + i, {"loss": 0.5})])
        plot.show_curves(curves)
        settle(lambda: True)
    settle(lambda: drawn)
    assert len(drawn) <= 2 + (time.monotonic() - began) / 0.3
    plot.close()
    plot.deleteLater()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_curves_can_be_read_on_both_themes(viewer: Any, widget: Any, settle: Settle, theme: str) -> None:
    from qtpy.QtGui import QColor

    from napari_pbip.gui.widgets.curves import COLOURS

    widget.plot.show_curves(long_curves(10))
    viewer.theme = theme
    settle()
    paper = widget.plot.loss.plot.backgroundBrush().color()
    assert (paper.lightnessF() > 0.5) is (theme == "light")
    ink = widget.plot.loss.plot.getAxis("left").textPen().color()
    assert contrast(ink, paper) > 7
    for colour in COLOURS:
        assert contrast(QColor(colour), paper) > 3, colour


def test_the_tab_key_goes_through_the_fields_from_top_to_bottom(widget: Any, settle: Settle) -> None:
    widget.form.others_button.setChecked(True)
    settle()
    names = ["method.name", "backbone.name", "train.epochs", "method.delta", "train.learning_rate", "train.seed"]
    wanted = [widget.form.editor(name) for name in names] + [widget.name, widget.start_button, widget.models]
    wanted[1:1] = widget.encoder.fields[:2]
    chain, at = [], widget.form.editor("method.name")
    while at not in chain:
        chain.append(at)
        at = at.nextInFocusChain()
    places = [chain.index(part) for part in wanted]
    assert places == sorted(places)


@pytest.mark.parametrize("events", [1, 2])
def test_cancelled_while_the_bank_is_built_it_can_be_resumed(
    viewer: Any,
    widget: Any,
    settle: Settle,
    weak_data: Path,
    events: int,
) -> None:
    session = session_of(viewer)
    run = session.models_folder / "early"
    job = train(settings_for(weak_data, method={"name": "pbip"}, train={"steps": 1}), run)
    while not (isinstance(event := next(job), Started) and "bank" in event.job):
        pass
    for _ in range(events - 1):
        next(job)
    job.close()
    session.training.refresh()
    settle(lambda: rows(widget))
    type_text(widget.name, "early")
    run_job(widget.resume_button, session, settle)
    assert not widget.bar.notice.text().startswith("✖"), widget.bar.notice.text()
    assert RunFacts.read(run).finished


def test_the_keyboards_focus_chooses_no_other_model(viewer: Any, widget: Any, settle: Settle) -> None:
    """When Train is pressed, the button is disabled, and Qt moves the focus to the next widget."""
    from qtpy.QtCore import QEvent, Qt
    from qtpy.QtGui import QFocusEvent
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    session = session_of(viewer)
    (session.models_folder / "older").mkdir(parents=True)
    (session.models_folder / "older" / MARKER).write_text("{}")
    session.training.refresh()
    settle(lambda: rows(widget))
    type_text(widget.name, "model 2")
    focus = QFocusEvent(QEvent.Type.FocusIn, Qt.FocusReason.TabFocusReason)
    QApplication.sendEvent(widget.models, focus)
    assert widget.models.currentItem() is not None  # Qt's doing
    assert widget.name.text() == "model 2"
    place = widget.models.visualItemRect(widget.models.topLevelItem(0)).center()
    QTest.mouseClick(widget.models.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert widget.name.text() == "older"
    type_text(widget.name, "model 2")
    widget.models.clearSelection()
    QApplication.sendEvent(widget.models, focus)
    QTest.keyClick(widget.models, Qt.Key.Key_Space)
    assert widget.name.text() == "older"


def test_a_probe_is_fitted_and_says_what_it_found(
    viewer: Any,
    widget: Any,
    settle: Settle,
    weak_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_: tmp_path / "cache")
    data = shutil.copytree(weak_data, tmp_path / "data")
    wrong = sorted((data / "train").glob("*[[]10[]]*"))[0]
    wrong = wrong.rename(wrong.with_name(wrong.name.replace("[10]", "[01]")))
    session = session_of(viewer)
    session.settings = settings_for(data, bank={"encoder": "efficientnet-lite0"})
    assert widget.form.editor("train.epochs").isVisible()
    choose_method(widget, "probe")
    assert not any(widget.form.editor(name).isVisible() for name in ("train.epochs", "backbone.name"))
    assert widget.form.editor("train.device").isVisible()
    run_job(widget.start_button, session, settle)
    settle(lambda: widget.report.isVisible())
    assert not widget.plot.isVisible()
    assert not widget.resume_button.isVisible()
    assert "predicted correctly" in widget.report.accuracy.text()
    counts = [[widget.report.confusion.item(r, c).text() for c in range(2)] for r in range(2)]
    assert int(counts[1][0]) >= 1
    first = widget.report.tiles.item(0)
    assert not first.icon().isNull()
    assert wrong.name in first.toolTip()
    assert not widget.report.picture.isVisible()
    widget.report.tiles.setCurrentItem(first)
    assert not widget.report.picture.pixmap().isNull()
    assert widget.report.sentence.text() == f"{wrong.name} is labelled MUS and looks like LYM."
    choose_method(widget, "cam")
    type_text(widget.name, "another")
    assert widget.plot.isVisible()
    assert not widget.report.isVisible()
