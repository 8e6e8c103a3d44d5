"""The same fault in a notebook, on the command line and in the window: each has its words for the way out."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import napari_pbip
from napari_pbip import cli, samples
from napari_pbip.config import JobSettings
from napari_pbip.errors import PbipError
from napari_pbip.events import Job
from napari_pbip.gui.widgets.settings_form import SettingsForm
from napari_pbip.wording import Interface
from tests.test_wording import texts


def in_python(make: Callable[[], Job]) -> str:
    with pytest.raises(PbipError) as caught:
        napari_pbip.run(make(), progress=False)
    return str(caught.value)


def on_the_command_line(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    monkeypatch.setattr(sys, "argv", ["napari-pbip", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main()
    return capsys.readouterr().err


def in_the_window(make: Callable[[], Job], viewer: Any, settle: Callable[..., None]) -> str:
    from napari_pbip.gui.jobs import State
    from napari_pbip.gui.sessions import session_of
    from napari_pbip.gui.widgets.job_bar import JobBar

    bar = JobBar()
    job = session_of(viewer).start(make)
    bar.follow(job)
    settle(lambda: job.state.ended)
    assert job.state is State.FAILED
    text = str(bar.notice.text())
    bar.deleteLater()
    return text


@pytest.mark.parametrize(
    ("bank", "words"),
    [
        (False, ("`resume=True`", "`overwrite=True`", "--resume", "--overwrite", "use Resume", "Replace to replace")),
        (True, ("with `build_bank()`", "", "with `napari-pbip bank build`", "", "make one in Image bank", "")),
    ],
)
def test_a_fault_names_what_to_do_in_the_words_of_the_place(
    bank: bool,
    words: tuple[str, ...],
    viewer: Any,
    settle: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.json").write_text("{}")
    values: dict[str, Any] = {"data": {"folder": samples.tiles()}, "method": {"name": "cam"}}
    options = ["--data", str(samples.tiles()), "--method", "cam"]
    if bank:
        values |= {"method": {"name": "pbip"}, "bank_folder": tmp_path}
        options = ["--data", str(samples.tiles()), "--method", "pbip", "--bank", str(tmp_path)]
    settings = JobSettings.parse(values)

    def make() -> Job:
        return napari_pbip.train(settings, out)

    said = (
        in_python(make),
        on_the_command_line(["train", *options, "--out", str(out)], monkeypatch, capsys),
        in_the_window(make, viewer, settle),
    )
    for sentence, first, second in zip(said, words[::2], words[1::2], strict=True):
        assert first in sentence
        assert second in sentence
    assert not any("--" in said[place] for place in (0, 2))
    assert not any("=True" in said[place] or "`build" in said[place] for place in (1, 2))


def test_a_slide_without_microns_per_pixel_is_mended_where_it_is_read(
    viewer: Any,
    settle: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    slide, model, out = samples.tumour(), samples.project() / "model", tmp_path / "result"

    def make() -> Job:
        return napari_pbip.segment(slide, model, out)

    arguments = ["segment", str(slide), "--model", str(model), "--out", str(out)]
    assert "give it with `mpp=0.5`, or in a file" in in_python(make)
    assert "give it with --mpp 0.5, or in a file" in on_the_command_line(arguments, monkeypatch, capsys)
    assert "give it in Slides, or in a file" in in_the_window(make, viewer, settle)


def test_the_window_names_settings_as_its_forms_do(viewer: Any, settle: Callable[..., None]) -> None:
    from qtpy.QtWidgets import QComboBox, QLabel

    said = [Interface.WINDOW.sentence(text) for _, text in texts()]
    named = {
        found for text in said for found in re.findall(r"“([^”]+)” in (Label tiles|Image bank|Train|Segment)", text)
    }
    assert {("Batch size", "Train"), ("Class names", "Label tiles"), ("Weights", "Image bank")} <= named
    layouts = {found for text in said for found in re.findall("“Labels are ([^”]+)”", text)}
    labels, choices = {}, set()
    for name in ("2 Label tiles", "3 Image bank", "4 Train", "5 Segment"):
        dock, widget = viewer.window.add_plugin_dock_widget("napari-pbip", name)
        settle()
        for form in widget.findChildren(SettingsForm):
            for row in form.rows:  # also those of other methods
                if not row.made:
                    row.make(lambda: None)
        labels[name[2:]] = {label.text() for label in widget.findChildren(QLabel)}
        choices |= {box.itemText(i) for box in widget.findChildren(QComboBox) for i in range(box.count())}
        dock.close()
        settle()
    assert [(label, dock) for label, dock in named if label not in labels[dock]] == []
    assert layouts
    assert layouts <= choices
