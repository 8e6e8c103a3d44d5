"""The Bank widget on real tiles and a real slide, with real mouse and keys."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QMenu

from napari_pbip import samples
from napari_pbip.bank import Curation, ImageBank
from napari_pbip.config import BankSettings, DataSettings
from napari_pbip.gui.compat import camera_of
from napari_pbip.gui.sessions import session_of
from tests.gui.napari_privates import canvas_of
from tests.gui.qt_helpers import answer, click, double_click, press, type_text

CLASSES = ("LYM", "MUS", "TUM")


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """Return fifteen real tiles of three classes, which the test may change."""
    for name in CLASSES:
        shutil.copytree(samples.tiles() / name, tmp_path / "tiles" / name)
    return tmp_path / "tiles"


@pytest.fixture
def session(viewer: Any, tiles: Path) -> Any:
    from napari_pbip.gui.sessions import session_of

    session = session_of(viewer)
    session.change(data=DataSettings(folder=tiles, mpp=0.5), bank=BankSettings(encoder="texture", k=2))
    return session


@pytest.fixture
def widget(viewer: Any, session: Any, settle: Callable[..., None]) -> Any:
    return docked(viewer, settle)


def docked(viewer: Any, settle: Callable[..., None]) -> Any:
    from napari_pbip.gui.docks.bank import BankWidget

    widget = BankWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Image bank", area="right")
    settle(lambda: session_bank(widget).tiles is not None or widget.tiles_notice.isVisible())
    return widget


def session_bank(widget: Any) -> Any:
    return session_of(napari.current_viewer()).bank


@pytest.fixture
def built(widget: Any, session: Any, settle: Callable[..., None]) -> Any:
    """Return the widget with a bank of fifteen tiles."""
    click(widget.build_button)
    settle(lambda: session.bank.bank is not None and session.bank.places)
    settle()
    return widget


def updated(session: Any, settle: Callable[..., None], before: ImageBank) -> ImageBank:
    settle(lambda: session.bank.job is None and session.bank.bank is not before)
    return session.bank.bank


def of_file(bank: ImageBank, name: str) -> Any:
    return next(t for t in bank.tiles if t.path.endswith(name))


def cell(widget: Any, tile_hash: str) -> Any:
    """Return the middle of a tile's picture in the rows."""
    view = widget.clusters
    index = view.clusters.index(*view.clusters.where(tile_hash)[0])
    view.scrollTo(index)
    return view.visualRect(index).center()


def pick(widget: Any, *hashes: str) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    held = Qt.KeyboardModifier.NoModifier
    for tile_hash in hashes:
        place = cell(widget, tile_hash)
        QTest.mouseClick(widget.clusters.viewport(), Qt.MouseButton.LeftButton, held, place)
        held = Qt.KeyboardModifier.ControlModifier


def test_without_tiles_it_says_what_to_do_first(viewer, settle):
    widget = docked(viewer, settle)
    settle(widget.tiles_notice.isVisible)
    assert widget.tiles_notice.text().startswith("There are no labelled tiles yet;")  # nothing has gone wrong
    assert not widget.clusters.isVisible()
    click(widget.build_button)
    assert session_bank(widget).job is None


def test_wrong_input_is_a_sentence_at_its_field(widget, session, settle, tiles, tmp_path):
    session.change(bank=BankSettings(k=6))
    assert "LYM has 5 single-class tiles, too few for 6 clusters" in widget.k_notice.text()
    click(widget.build_button)
    assert session.bank.job is None
    session.change(bank=BankSettings(k=2, encoder="transformers"))
    assert not widget.k_notice.isVisible()
    settle(lambda: "needs weights" in widget.encoder.notice.text())
    assert widget.encoder.weights_form.isVisible()
    click(widget.build_button)
    assert session.bank.job is None
    session.change(bank=BankSettings(k=2))
    assert not widget.encoder.notice.isVisible()

    empty = tmp_path / "empty"
    empty.mkdir()
    session.change(data=DataSettings(folder=empty))
    settle(lambda: "holds no pictures" in widget.tiles_notice.text())
    for name in CLASSES[1:]:
        shutil.rmtree(tiles / name)
    session.change(data=DataSettings(folder=tiles))
    settle(lambda: "show the class LYM" in widget.tiles_notice.text())


def test_build_shows_clusters_with_pictures_and_tells_the_session(built, session, settle, tiles):
    view, bank = built.clusters, session.bank.bank
    assert session.settings.bank_folder == session.bank_folder
    assert ImageBank.read(session.bank_folder).identity == bank.identity
    model = view.clusters
    assert model.rowCount() == 3 + 6
    shown = [row for row in model.rows if row.facts is not None]
    for row in shown:
        assert row.tiles == bank.nearest(row.facts.subclass)
    from napari_pbip.gui.panels.cluster_view import PICTURE

    index = model.index(1, 0)
    settle(lambda: model.data(index, PICTURE) is not None)
    picture = model.data(index, PICTURE).toImage()
    real = Image.open(shown[0].tiles[0].path).convert("RGB").resize((picture.width(), picture.height()))
    middle = picture.pixelColor(36, 36)
    assert np.abs(np.subtract(middle.getRgb()[:3], real.getpixel((36, 36)))).max() < 40
    assert built.build_button.text() == "Update image bank"
    assert all(name in built.legend.text() for name in CLASSES)


def test_workers_of_a_scheduler_are_asked_to_build_and_not_to_correct(built, session, settle, monkeypatch):
    monkeypatch.setattr("napari_pbip.engine.cluster.connect._CONNECT_SECONDS", 1.0)
    click(built.settings_button)

    def choose(scheduler):
        field = built.scheduler_form.editor("scheduler")
        type_text(field, scheduler)
        QTest.keyClick(field, Qt.Key.Key_Return)

    choose("somewhere")
    assert "A scheduler is local:N" in built.scheduler_form.problem("scheduler").text()
    click(built.build_button)
    assert session.bank.job is None
    choose("tcp://127.0.0.1:1")  # where nobody is
    assert session.settings.scheduler == "tcp://127.0.0.1:1"
    before = session.bank.bank
    session.bank.select({before.tiles[0].hash})
    click(built.remove_button)
    assert len(updated(session, settle, before).tiles) == len(before.tiles) - 1
    click(built.build_button)
    settle(lambda: "No scheduler answers at tcp://127.0.0.1:1;" in built.build_bar.notice.text())
    assert "or correct “Scheduler”:" in built.build_bar.notice.text()


def test_delete_undo_and_move_by_keys_and_menu(built, session, settle):
    from qtpy.QtCore import Qt

    before = session.bank.bank
    first, second = before.nearest(2)[:2]
    pick(built, first.hash, second.hash)
    assert session.bank.selected == {first.hash, second.hash}
    assert "2 tiles selected" in built.picked_label.text()

    press(built.clusters, Qt.Key.Key_Delete)
    bank = updated(session, settle, before)
    assert len(bank.tiles) == 13
    assert {t.hash for t in bank.removed} == {first.hash, second.hash}
    assert Curation.read(session.bank_folder).tiles == {first.hash: None, second.hash: None}
    assert session.bank.selected == frozenset()

    other = of_file(bank, sorted(Path(t.path).name for t in bank.tiles if t.class_index == 0)[0])
    pick(built, other.hash)
    next(a for a in built.move_menu.actions() if a.text() == "TUM").trigger()
    moved = updated(session, settle, bank)
    assert next(t for t in moved.tiles if t.hash == other.hash).class_index == 2
    assert moved.clustered == ()  # as read from disk; the job's summary says what was computed
    assert session.bank.places.keys() == {t.hash for t in before.tiles}  # nothing was placed again

    press(built.clusters, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    back = updated(session, settle, moved)
    assert back.identity == bank.identity
    click(built.undo.undo_button)
    assert len(updated(session, settle, back).tiles) == 15
    assert not built.undo.undo_button.isEnabled()


def test_corrections_made_quickly_are_all_worked_in(built, session, settle):
    bank = session.bank.bank
    one, two, three = (bank.nearest(s)[0].hash for s in (0, 2, 4))
    session.bank.remove([one])
    session.bank.remove([two])
    session.bank.move([three], "LYM")
    settle(lambda: session.bank.job is None and len(session.bank.bank.tiles) == 13)
    assert Curation.read(session.bank_folder).tiles == {one: None, two: None, three: "LYM"}
    session.history.undo()
    session.history.undo()
    settle(lambda: session.bank.job is None and len(session.bank.bank.tiles) == 14)
    assert Curation.read(session.bank_folder).tiles == {one: None}


def test_corrections_of_another_window_are_not_overwritten(built, session, settle):
    bank = session.bank.bank
    theirs, mine = (bank.nearest(s)[0].hash for s in (0, 2))
    Curation.read(session.bank_folder).remove([theirs]).write(session.bank_folder)
    session.bank.select({mine})
    click(built.remove_button)
    settle(lambda: session.bank.job is None and session.bank.curation.tiles == {theirs: None})
    assert "corrected in another window" in built.build_bar.notice.text()
    session.bank.select({mine})
    click(built.remove_button)
    settle(lambda: session.bank.job is None and len(session.bank.bank.tiles) == 13)
    assert Curation.read(session.bank_folder).tiles == {theirs: None, mine: None}


def test_a_correction_that_leaves_too_few_is_refused(built, session, settle):
    bank = session.bank.bank
    session.bank.select({t.hash for t in bank.tiles if t.class_index == 1})
    click(built.remove_button)
    assert "MUS has no tile" in built.correct_notice.text()
    assert session.bank.job is None
    assert not session.history.last


def spin_of(widget: Any, name: str) -> Any:
    """Return the box with the number of clusters of a class."""
    from napari_pbip.gui.widgets.number_box import NumberBox

    return next(box for box in widget.clusters.findChildren(NumberBox) if box.objectName() == name)


def test_k_of_one_class(built, session, settle):
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    before = session.bank.bank
    spin = spin_of(built, "MUS")
    spin.setFocus()
    QTest.keyClick(spin, Qt.Key.Key_Up)
    bank = updated(session, settle, before)
    assert bank.k == (2, 3, 2)
    assert session.settings.bank.k == {"LYM": 2, "MUS": 3, "TUM": 2}
    np.testing.assert_array_equal(bank.prototypes[:2], before.prototypes[:2])
    session.bank.change_k("MUS", 0)
    automatic = updated(session, settle, bank)
    assert automatic.settings.k["MUS"] == "auto"
    pick(built, automatic.nearest(0)[0].hash)
    click(built.remove_button)
    fewer = updated(session, settle, automatic)
    click(built.undo.undo_button)
    back = updated(session, settle, fewer)
    click(built.undo.undo_button)
    assert built.undo.undo_button.toolTip().startswith("Undo the last change: number of clusters of MUS")
    three = updated(session, settle, back)
    assert three.identity == bank.identity
    click(built.undo.undo_button)
    two = updated(session, settle, three)
    assert two.identity == before.identity
    assert session.settings.bank.k == before.settings.k
    settle(lambda: spin_of(built, "MUS").value() == 2)
    click(built.undo.redo_button)
    assert updated(session, settle, two).k == (2, 3, 2)
    assert session.settings.bank.k == {"LYM": 2, "MUS": 3, "TUM": 2}


def test_lasso_and_rows_share_one_selection(built, session, settle):
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    plot, places = built.scatter.plot.viewport(), session.bank.places
    wanted = max(places, key=lambda h: places[h][0])
    at = built.scatter.place(wanted)
    corners = [(-9, -9), (9, -9), (9, 9), (-9, 9), (-9, -8)]
    outline = [QPoint(round(at.x()) + dx, round(at.y()) + dy) for dx, dy in corners]
    QTest.mousePress(plot, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, outline[0])
    for corner in outline[1:]:
        QTest.mouseMove(plot, corner)
        settle()
    QTest.mouseRelease(plot, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, outline[-1])
    settle()
    assert wanted in session.bank.selected
    rows = {built.clusters.clusters.tile(i).hash for i in built.clusters.selectedIndexes()}
    assert rows == session.bank.selected

    other = next(h for h in places if h not in rows)
    pick(built, other)
    assert session.bank.selected == {other}
    QTest.mouseClick(
        plot, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, built.scatter.place(wanted).toPoint()
    )
    settle(lambda: session.bank.selected == {wanted})


def double_click_tile(widget: Any, tile_hash: str) -> None:
    double_click(widget.clusters.viewport(), cell(widget, tile_hash))


def test_from_a_thumbnail_to_its_place_on_the_slide_and_back(viewer, settle):
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    session = session_of(viewer)
    slide = session.slides.open(samples.slide())
    session.labelling.open()
    settle()
    labels, identity = session.labelling.labels, slide.slide.identity
    labels.label(identity, [(4, 4), (4, 5), (5, 5)], {0})
    labels.label(identity, [(6, 11), (6, 12), (5, 12)], {1})
    settle(lambda: not session.labelling.saving)
    session.change(bank=BankSettings(encoder="texture", k=1))
    widget = docked(viewer, settle)
    click(widget.build_button)
    settle(lambda: session.bank.bank is not None and session.bank.places)
    side = 112 / 0.499
    by_place = {(round(t.origin.x / side), round(t.origin.y / side)): t.hash for t in session.bank.bank.tiles}
    camera, canvas = camera_of(viewer), canvas_of(viewer)

    def is_at(column: int, row: int) -> bool:
        return np.allclose(camera.center[-2:], ((row + 0.5) * 112, (column + 0.5) * 112), atol=0.5)

    double_click_tile(widget, by_place[6, 12])
    assert is_at(6, 12)
    settle()
    middle = QPoint(canvas.width() // 2, canvas.height() // 2)
    tile_on_screen = QPoint(0, round(112 * camera.zoom))
    QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, middle - tile_on_screen)
    assert session.bank.selected == {by_place[6, 11]}
    assert widget.clusters.selectedIndexes()
    QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, middle + QPoint(300, 0))
    assert session.bank.selected == {by_place[6, 11]}  # there is no label
    labels.label(identity, [(6, 12)], {0, 1})
    session.bank.remove([by_place[6, 12]])
    settle(lambda: session.bank.job is None and len(session.bank.bank.tiles) == 5)
    QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, middle)
    assert "not in the image bank" in widget.correct_notice.text()

    viewer.layers.remove(slide.layer)
    settle()
    double_click_tile(widget, by_place[4, 5])
    settle(lambda: len(session.slides) == 1 and is_at(4, 5))
    settle()
    assert is_at(4, 5)
    before, moved = session.folder, session.folder.with_name("moved")
    session.folder = before.with_name("other")
    settle(lambda: not session.jobs)
    shutil.move(before, moved)
    session.folder = moved
    settle(lambda: session.bank.bank is not None and len(session.slides) == 1 and not session.jobs)
    double_click_tile(widget, by_place[4, 4])
    settle(lambda: is_at(4, 4))  # the bank names the picture where it was
    session.project.remove([samples.slide()])
    settle()
    widget.clusters.customContextMenuRequested.emit(cell(widget, by_place[4, 4]))
    menu = widget.findChildren(QMenu)[-1]
    menu.actions()[0].trigger()
    menu.close()
    assert "CMU-1-Small-Region is not in this project; open it in Slides" in widget.correct_notice.text()
    settle(lambda: not session.jobs)


def test_a_tile_of_a_folder_has_no_place_on_a_slide(built, session):
    double_click_tile(built, session.bank.bank.tiles[0].hash)
    assert "the slide it was cut from is not known" in built.correct_notice.text()


def test_another_encoder_asks_before_it_replaces(built, session, settle):
    before, gone = session.bank.bank, session.bank.bank.tiles[0].hash
    session.change(bank=BankSettings(encoder="tiny", k=1))
    session.bank.remove([gone])  # of the bank as it is, whatever is chosen for the next one
    kept = updated(session, settle, before)
    assert (kept.encoder["name"], len(kept.tiles), kept.k) == ("texture", 14, before.k)

    click(built.build_button)
    assert "texture" in answer(built, settle, "Cancel")
    assert session.bank.job is None
    assert session.bank.bank is kept
    click(built.build_button)
    answer(built, settle, "Replace it")
    settle(lambda: session.bank.job is None and session.bank.bank.encoder["name"] == "tiny")
    assert session.bank.bank.k == (1, 1, 1)
    assert [t.hash for t in session.bank.bank.removed] == [gone]


def test_another_project_has_another_bank(built, session, settle, tmp_path):
    first, identity = session.folder, session.bank.bank.identity
    session.folder = tmp_path / "other"
    assert session.bank.bank is None
    assert session.settings.bank_folder is None
    settle()
    assert not built.clusters.isVisible()
    session.change(bank=BankSettings())
    session.folder = first
    settle(lambda: session.bank.bank is not None)
    assert session.bank.bank.identity == identity
    assert session.settings.bank.k == 2  # as the bank was made


def test_a_damaged_bank_is_told_and_mended(built, session, settle):
    identity = session.bank.bank.identity
    (session.bank_folder / "prototypes.safetensors").write_bytes(b"no")
    session.bank.load()
    settle(lambda: session.bank.problem)
    assert "damaged" in built.bank_notice.text()
    assert not built.clusters.isVisible()
    click(built.build_button)
    answer(built, settle, "Repair it")
    settle(lambda: session.bank.bank is not None)
    assert session.bank.bank.identity == identity
    assert not built.bank_notice.isVisible()


def test_clusters_to_look_at_one_after_another(built: Any, settle: Callable[..., None]) -> None:
    view = built.clusters
    rows = [n for n, row in enumerate(view.clusters.rows) if row.facts is not None and row.facts.warning]
    assert rows
    for row in (*rows, rows[0]):
        click(built.impure_button)
        settle()
        warning = view.clusters.rows[row].facts.warning
        assert warning[1:] in built.impure_notice.text()
        assert view.pane.rect().intersects(view.visualRect(view.clusters.index(row, 0)))


def test_warnings_of_the_whole_bank_and_their_tiles(built, session, settle, tiles):
    before = session.bank.bank
    copied = sorted((tiles / "TUM").iterdir())[0]
    Image.open(copied).convert("RGB").rotate(90).save(tiles / "TUM" / "turned.png")
    Image.new("RGB", (64, 64), "white").save(tiles / "LYM" / "white.png")
    click(built.build_button)
    bank = updated(session, settle, before)
    assert "1 of 17 tiles are mostly white" in built.warnings.text()
    assert "turned.png" in built.warnings.text()
    click(built.duplicates_button)
    assert session.bank.selected == {of_file(bank, "turned.png").hash}
    click(built.remove_button)
    updated(session, settle, bank)
    assert "turned.png" not in built.warnings.text()
    assert not built.duplicates_button.isVisible()


def test_a_class_renamed_on_disk_is_built_anew(built, session, settle, tiles):
    before = session.bank.bank
    (tiles / "LYM").rename(tiles / "LYMPHO")
    session.bank.find_tiles()
    settle(lambda: session.bank.tiles.taxonomy.names == ("LYMPHO", "MUS", "TUM"))
    click(built.build_button)
    assert updated(session, settle, before).taxonomy.names == ("LYMPHO", "MUS", "TUM")
    assert "LYMPHO" in built.legend.text()


def test_closing_the_dock_loses_nothing(viewer, built, session, settle):
    bank = session.bank.bank
    chosen = bank.tiles[3].hash
    session.bank.select({chosen})
    viewer.window.remove_dock_widget(built)
    settle()
    session.bank.move([chosen], "TUM")
    again = updated(session, settle, bank)
    session.bank.select({chosen})
    widget = docked(viewer, settle)
    settle()
    assert [widget.clusters.clusters.tile(i).hash for i in widget.clusters.selectedIndexes()] == [chosen]
    assert widget.undo.undo_button.isEnabled()
    click(widget.undo.undo_button)
    settle(lambda: session.bank.job is None and session.bank.bank.identity == bank.identity)
    assert again.identity != bank.identity


def test_a_deleted_widget_is_not_spoken_to(viewer, built, session, settle):
    from qtpy.QtCore import QEvent
    from qtpy.QtWidgets import QApplication

    bank = session.bank.bank
    viewer.window.remove_dock_widget(built)
    built.deleteLater()
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    session.bank.select({bank.tiles[0].hash})
    session.bank.remove([bank.tiles[0].hash] if len(bank.tiles) > 14 else [])
    updated(session, settle, bank)
    viewer.theme = "light"
    settle()


def test_follows_the_theme(viewer, built, settle):
    dark = built.scatter.plot.backgroundBrush().color().lightness()
    viewer.theme = "light"
    settle()
    assert built.scatter.plot.backgroundBrush().color().lightness() > dark + 100
    ink, paper = built.clusters.colours
    assert paper.lightness() > ink.lightness() + 100


def test_classes_that_were_renamed_since_are_told_until_the_bank_is_up_to_date(built, session, settle, tiles):
    assert not built.tiles_notice.isVisible()
    (tiles / "LYM").rename(tiles / "lymphocytes")
    before = session.bank.bank
    session.bank.find_tiles()
    settle(lambda: built.tiles_notice.isVisible())
    assert "MUS, TUM, lymphocytes" in built.tiles_notice.text()
    assert "Update image bank" in built.tiles_notice.text()
    click(built.build_button)
    bank = updated(session, settle, before)
    settle()
    assert bank.taxonomy.names == ("MUS", "TUM", "lymphocytes")
    assert not built.tiles_notice.isVisible()
