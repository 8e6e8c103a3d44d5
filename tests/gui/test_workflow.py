"""The whole workflow in one session."""

from __future__ import annotations

import csv

from typer.testing import CliRunner

from napari_pbip.bank import ImageBank, load_tiles
from napari_pbip.cli import app
from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.state.steps import Step
from napari_pbip.project import Project
from napari_pbip.replay import SCRIPT
from napari_pbip.results import ScoreStore, open_labels
from tests.gui.qt_helpers import click
from tests.gui.sample_labels import SKIN
from tests.gui.workflow import Workflow
from tests.same_project import assert_same


def correct_the_bank(workflow: Workflow) -> None:
    """Remove the first tile that the bank shows."""
    bank, session = workflow.panel.pages[Step.BANK], workflow.session
    before = session.bank.bank
    session.bank.select([before.nearest(0)[0].hash])
    click(bank.remove_button)
    workflow.settle(lambda: session.bank.job is None and session.bank.bank is not before)
    assert session.bank.bank.removed


def test_from_a_slide_to_a_tuned_tissue_map_without_a_command_line(viewer, settle, tmp_path):
    workflow = Workflow(viewer, settle)
    session = workflow.session
    workflow.look()
    workflow.label_tiles()
    tiles = load_tiles(session.tiles_folder)
    assert tiles.taxonomy.names == SKIN.classes
    assert len(tiles.single_class) == sum(map(len, SKIN.tiles.values()))
    workflow.build_bank()
    assert ImageBank.read(session.bank_folder).taxonomy.names == SKIN.classes
    correct_the_bank(workflow)
    workflow.train(steps=3, batch_size=2)
    camera_of(viewer).zoom *= 3  # the tiles in view come first
    workflow.segment()
    store = ScoreStore.open(next(session.results_folder.glob("*/*.ome.zarr")))
    assert store.progress[0] == store.progress[1] > 0
    workflow.tune()
    _, facts = open_labels(store)
    assert facts.thresholds == session.results[0].thresholds
    workflow.export(tmp_path)
    with (tmp_path / "areas.csv").open(newline="") as file:
        assert {row["name"] for row in csv.DictReader(file)} == {*SKIN.classes, "not assigned", "not analysed"}
    # and it is made again by the command line alone
    project = workflow.page(Step.PROJECT)
    click(project.script_button)
    settle(project.notice.isVisible)
    assert project.notice.text() == (
        'Saved as steps.sh in the project folder; napari-pbip replay "project" --out COPY runs them.'
    )
    replayed = CliRunner().invoke(app, ["replay", str(session.folder), "--out", str(tmp_path / "copy")])
    assert replayed.exit_code == 0, (replayed.output, replayed.exception)
    assert (tmp_path / "copy" / SCRIPT).read_text() == (session.folder / SCRIPT).read_text()
    assert_same(session.folder, tmp_path / "copy")
    assert [result.thresholds for result in Project.open(tmp_path / "copy").results] == [facts.thresholds]
