"""The bundled project: every dock has data a moment after it was opened."""

from __future__ import annotations

from typing import Any

import pytest

from napari_pbip.config import SegmentSettings
from napari_pbip.engine.run_facts import RunFacts
from napari_pbip.gui.samples import MODEL, PROJECT
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.state.queued_slide import Status
from napari_pbip.results import ScoreStore
from tests.gui.qt_helpers import Settle, click
from tests.gui.sample_labels import SKIN


@pytest.fixture
def session(viewer: Any, settle: Settle) -> Any:
    """Return a session with the open project."""
    viewer.open_sample("napari-pbip", "project")
    session = session_of(viewer)
    settle(lambda: session.folder.name == PROJECT and len(session.slides))
    return session


def dock(viewer: Any, settle: Settle, name: str) -> Any:
    _, widget = viewer.window.add_plugin_dock_widget("napari-pbip", name)
    settle()
    return widget


def test_every_dock_has_work(viewer: Any, session: Any, settle: Settle) -> None:
    assert [one.slide.name for one in session.slides] == ["CMU-1-Small-Region"]
    teach = dock(viewer, settle, "2 Label tiles")
    assert session.labelling.labels.taxonomy.names == SKIN.classes
    mixed = [name for names in SKIN.mixed.values() for name in names]
    assert session.labelling.labels.counts == tuple(len(SKIN.tiles[n]) + mixed.count(n) for n in SKIN.classes)
    assert teach.isVisible()
    dock(viewer, settle, "3 Image bank")
    settle(lambda: session.bank.bank is not None)
    assert session.bank.problem == ""
    assert session.bank.bank.identity == RunFacts.read(session.models_folder / MODEL).prototypes["bank"]
    train = dock(viewer, settle, "4 Train")
    settle(lambda: MODEL in session.training.models)
    assert session.training.models[MODEL].finished
    train.name.setText(MODEL)
    session.change(train=session.settings.train.model_copy(update={"steps": 500, "device": "cpu"}))
    click(train.resume_button)
    settle(lambda: session.training.job is None)
    assert "train a new model" in train.bar.notice.text()


def test_the_model_maps_the_slide(viewer: Any, session: Any, settle: Settle) -> None:
    session.change(segment=SegmentSettings(device="cpu", precision="float32", overlap=16))
    segment = dock(viewer, settle, "5 Segment")
    settle(lambda: segment.model.count() == 1)
    click(segment.segment_button)
    settle(lambda: session.segmenting.slides and not session.segmenting.slides[0].status.active, 180)
    assert session.segmenting.slides[0].status is Status.DONE
    result = session.results[0]
    settle(lambda: result.areas.exact)
    percent = {area.name: area.percent_of_tissue for area in result.areas.rows}
    # as one sees on the slide: mostly dermis, and some of all
    assert percent["dermis"] > percent["epidermis"] > percent["keratin"] > 5
    assert percent["not assigned"] < 20
    assert ScoreStore.open(result.store.path).progress[0] > 0


def test_what_was_done_with_it_stays(viewer: Any, session: Any, settle: Settle) -> None:
    facts = session.models_folder / MODEL / "run.json"
    labels = session.tiles_folder / "labels.json"
    before = facts.stat().st_mtime_ns, labels.stat().st_mtime_ns
    session.folder = session.folder.with_name("another")
    viewer.open_sample("napari-pbip", "project")
    assert session.folder.name == PROJECT
    settle()
    assert (facts.stat().st_mtime_ns, labels.stat().st_mtime_ns) == before


def test_one_that_was_damaged_is_a_sentence(viewer: Any, session: Any, settle: Settle) -> None:
    from napari.utils.notifications import notification_manager

    (session.models_folder / MODEL / "run.json").write_text("{")
    session.folder = before = session.folder.with_name("another")
    notification_manager.records.clear()
    viewer.open_sample("napari-pbip", "project")
    assert "run.json" in notification_manager.records[-1].message
    assert session.folder == before


def test_a_place_that_cannot_be_written_is_a_sentence(viewer: Any, settle: Settle) -> None:
    from napari.utils.notifications import notification_manager

    session = session_of(viewer)
    before = session.folder
    session.folder.with_name(PROJECT).write_text("in the way")
    notification_manager.records.clear()
    viewer.open_sample("napari-pbip", "project")
    settle(lambda: notification_manager.records)
    assert PROJECT in notification_manager.records[-1].message
    assert session.folder == before
    assert len(session.slides) == 1
