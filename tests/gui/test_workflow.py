"""The whole workflow in one session."""

from __future__ import annotations

import csv

from napari_pbip.bank import ImageBank, load_tiles
from napari_pbip.results import ScoreStore, open_labels
from tests.gui.sample_labels import SKIN
from tests.gui.workflow import Workflow


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
    workflow.train(steps=3, batch_size=2)
    workflow.segment()
    store = ScoreStore.open(next(session.results_folder.glob("*/*.ome.zarr")))
    assert store.progress[0] == store.progress[1] > 0
    workflow.tune()
    _, facts = open_labels(store)
    assert facts.thresholds == session.results[0].thresholds
    workflow.export(tmp_path)
    with (tmp_path / "areas.csv").open(newline="") as file:
        assert {row["name"] for row in csv.DictReader(file)} == {*SKIN.classes, "not assigned", "not analysed"}
