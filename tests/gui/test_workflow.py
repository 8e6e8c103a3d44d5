"""docs/tutorials/one-slide.md, done word for word in three sittings; what is written is checked, and made again."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from napari_pbip.bank import ImageBank, load_tiles
from napari_pbip.cli import app
from napari_pbip.project import Project
from napari_pbip.replay import SCRIPT
from napari_pbip.results import ScoreStore, open_labels
from tests.gui.reader import Reader
from tests.gui.sample_labels import SKIN
from tests.gui.sitting import sitting
from tests.gui.workflow import PAGE
from tests.same_project import assert_same

ELSEWHERE = {
    "Workflow",
    "Window",
    "File > Open Sample",
    "File > Open Sample > PBIP tissue segmentation > Skin project",
    "File > Save Selected Layers",
    "layer controls",
    "tissue of …",
    "Ctrl+Page Up",
    "Ctrl+Page Down",
    "LPD",
    "ConStruct",
    "CAM",
    "efficientnet-lite0",
    "auto",
}
"""Names on the page of what is in menus, in lists, or not in the panel."""


def test_the_page_can_be_followed_over_days_and_in_any_language(display: None, tmp_path: Path) -> None:
    def one(what: str, locale: str, width: int, height: int, steps: int, **environment: str) -> dict[str, Any]:
        return sitting("tests.gui.story", what, tmp_path, locale, width, height, steps, **environment)  # type: ignore[no-any-return]

    reader, folder = Reader(PAGE), tmp_path / "project"
    first = one("begin", "de_DE", 1366, 768, 0)
    tiles = load_tiles(folder / "tiles")
    assert tiles.taxonomy.names == SKIN.classes
    assert len(tiles.single_class) == sum(map(len, SKIN.tiles.values()))
    assert ImageBank.read(folder / "bank").taxonomy.names == SKIN.classes
    second = one("go_on", "fr_FR", 1920, 1080, first["steps"])
    assert second["found"] == first["left"]
    store = ScoreStore.open(next(folder.glob("results/*/*.ome.zarr")))
    assert store.progress[0] == store.progress[1] > 0
    _, facts = open_labels(store)
    with (tmp_path / "areas.csv").open(newline="") as file:
        assert {row["name"] for row in csv.DictReader(file)} == {*SKIN.classes, "not assigned", "not analysed"}
    # everything half as large again, on a screen of 1920 x 1080 pixels
    third = one("look", "C", 1280, 720, second["steps"], QT_SCALE_FACTOR="1.5")
    assert third["found"] == second["left"]
    assert third["found"]["results"] == [[store.path.name, facts.thresholds.model_dump()]]
    # nothing on the page was left out
    assert third["steps"] == len(reader.steps)
    assert reader.names - {*first["read"], *second["read"], *third["read"]} == ELSEWHERE
    # and it is made again by the command line alone
    replayed = CliRunner().invoke(app, ["replay", str(folder), "--out", str(tmp_path / "copy")])
    assert replayed.exit_code == 0, (replayed.output, replayed.exception)
    assert (tmp_path / "copy" / SCRIPT).read_text() == (folder / SCRIPT).read_text()
    assert_same(folder, tmp_path / "copy")
    assert [result.thresholds for result in Project.open(tmp_path / "copy").results] == [facts.thresholds]
