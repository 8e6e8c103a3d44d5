"""How the command line treats unusual input, file names and output encodings."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from napari_pbip import cli, progress, samples
from napari_pbip.cli import following
from napari_pbip.config import BankSettings, DataSettings, JobSettings
from napari_pbip.engine.run_facts import RunFacts
from napari_pbip.errors import SlideError
from napari_pbip.events import Epoch, Finished, Job, RunStep, Started, Step, Warned
from napari_pbip.taxonomy import Taxonomy
from tests.cli.conftest import Called
from tests.waiting import PATIENCE

NAMES = ("case [he]", "[/b]", "[red]x", ":warning:", "[/old]/a.png", "a[0]", "\\[x]")


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Return what a job prints on a terminal that supports markup."""
    monkeypatch.setattr(progress, "console", console := Console(file=io.StringIO(), width=40))
    return console.file  # type: ignore[return-value]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are(name: str, printed: io.StringIO) -> None:
    def job() -> Job:
        yield Started(f"Segmenting {name}", 1, "tiles")
        yield Warned(f"{name} is empty, and this sentence is much longer than the terminal is wide")
        yield RunStep(0, run=name)
        yield RunStep(1, {name: 50.0}, run=name, finished=True)
        yield Epoch(1, 1, {name: 50.0})
        yield Step(1)
        yield Finished(None, {})

    following.follow(job())
    lines = printed.getvalue().splitlines()
    assert f"Segmenting {name}" in lines
    assert f"Note: {name} is empty, and this sentence is much longer than the terminal is wide" in lines
    assert f"{name}  {name} 50.0" in lines
    assert f"epoch 1/1  {name} 50.0" in lines


@pytest.mark.parametrize("name", NAMES)
def test_errors_name_what_is_wrong(
    call: Called,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    def refused() -> None:
        raise SlideError(f"There is no slide at {name}; check the path.")

    monkeypatch.setattr(cli, "app", refused)
    assert call("doctor") == 2
    assert call.error == f"Error: There is no slide at {name}; check the path.\n"


def test_tables_hold_names_as_they_are(call: Called, tmp_path: Path) -> None:
    """Class names in cells of tables keep their brackets, also in those of a bank."""
    for source, name in (("LYM", "LYM [a]"), ("MUS", "[b]MUS")):
        shutil.copytree(samples.tiles() / source, tmp_path / "t [1]" / name)
    assert call("bank", "build", tmp_path / "t [1]", "--out", tmp_path / "b [2]", "--k", 1) == 0, call.error
    assert f"2 prototypes in {tmp_path / 'b [2]'}\n" in call.error  # one line, however long
    assert call("bank", "show", tmp_path / "b [2]") == 0, call.error
    assert "LYM [a]" in call.out
    assert "[b]MUS" in call.out
    scores = tmp_path / "scores.json"
    assert call("bank", "classify", tmp_path / "b [2]", tmp_path / "t [1]", "--json", scores) == 0, call.error
    assert "[b]MUS" in call.out
    assert f"Written: {scores}\n" in call.error


@pytest.mark.parametrize("encoding", ["gbk", "ascii", "cp1252", "shift-jis"])
def test_output_of_any_encoding(encoding: str, tmp_path: Path) -> None:
    """With the encodings of Windows and of Linux without a locale, missing characters are shown by their numbers."""
    names = ("µ² –", "肿瘤")
    rows = "; ".join(f"t.add_row('{name}')" for name in names)
    program = (
        "import sys; from rich.table import Table; from napari_pbip.cli.terminal import output, say, "
        "print_what_cannot_be_encoded as p; "
        f"p(); t = Table('class'); {rows}; output.print(t); say('{names[1]}'); print('\\udcff')"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    said = done.stdout.decode(encoding)
    for letter in "µ²肿瘤":
        try:
            letter.encode(encoding)
        except UnicodeEncodeError:
            letter = letter.encode("ascii", "backslashreplace").decode()
        assert letter in said


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("data:\n  # folder: tiles\nmethod: {name: cam}\n", ("--data", "none"), "none does not exist"),
        ("data: tiles\n", ("--data", "none"), "'data' is 'tiles'"),
        ("data: tiles\n", (), "write data: {folder: tiles}"),
        ("method: cam\n", (), "write method: {name: cam}"),
        ("backbone: resnet50\n", (), "write backbone: {name: resnet50}"),
        ("train: 5\n", (), "such as 'train.epochs'"),
        ("method: {delta: 0.2}\n", (), "'method.name' is missing; it is one of 'pbip'"),
        ("method: {name: pbib}\n", (), "'pbib'; it is one of 'pbip'"),
        ("method: {name: cam, delta: 0.2}\n", (), "With method.name=cam there is no setting 'method.delta'"),
        ("train: {lr: 1}\n", (), "'train.learning_rate'"),
        ("batch_size: 3\n", (), "'bank.batch_size', 'train.batch_size', 'segment.batch_size'"),
        ("data: {epochs: 3}\n", (), "'train.epochs'"),
        ("data: {classes: [1, 2]}\n", (), "takes for a number; put the word into quotes"),
        ("data: {classes: [true, X]}\n", (), "takes for a truth value; put the word into quotes"),
        ("thresholds: {class_delta: {1: 0.3}}\n", (), "'thresholds.class_delta'"),
        ("data: {folder: a}\ndata: {folder: b}\n", (), "line 2: the key 'data' is given twice"),
        ("data: {folder: a, folder: b}\n", (), "line 1: the key 'folder' is given twice"),
        ('data: {folder: "C:\\tiles"}\n', (), "in double quotes a backslash is special"),
        ('data: {folder: "C:\\data"}\n', (), "in double quotes a backslash is special"),
        ('data: {folder: "C:\\xyz"}\n', (), "in double quotes a backslash is special"),
        ("data: {mpp: 2024-13-45}\n", (), "'data.mpp' cannot be '2024-13-45'"),
        ("a: {[1]: 2}\n", (), "not valid YAML"),
        ("", ("--set", "data=5", "--data", "x"), "'data' is 5"),
        ("", ("--set", "train=4", "--epochs", "3"), "'train' is 4"),
        ("", ("--set", "method=cam", "--method", "cam"), "'method' is 'cam'"),
        ("", ("--set", "data="), "--data"),
    ],
)
def test_slips_in_settings_are_answered_with_the_way_out(
    call: Called,
    tmp_path: Path,
    text: str,
    options: tuple[str, ...],
    words: str,
) -> None:
    (tmp_path / "job.yaml").write_text(text)
    assert call("train", tmp_path / "job.yaml", "--out", tmp_path / "out", *options) == 2
    assert words in call.error
    assert "\n" not in call.error.strip()
    assert not (tmp_path / "out").exists()


def test_words_are_words_in_yaml(tmp_path: Path) -> None:
    """In YAML 1.1, NO, on and dates are no words; here only true and false are truth values."""
    (tmp_path / "job.yaml").write_text(
        "data: {classes: [NO, Yes, on, 2024-01-31]}\ntrain: {flip_and_turn: no}\nrefine: {tta: true, crf: False}\n"
        "thresholds: {class_delta: {NO: 0.2}}\n"
    )
    settings = JobSettings.read(tmp_path / "job.yaml")
    assert settings.data.classes == ("NO", "Yes", "on", "2024-01-31")
    assert (settings.train.flip_and_turn, settings.refine.tta, settings.refine.crf) == (False, True, False)
    assert settings.thresholds.class_delta == {"NO": 0.2}
    settings.write(tmp_path / "again.yaml")
    assert JobSettings.read(tmp_path / "again.yaml") == settings


def test_settings_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "job.yaml"
    BankSettings(k=2).write(path)

    def cut(file: Path, text: str, **_: object) -> None:
        file.write_bytes(text[:5].encode())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", cut)
        with pytest.raises(KeyboardInterrupt):
            BankSettings(k=5).write(path)
    assert BankSettings.read(path).k == 2
    assert [file.name for file in tmp_path.iterdir()] == ["job.yaml"]


def test_a_file_for_figures_is_looked_at_before_the_job(call: Called, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    tiles = samples.tiles()
    for wrong in (tmp_path, tmp_path / "file" / "scores.json"):
        assert call("bank", "classify", tmp_path / "no-bank", tiles, "--json", wrong) == 2
        assert "--json" in call.error
        assert "no-bank" not in call.error


def test_a_file_is_given_for_a_folder(call: Called, tmp_path: Path) -> None:
    weights = tmp_path / "best.safetensors"
    weights.write_bytes(b"")
    assert call("segment", samples.slide(), "--model", weights, "--out", tmp_path / "o") == 2
    assert f"{weights} is a file; give the folder" in call.error
    assert call("bank", "show", weights) == 2
    assert f"{weights} is a file; give the folder" in call.error


@pytest.mark.parametrize("command", ["train", "compare"])
def test_tiles_are_given_for_a_settings_file(call: Called, tmp_path: Path, command: str) -> None:
    assert call(command, samples.tiles(), "--out", tmp_path / "o") == 2
    assert "is a folder where a settings file (YAML) is expected; name a folder of tiles with --data" in call.error


def test_paths_are_recorded_absolute(
    call: Called,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("LYM", "MUS"):
        shutil.copytree(samples.tiles() / name, tmp_path / "project" / "tiles" / name)
    monkeypatch.chdir(tmp_path / "project")
    quick = ("--method", "cam", "--set", "train.steps=1", "--set", "train.batch_size=2", "--set", "data.mpp=0.5")
    assert call("train", "--data", "tiles", "--out", "run", *quick) == 0, call.error
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "project" / "run"
    facts = RunFacts.read(run)
    assert facts.settings.data.folder == tmp_path / "project" / "tiles"
    # a run of an earlier version holds the path as it was given
    document = json.loads((run / "run.json").read_text())
    document["settings"]["data"]["folder"] = "tiles"
    (run / "run.json").write_text(json.dumps(document))
    assert RunFacts.read(run).settings.data.folder == tmp_path / "project" / "tiles"
    assert call("train", "--data", "project/tiles", "--out", run, "--resume", *quick) == 0, call.error


def test_a_run_names_the_encoder_that_was_used(tmp_path: Path) -> None:
    """Earlier versions wrote the default if the encoder was that of the bank."""
    facts = RunFacts(JobSettings(data=DataSettings()), Taxonomy.from_names(("A", "B")))
    facts.prototypes = {"bank": "1", "encoder": {"name": "texture"}, "k": [1, 1], "dimension": 4}
    facts.write(tmp_path)
    assert RunFacts.read(tmp_path).settings.bank.encoder == "texture"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no such signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_stop_while_python_is_loading_is_quiet(number: int, code: int, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import signal, sys\n"
        "class Told:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer':\n"
        "            sys.stdout.write('loading\\n'); sys.stdout.flush()\n"
        "            import time; time.sleep(300)\n"
        "sys.meta_path.insert(0, Told())\n"
        # who started us may ignore them, as nohup does
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-m", "napari_pbip", "--version"],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    time.sleep(0.2)
    process.send_signal(number)
    said = process.communicate(timeout=PATIENCE)[1]
    assert (process.returncode, said) == (code, "")
