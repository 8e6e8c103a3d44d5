"""A job run to its end, as notebooks and the command line do."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from napari_pbip import progress, run
from napari_pbip.errors import DataError
from napari_pbip.events import Finished, Job, Noted, Started, Step, Warned


def job(ended: list[str]) -> Job:
    try:
        yield Noted("Found 2 tiles.")
        yield Started("Counting", 2, "tiles")
        yield Step(1)
        yield Warned("One tile is white.")
        yield Step(2)
        yield Finished(Path("out"), {"tiles": 2})
        ended.append("after its last event")
    finally:
        ended.append("closed")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setattr(progress, "console", Console(file=(file := io.StringIO()), width=80))
    return file


def test_it_returns_the_last_event_and_shows_the_others(terminal: io.StringIO, caplog: pytest.LogCaptureFixture):
    ended: list[str] = []
    assert run(job(ended)) == Finished(Path("out"), {"tiles": 2})
    assert ended == ["after its last event", "closed"]
    shown = terminal.getvalue()
    assert "Found 2 tiles.\n" in shown
    assert "Note: One tile is white.\n" in shown
    assert "2/2" in shown
    assert not caplog.records


KERNEL = """
import json, sys
from jupyter_client.manager import start_new_kernel

manager, client = start_new_kernel()
messages = []
client.execute_interactive(sys.argv[1], output_hook=messages.append, timeout=300)
manager.shutdown_kernel(now=True)
print(json.dumps([(m["header"]["msg_type"], m["content"]) for m in messages], default=str))
"""
CELL = """
from napari_pbip import events, run
def job():
    yield events.Started("Counting [2]", 2, "tiles")
    yield events.Warned("One is white.")
    yield events.Step(2)
    yield events.Finished(None, {"tiles": 2})
run(job())
"""


def test_a_notebook_shows_one_bar_that_moves():
    """The test starts a Jupyter kernel as a notebook does, without ipywidgets."""
    done = subprocess.run([sys.executable, "-c", KERNEL, CELL], capture_output=True, text=True, check=True)
    shown = [(kind, content["data"]["text/plain"]) for kind, content in json.loads(done.stdout) if "data" in content]
    assert [text for kind, text in shown if kind == "display_data"] == ["", "\x1b[33mNote:\x1b[0m One is white.\n"]
    bars = [re.sub(r"\x1b\[[\d;]*m", "", text) for kind, text in shown if kind == "update_display_data"]
    assert bars[0].startswith("Counting [2] ")
    assert "0/2 tiles" in bars[0]
    assert "2/2 tiles" in bars[-1]
    assert shown[-1] == ("execute_result", "Finished(output=None, summary={'tiles': 2})")


def test_without_bars_notes_and_warnings_are_logged(terminal: io.StringIO, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "napari_pbip"):
        assert run(job([]), progress=False).summary == {"tiles": 2}
    assert terminal.getvalue() == ""
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "Found 2 tiles."),
        ("WARNING", "One tile is white."),
    ]


@pytest.mark.parametrize("shown", [True, False])
def test_an_error_of_the_job_comes_out(terminal: io.StringIO, shown: bool):
    def failing() -> Job:
        yield Started("Counting", 2, "tiles")
        raise DataError("There are no tiles; name another folder.")

    with pytest.raises(DataError, match="no tiles"):
        run(failing(), progress=shown)


def test_an_interrupt_between_two_events_closes_the_job(monkeypatch: pytest.MonkeyPatch):
    class Interrupted(Console):
        def print(self, *_: object, **__: object) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(progress, "console", Interrupted(file=io.StringIO()))
    ended: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run(job(ended))
    assert ended == ["closed"]
