"""Running jobs in threads, and the transfer of their events to the window."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import napari
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QMessageBox

from napari_pbip import samples
from napari_pbip.engine.cluster.jobs import as_one, in_turn
from napari_pbip.errors import DataError, JobFailed
from napari_pbip.events import Finished, Job, Loading, Noted, Started, Step, Warned
from napari_pbip.gui.jobs import NewestJob, RunningJob, State, last
from napari_pbip.gui.sessions import session_of
from napari_pbip.gui.widgets.job_bar import JobBar
from tests.gui.napari_privates import activity_bars
from tests.gui.qt_helpers import answer, click
from tests.waiting import PATIENCE


def counting(steps: int, closed: list[int], pause: float = 0.01) -> Job:
    yield Started("Counting", steps, "numbers")
    done = 0
    try:
        for done in range(1, steps + 1):
            time.sleep(pause)
            yield Step(done, {"thread": threading.get_ident()})
    finally:
        closed.append(done)
    yield Finished(Path("there"), {"done": done})


def followed(job: RunningJob) -> tuple[list, list]:
    events, ends = [], []
    job.events.connect(events.extend)
    job.ended.connect(ends.append)
    return events, ends


def test_the_newest_job_wins_and_never_two_run_at_once(application, settle):
    begun: list[tuple[str, RunningJob]] = []
    newest = NewestJob(RunningJob)
    for name in "abc":
        newest.start(lambda: counting(500, []), lambda job, name=name: begun.append((name, job)))
    first = begun[0][1]
    assert newest.job is first
    settle(lambda: newest.job is not first)
    assert first.state is State.CANCELLED
    assert [name for name, _ in begun] == ["a", "c"]  # b came and went while a was stopping
    newest.start(lambda: counting(2, []), lambda job: begun.append(("d", job)))
    newest.stop()
    settle(lambda: newest.job is None)
    assert len(begun) == 2


def test_events_arrive_in_order_on_the_main_thread(application, settle):
    closed: list[int] = []
    threads = set()
    job = RunningJob(lambda: counting(20, closed))
    events, ends = followed(job)
    job.events.connect(lambda _: threads.add(threading.get_ident()))
    settle(lambda: job.state.ended)
    assert ends == [State.FINISHED]
    assert [e.done for e in events if isinstance(e, Step)] == list(range(1, 21))
    assert threads == {threading.get_ident()}
    assert events[1].values["thread"] != threading.get_ident()
    assert isinstance(events[-1], Finished)
    assert job.result == events[-1]
    assert last(events, Step).done == 20


def test_cancel_closes_the_generator_and_ends_once(application, settle):
    closed: list[int] = []
    job = RunningJob(lambda: counting(10_000, closed))
    events, ends = followed(job)
    settle(lambda: len(events) > 3)
    job.cancel()
    assert job.state is State.CANCELLING
    settle(lambda: job.state.ended)
    assert ends == [State.CANCELLED]
    assert len(closed) == 1
    assert 0 < closed[0] < 10_000
    assert job.result is None


def test_pause_holds_the_job_and_resume_goes_on(application, settle):
    closed: list[int] = []
    job = RunningJob(lambda: counting(60, closed))
    events, _ = followed(job)
    settle(lambda: len(events) > 3)
    job.pause()
    settle()
    held = len(events)
    settle()
    assert len(events) == held
    job.resume()
    settle(lambda: job.state.ended)
    assert job.state is State.FINISHED


def test_a_runtime_error_in_a_job_reaches_the_window(application, settle):
    def broken() -> Job:
        yield Started("Breaking", 1, "things")
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    job = RunningJob(broken)
    _, ends = followed(job)
    settle(lambda: job.state.ended)
    assert ends == [State.FAILED]
    assert isinstance(job.error, JobFailed)
    assert "mat1 and mat2" in str(job.error)
    assert isinstance(job.error.__cause__, RuntimeError)


@pytest.mark.parametrize("error", [DataError("The folder is empty; choose another."), MemoryError(), StopIteration()])
def test_whatever_a_job_raises_ends_it(application, settle, error):
    def broken() -> Job:
        raise error
        yield

    job = RunningJob(broken)
    settle(lambda: job.state.ended)
    assert job.state is State.FAILED
    assert job.error is not None


def test_an_error_while_cancelling_is_told(application, settle):
    def stubborn() -> Job:
        yield Started("Saving", 1, "files")
        try:
            while True:
                time.sleep(0.01)
                yield Step(0)
        except GeneratorExit:
            raise DataError("The disk is full; free some space.") from None

    job = RunningJob(stubborn)
    events, _ = followed(job)
    settle(lambda: events)
    job.cancel()
    settle(lambda: job.state.ended)
    assert job.state is State.FAILED
    assert "disk is full" in str(job.error)


def test_warnings_of_a_job_become_events_and_others_do_not(application, settle):
    def careless() -> Job:
        yield Started("Warning", 1, "times")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("look out", UserWarning, stacklevel=1)
        yield Finished(None)

    shown: list[str] = []
    before = warnings.showwarning
    warnings.showwarning = lambda message, *_, **__: shown.append(str(message))
    try:
        job = RunningJob(careless)
        events, _ = followed(job)
        settle(lambda: job.state.ended)
        assert Warned("look out") in events
        assert shown == []
        warnings.showwarning("on the main thread", UserWarning, "file", 1)
        assert shown == ["on the main thread"]
    finally:
        warnings.showwarning = before


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread cannot lower itself alone")
def test_a_job_and_its_threads_give_way_to_the_thread_that_draws(application, settle):
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def looking() -> Job:
        with ThreadPoolExecutor(1) as pool:
            yield Finished(None, {"job": niceness(), "its thread": pool.submit(niceness).result()})

    before = niceness()
    job = RunningJob(looking)
    settle(lambda: job.state.ended)
    assert job.result.summary["job"] > before
    assert job.result.summary["its thread"] > before
    assert niceness() == before


@pytest.mark.parametrize("pausable", [False, True])
def test_a_bar_shows_one_job_and_no_window_of_its_own(application, settle, pausable):
    bar = JobBar(pausable=pausable)
    bar.show()
    windows = [w for w in application.topLevelWidgets() if w.isVisible()]
    job = RunningJob(lambda: counting(5, []))
    bar.follow(job)
    assert bar.pause_button.isVisible() is pausable
    assert [w for w in application.topLevelWidgets() if w.isVisible()] == windows
    settle(lambda: job.state.ended)
    assert not bar.progress.isVisible()
    bar.close()
    bar.deleteLater()
    settle()


@pytest.mark.parametrize(
    ("keeps", "said"), [(True, "Stopped; what was finished is kept."), (False, "Stopped.")], ids=["kept", "not kept"]
)
def test_a_bar_does_not_hear_the_job_before(application, settle, keeps, said):
    bar = JobBar(keeps=keeps)
    bar.show()
    first = RunningJob(lambda: counting(10_000, []))
    bar.follow(first)
    settle(lambda: "Counting" in bar.text.text())
    first.cancel()
    second = RunningJob(lambda: counting(10_000, []))
    bar.follow(second)
    settle(lambda: first.state.ended and "Counting" in bar.text.text())
    assert bar.progress.isVisible()
    assert bar.cancel_button.isEnabled()
    assert bar.notice.isHidden()
    QTest.mouseClick(bar.cancel_button, Qt.MouseButton.LeftButton)
    settle(lambda: second.state.ended)
    assert bar.notice.text() == said
    bar.close()
    bar.deleteLater()
    settle()


def test_the_bar_tells_what_was_noted_beside_what_it_warns_of(application, settle):
    def talking() -> Job:
        yield Started("Talking", 1, "words")
        yield Noted("Found 41 tiles.")
        yield Warned("One is white.")
        yield Finished(None)

    bar = JobBar()
    bar.show()
    for _ in range(2):  # another job begins with nothing said
        job = RunningJob(talking)
        bar.follow(job)
        settle(lambda: job.state.ended)  # noqa: B023  # it is of this round
        assert bar.noted.text() == "Found 41 tiles."
        assert bar.notice.text() == "⚠  One is white."
        assert bar.noted.isVisible()
    bar.close()
    bar.deleteLater()
    settle()


def test_the_bar_tells_which_of_several_jobs_is_how_far(application, settle):
    go = {"skin": threading.Event(), "lung": threading.Event()}

    def measuring(name: str, _: bool) -> Job:
        yield Started("Measuring", 20, "parts")
        yield Step(5)
        go[name].wait(PATIENCE)
        yield Finished(None)

    def both() -> Job:
        yield Started("Measuring 2 results", 2, "results")
        yield from as_one(in_turn(measuring, go), list(go))
        yield Finished(None)

    bar, job = JobBar(), RunningJob(both)
    bar.show()
    bar.follow(job)
    for done, name in enumerate(go):
        settle(lambda: name in bar.text.text())  # noqa: B023  # it is of this round
        first, second = bar.text.text().split("\n")
        assert first.startswith(f"Measuring 2 results: {done} of 2 results")
        assert second == f"{name}: 5 of 20 parts"
        go[name].set()
    settle(lambda: job.state.ended)
    bar.close()
    bar.deleteLater()
    settle()


def test_who_comes_late_hears_how_far_a_job_is(application, settle):
    go = threading.Event()

    def job():
        yield Started("Counting", 45, "steps")
        yield Noted("3 classes")
        yield Warned("few tiles")
        for done in range(1, 34):
            yield Step(done)
        go.wait(PATIENCE)
        yield Finished(None)

    running = RunningJob(job)
    settle(lambda: Step(33) in running.recent_events)
    assert running.recent_events == [
        Started("Counting", 45, "steps"),
        Step(33),
        Noted("3 classes"),
        Warned("few tiles"),
    ]
    bar = JobBar()
    bar.show()
    bar.follow(running)
    assert bar.text.text().startswith("Counting: 33 of 45 steps")
    assert (bar.progress.value(), bar.progress.maximum()) == (33, 45)
    assert "few tiles" in bar.notice.text()
    assert bar.noted.text() == "3 classes"
    go.set()
    settle(lambda: running.state.ended)
    bar.close()


def test_the_bar_says_what_is_being_loaded_and_nothing_of_networks_else(application, settle):
    go = threading.Event()

    def job():
        go.wait(PATIENCE)
        yield Loading("the encoder tiny")
        go.clear()
        go.wait(PATIENCE)
        yield from counting(1, [])

    running, bar, late = RunningJob(job), JobBar(), JobBar()
    bar.show()
    bar.follow(running)
    assert bar.text.text() == "Starting…"
    go.set()
    settle(lambda: "Loading the encoder tiny" in bar.text.text())
    assert bar.progress.maximum() == 0  # it is not known how long that takes
    late.follow(running)
    assert late.text.text() == bar.text.text()
    go.set()
    settle(lambda: running.state.ended)
    assert bar.text.text().startswith("Counting")
    for one in (bar, late):
        one.close()


@pytest.mark.parametrize("closed", [False, True])
def test_a_job_that_fails_is_told_also_where_its_dock_was_closed(viewer, settle, closed):
    go = threading.Event()

    def job():
        yield Started("Training", 9, "steps")
        go.wait(PATIENCE)
        raise DataError("The tiles are gone.")

    told = []
    notification_manager.notification_ready.connect(told.append)
    running = session_of(viewer).start(job)
    bar = JobBar()
    dock = viewer.window.add_dock_widget(bar, name="A job")
    bar.follow(running)
    settle()
    if closed:
        dock.destroyOnClose()  # its ×
    settle()
    go.set()
    settle(lambda: running.state.ended)
    settle()
    assert [one.message for one in told] == ["The tiles are gone."] * closed
    if not closed:
        assert "The tiles are gone." in bar.notice.text()
    notification_manager.notification_ready.disconnect(told.append)


def test_a_session_ends_with_its_viewer(application, settle):
    def counting() -> Job:
        while True:
            time.sleep(0.01)
            yield Step(1)

    def work() -> weakref.ref:
        viewer = napari.Viewer()
        session = session_of(viewer)
        running = session.start(counting)
        session.slides.open(samples.slide())
        settle()
        viewer.close()
        settle(lambda: running.state is State.CANCELLED)
        return weakref.ref(session)

    session = work()
    assert not [t for t in threading.enumerate() if t.name.startswith("napari-pbip")]
    settle()
    gc.collect()
    settle()
    gc.collect()
    assert session() is None


def _messages():
    told = []
    notification_manager.notification_ready.connect(told.append)
    return told


@pytest.mark.parametrize("closed", [False, True])
def test_a_long_job_is_in_the_activity_dock_and_its_end_is_told_once(viewer, settle, closed):
    seen, grown = threading.Event(), threading.Event()

    def counting_on() -> Job:
        yield Started("Counting", 150, "numbers")
        yield Step(1)
        seen.wait(PATIENCE)
        yield Step(100)
        grown.wait(PATIENCE)
        yield Finished(None)

    told = _messages()
    session = session_of(viewer)
    running = session.start(counting_on)
    bar = JobBar()
    dock = viewer.window.add_dock_widget(bar, name="A job")
    bar.follow(running)
    settle(lambda: activity_bars(viewer))
    (shown,) = activity_bars(viewer)
    assert shown.description_label.text() == "Counting: "
    assert shown.qt_progress_bar.maximum() == 150
    assert shown.qt_progress_bar.value() == 1
    seen.set()
    settle(lambda: shown.qt_progress_bar.value() == 100)
    if closed:
        dock.destroyOnClose()  # its ×
    grown.set()
    settle(lambda: running.state.ended)
    settle()
    assert not activity_bars(viewer)
    assert [one.message for one in told] == ["Counting is finished."] * closed
    notification_manager.notification_ready.disconnect(told.append)


def test_work_without_phases_and_short_jobs_are_not_announced(viewer, settle, monkeypatch):
    told = _messages()
    session = session_of(viewer)
    done = []
    monkeypatch.setattr("napari_pbip.gui.state.activity.SHORT", PATIENCE)  # however slow this machine is
    session.start(lambda: counting(3, [])).followed = True
    settle(lambda: not session.jobs)
    monkeypatch.undo()
    session.in_thread(lambda: time.sleep(1.5), done.append)
    while not done:
        settle()
        assert not activity_bars(viewer)
    assert not told
    notification_manager.notification_ready.disconnect(told.append)


def test_what_a_job_loads_is_in_the_activity_dock_and_in_the_question_before_closing(viewer, settle) -> None:
    loaded, seen = threading.Event(), threading.Event()

    def loading_first() -> Job:
        yield Loading("the encoder conch")
        loaded.wait(PATIENCE)
        yield Started("Counting", 5, "numbers")
        yield Step(1)
        seen.wait(PATIENCE)

    session = session_of(viewer)
    running = session.start(loading_first)
    bar = JobBar()
    viewer.window.add_dock_widget(bar, name="A job")
    bar.follow(running)
    settle(lambda: activity_bars(viewer))
    (shown,) = activity_bars(viewer)
    assert shown.description_label.text() == "Loading the encoder conch: "
    assert shown.qt_progress_bar.maximum() == 0  # it moves, without an end
    assert session.activity.running == ["Loading the encoder conch"]
    loaded.set()
    settle(lambda: session.activity.running == ["Counting"])
    settle(lambda: [one.qt_progress_bar.maximum() for one in activity_bars(viewer)] == [5])
    seen.set()
    settle(lambda: running.state.ended)


@pytest.mark.parametrize("close", ["window", "quit"])
def test_closing_with_a_job_running_asks_once(application, settle, close, monkeypatch):
    quits = []
    monkeypatch.setattr("napari._qt.qt_main_window.quit_app_", lambda: quits.append(1), raising=False)
    viewer = napari.Viewer()
    window = viewer.window._qt_window
    session = session_of(viewer)
    running = [session.start(lambda: counting(100_000, [])) for _ in range(2)]
    for job in running:
        job.followed = True
    settle(lambda: len(session.activity.running) == 2)

    def ask_to_close() -> None:
        window.close(quit_app=True, confirm_need=True) if close == "quit" else window.close()

    ask_to_close()
    ask_to_close()
    settle()
    assert len(window.findChildren(QMessageBox)) == 1
    assert window.findChildren(QMessageBox)[0].defaultButton().text() == "Keep running"
    assert "Still running: Counting; Counting." in answer(window, settle, "Keep running")
    assert window.isVisible()
    assert all(job.state is State.RUNNING for job in running)
    assert not quits
    ask_to_close()
    box = window.findChildren(QMessageBox)[0]
    click(next(button for button in box.buttons() if button.text() == "Close anyway"))
    settle(lambda: all(job.state is State.CANCELLED for job in running))
    assert bool(quits) is (close == "quit")


def test_a_script_that_closes_the_viewer_is_not_asked(application, settle):
    viewer = napari.Viewer()
    session = session_of(viewer)
    running = session.start(lambda: counting(100_000, []))
    running.followed = True
    settle(lambda: session.activity.running)
    viewer.close()
    settle(lambda: running.state is State.CANCELLED)
