"""The live map: labels are given and removed with mouse and keys, and the pixels of the map change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
import shapely
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_pbip import samples
from napari_pbip.config import BankSettings, ProbeSettings
from napari_pbip.engine.banks.cut_tiles import cut_tiles
from napari_pbip.engine.run_facts import RunFacts
from napari_pbip.engine.training import live_map
from napari_pbip.engine.training.live_map import check_labels
from napari_pbip.engine.training.live_mosaics import LiveMosaics
from napari_pbip.engine.training.live_view import Fit
from napari_pbip.events import Event, Job, Started, Step
from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.docks.legend import LegendWidget
from napari_pbip.gui.state import labelling
from napari_pbip.results import ScoreStore
from napari_pbip.slides.regions import Kind, Region, Regions
from tests.gui.docks.test_label_tiles import Bench
from tests.gui.qt_helpers import answer, click

LEFT = Qt.MouseButton.LeftButton
DERMIS, KERATIN, GLASS = [(4, 4), (4, 5), (4, 10)], [(6, 5), (6, 6), (6, 7)], (1, 8)
"""Places of tiles of 224 pixels on the bundled slide."""


class LiveBench(Bench):
    """A bench with the live map."""

    @property
    def live(self) -> Any:
        return self.session.live_map

    @property
    def panel(self) -> Any:
        return self.part.live

    def look_at(self, column: float, row: float, tiles: float = 3) -> None:
        """Move the middle of a tile to the middle of the view, which is a number of tiles high."""
        camera, microns = camera_of(self.viewer), self.labels.size.microns
        camera.center = ((row + 0.5) * microns, (column + 0.5) * microns)
        camera.zoom = self.canvas.height() / (tiles * microns)
        self.settle()

    def give(self, label: int, *places: tuple[int, int]) -> None:
        self.part.table.choose(label)
        for place in places:
            self.click(*place)

    def drawn(self) -> None:
        """Wait until the map is up to date."""
        live = self.live
        self.settle(lambda: not live.busy)

    def cells(self, column: int, row: int) -> np.ndarray:
        """Return the cells of the layer on a tile."""
        side = self.labels.size.microns
        corners = [((row + d) * side, (column + d) * side) for d in (0.02, 0.98)]
        (top, left), (bottom, right) = (np.round(self.live.layer.world_to_data(c)).astype(int) for c in corners)
        return np.asarray(self.live.layer.data)[top : bottom + 1, left : right + 1]


@pytest.fixture
def bench(
    viewer: Any, settle: Callable[..., None], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> LiveBench:
    folder = tmp_path_factory.getbasetemp() / "features"  # shared by all tests of this module
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_: folder)
    bench = LiveBench(viewer, settle, samples.slide())
    bench.switch_on()
    bench.look_at(4.5, 6.5, tiles=8)
    return bench


def test_the_map_follows_every_label_and_every_move(viewer: Any, bench: LiveBench) -> None:
    click(bench.panel.live_button)
    assert "two classes" in bench.panel.note.text()
    assert bench.live.layer is None
    bench.give(0, *DERMIS[:2])
    bench.settle()
    assert bench.live.layer is None
    active = viewer.layers.selection.active
    said: list[str] = []
    bench.live.changed.connect(lambda: said.append(bench.panel.note.text()))
    bench.give(1, *KERATIN[:2])
    bench.drawn()
    assert [text for text in said if "Loading the encoder efficientnet-lite0; the first time" in text]
    layer = bench.live.layer
    assert viewer.layers.selection.active is active
    assert not bench.panel.note.isVisible()
    names = [one.name for one in viewer.layers]
    assert names == ["CMU-1-Small-Region", "Live map of CMU-1-Small-Region", "Labelled tiles", "Tile grid"]
    assert bench.cells(4, 4).shape == (28, 28)  # a cell every eight pixels
    assert np.mean(bench.cells(4, 4) == 1) > 0.8
    assert np.mean(bench.cells(6, 5) == 2) > 0.8
    assert not bench.cells(*GLASS).any()  # no tissue, no colour
    before = np.array(layer.data)
    bench.key(Qt.Key.Key_2, 4, 5)  # another opinion
    bench.settle(lambda: bench.live.busy)
    bench.drawn()
    assert bench.live.layer is layer
    assert (layer.data != before).any()
    bench.key(Qt.Key.Key_Z, 4, 5, Qt.KeyboardModifier.ControlModifier)
    bench.settle(lambda: bench.live.busy)
    bench.drawn()
    assert np.mean(layer.data == before) > 0.98  # but for where the fit began
    bench.look_at(4, 11)
    bench.drawn()
    assert np.isin([1, 2], bench.cells(4, 11)).any()
    bench.look_at(6, 6)
    bench.key(Qt.Key.Key_Delete, *KERATIN[0])
    bench.key(Qt.Key.Key_Delete, *KERATIN[1])
    bench.settle(lambda: bench.live.layer is None)
    assert "two classes" in bench.panel.note.text()
    bench.labels.undo()
    bench.settle(lambda: bench.live.layer is not None)
    QTest.mouseClick(bench.panel.live_button, LEFT)
    assert bench.live.layer is None
    assert not [one for one in viewer.layers if "Live" in one.name]


def test_regions_are_drawn_while_the_map_comes(viewer: Any, bench: LiveBench) -> None:
    bench.look_at(5, 4.5, tiles=3)
    bench.give(0, DERMIS[0])
    bench.give(1, KERATIN[0])
    click(bench.part.region_button)
    click(bench.panel.live_button)
    bench.drawn()
    assert bench.live.layer in viewer.layers  # napari selects every new layer for a moment
    assert viewer.layers.selection.active is viewer.layers["Region to label"]
    assert bench.part.region_button.isChecked()
    bench.draw((3.6, 4.6), (4.4, 4.6), (4.4, 5.4), (3.6, 5.4))
    assert bench.tiles == {DERMIS[0]: {0}, KERATIN[0]: {1}, DERMIS[1]: {1}}


def test_it_is_there_as_long_as_its_switch(viewer: Any, bench: LiveBench) -> None:
    bench.look_at(5, 4.5, tiles=3)
    bench.give(0, DERMIS[0])
    bench.give(1, KERATIN[0])
    click(bench.panel.live_button)
    bench.drawn()
    viewer.window.remove_dock_widget(bench.dock)
    assert bench.live.layer is None
    again = LiveBench(viewer, bench.settle)
    assert again.panel.live_button.isChecked()
    again.settle(lambda: again.live.layer is not None)
    viewer.layers.remove(again.live.layer)
    assert not again.panel.live_button.isChecked()
    click(again.panel.live_button)
    again.settle(lambda: again.live.layer is not None)
    viewer.layers.remove(bench.session.slides[0].layer)
    again.settle(lambda: again.live.layer is None and not bench.session.jobs)


def test_colours_and_hidden_classes_are_those_of_the_legend(viewer: Any, bench: LiveBench) -> None:
    dock = LegendWidget(viewer)
    viewer.window.add_dock_widget(dock, name="Legend")
    legend = dock.legend
    bench.look_at(5, 4.5, tiles=3)
    bench.give(0, DERMIS[0])
    bench.give(1, KERATIN[0])
    assert not legend.rows
    click(bench.panel.live_button)
    bench.drawn()
    bench.settle()
    assert sorted(legend.rows) == [1, 2]
    layer = bench.live.layer
    assert layer.colormap.map(1)[3] > 0
    QTest.mouseClick(legend.rows[1].eye, LEFT, pos=legend.rows[1].eye.rect().center())
    legend.rows[1].eye.setChecked(False)
    assert layer.colormap.map(1)[3] == 0
    assert layer.colormap.map(2)[3] > 0
    bench.labels.recolour_class(1, "#FF0000")
    bench.settle(lambda: np.allclose(layer.colormap.map(2), (1, 0, 0, 1)))
    assert layer.colormap.map(1)[3] == 0
    layer.opacity = 0.25
    bench.labels.rename_class(1, "muscle")
    bench.settle(lambda: legend.rows[2].eye.text() == "muscle")
    bench.drawn()
    assert bench.live.layer.opacity == 0.25
    assert "muscle" in str(bench.live.layer.features["class"].tolist())


def test_it_says_what_is_wrong_and_goes_on_when_it_is_mended(bench: LiveBench) -> None:
    bench.look_at(5, 4.5, tiles=3)
    bench.session.change(bank=BankSettings(encoder="texture"))
    bench.give(0, DERMIS[0])
    bench.give(1, KERATIN[0])
    click(bench.panel.live_button)
    bench.settle(lambda: bench.panel.problem.isVisible())
    assert "no dense features" in bench.panel.problem.text()
    assert bench.live.layer is None
    bench.session.change(bank=BankSettings())
    bench.settle(lambda: bench.live.layer is not None)
    assert not bench.panel.problem.isVisible()
    bench.drawn()


def test_labels_are_checked_and_a_doubtful_tile_is_gone_to(bench: LiveBench) -> None:
    bench.give(0, *DERMIS)
    bench.give(1, *KERATIN, (4, 7))  # the last one by mistake
    bench.look_at(5, 5, tiles=2)
    click(bench.panel.live_button)
    bench.settle(lambda: bench.panel.report.isVisible() and not bench.session.jobs)
    assert "predicted correctly" in bench.panel.report.accuracy.text()
    assert bench.panel.report.shares.text().startswith("By class: ")
    tiles = bench.panel.report.tiles
    assert not tiles.item(0).icon().isNull()
    wrong = [i for i in range(tiles.count()) if "x898_y1571" in tiles.item(i).toolTip()]
    assert wrong, [tiles.item(i).toolTip() for i in range(tiles.count())]
    bench.panel.report.tiles.setCurrentRow(wrong[0])
    microns = bench.labels.size.microns
    assert np.allclose(camera_of(bench.viewer).center[-2:], (7.5 * microns, 4.5 * microns), atol=1)
    bench.drawn()


def test_the_report_waits_for_the_pictures_of_its_tiles(bench: LiveBench, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def slow(*arguments: Any) -> Job:
        yield Started("Saving the labels", 1, "tiles")
        while not go_on.wait(0.01):
            yield Step(0)  # here it is stopped
        yield from cut_tiles(*arguments)

    monkeypatch.setattr(labelling, "cut_tiles", slow)
    bench.give(0, *DERMIS)
    bench.give(1, *KERATIN, (4, 7))  # the last one by mistake
    click(bench.panel.live_button)
    bench.settle(lambda: bench.live._fit is not None)
    bench.drawn()
    QTest.qWait(2_500)  # in which the labels would be checked
    assert not bench.panel.report.isVisible()
    go_on.set()
    bench.settle(lambda: bench.panel.report.isVisible())
    tiles = bench.panel.report.tiles
    assert tiles.count()
    assert not any(tiles.item(i).icon().isNull() for i in range(tiles.count()))


def test_labels_are_checked_although_a_newer_fit_or_label_comes_meanwhile(
    bench: LiveBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check takes long on a busy computer: until mosaics are known, and until a tile gets a second class."""
    begun, go_on = [], threading.Event()

    def slow(fit: Fit) -> Job:
        begun.append(fit)
        yield Started("Checking the labels", 1, "fits")
        while not go_on.wait(0.01):
            yield Step(0)  # here it is stopped
        yield from check_labels(fit)

    monkeypatch.setattr(live_map, "check_labels", slow)
    compose = LiveMosaics.compose

    def late(*arguments: Any) -> Iterator[Event]:
        while not begun:
            time.sleep(0.01)
            yield Step(0)
        yield from compose(*arguments)

    monkeypatch.setattr(LiveMosaics, "compose", late)
    bench.give(0, *DERMIS)
    bench.give(1, *KERATIN)
    click(bench.panel.live_button)
    bench.settle(lambda: begun)
    bench.drawn()
    assert bench.live._fit is not begun[0]  # mosaics have been composed
    go_on.set()
    bench.settle(lambda: bench.panel.report.isVisible() and not bench.session.jobs)
    assert len(begun) == 1

    go_on.clear()
    bench.give(0, (4, 9))
    bench.settle(lambda: len(begun) == 2)
    bench.part.table.choose(1)
    bench.click(4, 9, Qt.KeyboardModifier.ShiftModifier)  # which is no tile of one class any more
    bench.settle(lambda: len(begun) == 3)
    bench.key(Qt.Key.Key_Delete, 4, 9)  # and the tiles of one class stay the same
    bench.settle(lambda: len(begun) == 4)
    go_on.set()
    checked: list[None] = []
    bench.live.checked_changed.connect(lambda: checked.append(None))
    bench.settle(lambda: checked and not bench.session.jobs)
    assert len(begun) == 4
    assert sum(map(sum, bench.live.checked["confusion"])) == len(DERMIS) + len(KERATIN)

    # what is known is not checked again, and is gone with the labels
    click(bench.panel.live_button)
    click(bench.panel.live_button)
    bench.drawn()
    bench.settle(lambda: not bench.live._quiet.isActive() and not bench.session.jobs)
    assert len(begun) == 4
    assert bench.panel.report.isVisible()
    for place in KERATIN:
        bench.key(Qt.Key.Key_Delete, *place)
    bench.settle(lambda: not bench.panel.report.isVisible())


def test_the_whole_slide_is_mapped_in_one_step(bench: LiveBench) -> None:
    bench.give(0, *DERMIS)
    bench.give(1, *KERATIN)
    bench.look_at(5, 5, tiles=2)
    click(bench.panel.live_button)
    bench.drawn()
    click(bench.panel.whole_button)
    session = bench.session
    bench.settle(lambda: len(session.results) == 1)
    assert not bench.live.on
    bench.settle(lambda: "Next: 6 Tune" in bench.panel.whole_note.text() and not session.jobs)
    facts = RunFacts.read(session.models_folder / "model 1")
    assert isinstance(facts.settings.method, ProbeSettings)
    assert session.settings.method.name != "probe"  # what the user chose for the next training stays
    store = ScoreStore.open(Path(session.results[0].store.path))
    assert store.taxonomy == bench.labels.taxonomy
    bench.labels.label(session.labelling.facts.identity, [(5, 8)], (0,))
    click(bench.panel.whole_button)
    bench.settle(lambda: bench.panel.replace_button.isVisible())
    assert "a tissue map already" in bench.panel.whole_problem.text()
    click(bench.panel.replace_button)
    assert str(store.path) in answer(bench.panel, bench.settle, "Replace it")
    bench.settle(lambda: session.segmenting.running is not None)
    session.segmenting.stop()
    bench.settle(lambda: not session.jobs)


def test_what_is_left_out_is_neither_coloured_nor_suggested_and_its_labels_are_named(bench: LiveBench) -> None:
    click(bench.panel.live_button)
    bench.give(0, *DERMIS[:2])
    bench.give(1, *KERATIN[:2])
    bench.drawn()
    assert np.mean(bench.cells(6, 5) == 2) > 0.8
    assert "regions" not in bench.part.total.text()
    click(bench.part.tool_button)
    regions, slide = bench.session.regions, bench.session.labelling.slide
    regions.draw(slide, Kind.LEAVE_OUT)
    bench.draw((5.4, 4.4), (7.6, 4.4), (7.6, 6.6), (5.4, 6.6))
    assert len(regions.of(slide)) == 1
    bench.settle(lambda: bench.live.busy)
    bench.drawn()
    assert not bench.cells(6, 5).any()
    assert np.mean(bench.cells(4, 4) == 1) > 0.8  # the labels that lie there still teach
    assert "2 on this slide lie outside of what its regions analyse" in bench.part.total.text()
    click(bench.part.suggest.suggest_button)
    bench.settle(lambda: not bench.session.jobs and bench.session.suggestions.tile is not None)
    grid = bench.session.labelling.grid
    y, x = ((np.arange(count) + 0.5) * grid.side for count in (grid.rows, grid.columns))
    counted = regions.of(slide).counted(y, x)
    suggested = [place for _, place in bench.session.suggestions._tiles]
    assert len(suggested) == 10
    assert all(counted[row, column] for column, row in suggested)
    click(bench.part.suggest.stop_button)
    elsewhere = Region("elsewhere", Kind.ANALYSE, shapely.box(0, 2900, 60, 2960))
    regions.change(slide, Regions((elsewhere,)))
    bench.settle(lambda: bench.live.layer is None)
    assert "because of the regions" in bench.panel.note.text()
    bench.session.history.undo()
    bench.settle(lambda: bench.live.layer is not None)
    bench.session.history.undo()
    assert "regions" not in bench.part.total.text()
    bench.saved()
