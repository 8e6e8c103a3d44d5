"""Suggested tiles: answered with keys on the canvas, on three slides of which one is open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_pbip import samples
from napari_pbip.gui.compat import camera_of
from napari_pbip.slides import TileSize
from tests.gui.docks.test_label_tiles import NO, SHIFT, Bench
from tests.gui.qt_helpers import click


class SuggestBench(Bench):
    """A bench with suggestions."""

    @property
    def panel(self) -> Any:
        return self.part.suggest

    @property
    def tile(self) -> Any:
        return self.session.suggestions.tile

    def suggest(self) -> None:
        click(self.panel.suggest_button)
        self.settle(lambda: not self.session.jobs and self.tile is not None)
        self.arrived()

    def press(self, key: Any, modifiers: Any = NO) -> None:
        """Press a key wherever the mouse is, and wait until the next tile is in view."""
        QTest.keyClick(self.canvas, key, modifiers)
        self.arrived()

    def arrived(self) -> None:
        """Wait until the suggested tile is in the middle of the view, with neighbours, and is outlined."""
        self.settle(lambda: self.tile is None or self.in_the_middle())

    def in_the_middle(self) -> bool:
        camera, side = camera_of(self.viewer), self.labels.size.microns
        middle = (np.array(self.tile[1][::-1]) + 0.5) * side
        frames = [layer for layer in self.viewer.layers if layer.name == "Tile grid" and layer.visible]
        facts = self.session.labelling.facts
        return (
            facts is not None
            and facts.identity == self.tile[0].identity
            and np.allclose(np.array(camera.center)[-2:], middle)
            and self.canvas.height() / camera.zoom > 2 * side
            and [(frame.data[0].outlined or (None,))[0] for frame in frames] == [self.tile[1]]
        )

    def given(self, tile: Any) -> Any:
        return self.labels.tiles(tile[0].identity).get(tile[1])


@pytest.fixture
def bench(
    viewer: Any,
    settle: Callable[..., None],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> SuggestBench:
    folder = tmp_path_factory.getbasetemp() / "features"
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_: folder)
    # microns per pixel of sample slides, which would count in all tests that follow
    monkeypatch.setattr(platformdirs, "user_data_path", lambda *_, **__: tmp_path / "data")
    bench = SuggestBench(viewer, settle, samples.slide())
    bench.labels.resize(TileSize(pixels=224, mpp=1.0))
    settle()
    return bench


def test_suggested_tiles_of_three_slides_are_answered_with_keys(bench: SuggestBench) -> None:
    project = bench.session.project
    others = {samples.frozen_section(): 0.5, samples.tumour(): 1.0}
    project.add([*others])
    bench.settle(lambda: len(project.slides) == 3)
    for path, mpp in others.items():
        project.give_mpp(path.absolute(), mpp)
    bench.settle(lambda: not bench.session.jobs)
    QTest.mouseMove(bench.canvas, bench.at(1, 1))
    bench.suggest()
    assert bench.part.tool.on
    assert "Tile 1 of 10" in bench.panel.note.text()
    first = bench.tile
    bench.press(Qt.Key.Key_2)
    assert bench.given(first) == {1}
    second = bench.tile
    assert second != first
    assert "Tile 2 of 10" in bench.panel.note.text()
    bench.press(Qt.Key.Key_1, SHIFT)  # it shows several classes, so it stays
    assert bench.tile == second
    bench.press(Qt.Key.Key_2, SHIFT)
    bench.press(Qt.Key.Key_K)
    assert bench.given(second) == {0, 1}
    third = bench.tile
    assert third not in (first, second)
    bench.press(Qt.Key.Key_K)
    assert bench.given(third) is None
    assert bench.tile != third
    bench.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert bench.tile == third
    bench.press(Qt.Key.Key_K)
    seen = {first[0].path, second[0].path, third[0].path}
    while bench.tile is not None:
        seen.add(bench.tile[0].path)
        bench.press(Qt.Key.Key_1)
    assert seen == {slide.path for slide in project.slides}
    assert len(bench.labels) == 9
    assert "All 10 suggested tiles are answered" in bench.panel.note.text()
    bench.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert "Tile 10 of 10" in bench.panel.note.text()
    bench.suggest()  # the next ones
    assert bench.tile != third
    assert bench.given(bench.tile) is None
    bench.press(Qt.Key.Key_Escape)
    assert bench.tile is None
    assert not bench.panel.skip_button.isVisible()
    count = len(bench.labels)
    bench.key(Qt.Key.Key_1, 0, 0)  # the number keys are for the tile under the mouse again
    assert len(bench.labels) == count + 1
    bench.saved()


def test_skipped_tiles_are_remembered_over_a_restart(bench: SuggestBench) -> None:
    bench.suggest()
    first = bench.tile
    bench.press(Qt.Key.Key_K)
    second = bench.tile
    bench.press(Qt.Key.Key_K)
    bench.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert bench.tile == second
    bench.press(Qt.Key.Key_Escape)
    session, folder = bench.session, bench.session.folder
    session.folder = folder.with_name("another")
    bench.settle()
    assert not session.suggestions.skipped
    session.folder = folder
    bench.settle(lambda: not session.project.opening and session.labelling.grid is not None)
    [skipped] = session.suggestions.skipped
    assert (skipped.slide, skipped.positions) == (first[0].identity, (first[1],))
    bench.labels.resize(TileSize(pixels=224, mpp=1.0))
    bench.suggest()
    assert first not in session.suggestions._tiles
    assert second in session.suggestions._tiles
    click(bench.panel.stop_button)
    bench.saved()


def test_a_slide_without_microns_per_pixel_is_named(bench: SuggestBench, tmp_path: Path) -> None:
    copy = tmp_path / "copy.tif"
    copy.write_bytes(samples.frozen_section().read_bytes())
    bench.session.project.add([copy])
    bench.settle(lambda: len(bench.session.project.slides) == 2)
    bench.suggest()
    assert "copy.tif" in bench.panel.bar.notice.text()
    assert bench.tile[0].path == samples.slide()
    click(bench.panel.stop_button)
    assert bench.tile is None
    bench.saved()
