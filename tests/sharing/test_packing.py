"""A packed model works elsewhere, names nothing of this machine, and is refused when it was changed."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from napari_pbip import cli
from napari_pbip.engine.run_facts import RunFacts
from napari_pbip.engine.runs import load_model, run_identity
from napari_pbip.engine.sample_project import sample_project
from napari_pbip.errors import ModelError, OutputError
from napari_pbip.events import Step
from napari_pbip.sharing.packing import PACKED, pack
from napari_pbip.sharing.unpacking import unpack


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patient Jones")
    list(sample_project(folder / "tiles", folder / "bank", folder / "skin | model"))
    return folder / "skin | model"


@pytest.fixture(scope="module")
def packed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("packed") / "model.zip"
    list(pack(run, target, "CC-BY-4.0"))
    return target


def test_it_is_the_same_model_elsewhere(run: Path, packed: Path, tmp_path: Path):
    *_, last = unpack(packed, tmp_path / "there")
    assert last.summary == {"identity": run_identity(run), "licence": "CC-BY-4.0"}
    there, here = load_model(tmp_path / "there"), load_model(run)
    image = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(there.method.scores(image).maps, here.method.scores(image).maps, rtol=0, atol=0)
    assert there.facts.taxonomy == here.facts.taxonomy
    assert there.facts.settings.data.mpp == here.facts.settings.data.mpp == 0.5


def test_it_holds_a_card_and_nothing_of_this_machine(run: Path, packed: Path):
    with zipfile.ZipFile(packed) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    assert set(held) == {"README.md", "run.json", "best.safetensors", PACKED}
    assert all(b"Jones" not in content and b"CMU-1" not in content for content in held.values())
    card = held["README.md"].decode()
    for said in (
        "# skin \\| model",
        "| licence | CC-BY-4.0 |",
        "PBIP, preset default",
        "33; epidermis in 13, dermis in 13, keratin in 10",
        "not scored on tiles with masks",
        run_identity(run),
    ):
        assert said in card
    facts = json.loads(held[PACKED])
    assert facts["files"]["best.safetensors"] == hashlib.sha256((run / "best.safetensors").read_bytes()).hexdigest()
    assert facts["made"]["operator"] is None


def test_the_card_does_not_say_where_the_weights_of_the_start_lie(run: Path, tmp_path: Path):
    own = shutil.copytree(run, tmp_path / "run")
    facts = json.loads((own / "run.json").read_text(encoding="utf-8"))
    facts["settings"]["backbone"]["weights"] = str(tmp_path / "patient Jones" / "own.safetensors")
    (own / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    list(pack(own, tmp_path / "model.zip"))
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        texts = [archive.read(name).decode() for name in ("README.md", "run.json")]
    assert "the weights own.safetensors" in texts[0]
    assert not any("Jones" in text for text in texts)


def test_who_packed_it_is_named_only_if_that_was_said(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NAPARI_PBIP_OPERATOR", "A. Müller")
    list(pack(run, tmp_path / "model.zip"))
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert json.loads(archive.read(PACKED))["made"]["operator"] == "A. Müller"
        assert "ask those who trained the model" in archive.read("README.md").decode()


Change = Callable[[dict[str, bytes]], dict[str, bytes]]


def rewritten(packed: Path, target: Path, change: Change, compression: int = zipfile.ZIP_STORED) -> Path:
    """Write the archive again with changed contents."""
    with zipfile.ZipFile(packed) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, content in change(held).items():
            archive.writestr(name, content)
    return target


def renamed(held: dict[str, bytes], name: str) -> dict[str, bytes]:
    """Put a file with such a name into the archive, and into its table."""
    facts = json.loads(held[PACKED])
    facts["files"][name] = hashlib.sha256(b"x").hexdigest()
    return {**held, name: b"x", PACKED: json.dumps(facts).encode()}


@pytest.mark.parametrize(
    "change",
    [
        lambda held: {**held, "run.json": held["run.json"].replace(b"dermis", b"Dermis")},
        lambda held: {**held, "best.safetensors": held["best.safetensors"][:-1] + b"?"},
        lambda held: {name: content for name, content in held.items() if name != "best.safetensors"},
        lambda held: renamed(held, "../../outside.txt"),
        lambda held: renamed(held, "/tmp/outside.txt"),
        lambda held: renamed(held, "state.pkl"),
        lambda held: {**held, PACKED: held[PACKED].replace(b'"format": 1', b'"format": 2')},
        lambda held: {**held, PACKED: b"[" * 100_000},
    ],
    ids=["facts", "weights", "missing", "outside", "absolute", "pickle", "newer", "nested"],
)
def test_what_was_changed_is_refused_and_nothing_is_written(packed: Path, tmp_path: Path, change: Change):
    changed = rewritten(packed, tmp_path / "changed.zip", change)
    with pytest.raises(ModelError, match=r"is damaged or was changed|another format"):
        list(unpack(changed, tmp_path / "out" / "run"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path != changed]


def test_a_bomb_and_a_cut_file_are_refused(packed: Path, tmp_path: Path):
    bomb = rewritten(
        packed, tmp_path / "bomb.zip", lambda held: {**held, "run.json": bytes(10**7)}, zipfile.ZIP_DEFLATED
    )
    cut = tmp_path / "cut.zip"
    cut.write_bytes(packed.read_bytes()[:-1000])
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a.txt", "of mine")
    for file, words in (
        (bomb, "damaged"),
        (cut, "damaged"),
        (other, "no packed model"),
        (tmp_path / "no.zip", "no file"),
    ):
        with pytest.raises(ModelError, match=words):
            list(unpack(file, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_weights_of_another_identity_are_refused(packed: Path, tmp_path: Path):
    def other(held: dict[str, bytes]) -> dict[str, bytes]:
        facts = json.loads(held[PACKED])
        facts["identity"] = "0" * 16
        return {**held, PACKED: json.dumps(facts).encode()}

    with pytest.raises(ModelError, match="was changed"):
        list(unpack(rewritten(packed, tmp_path / "changed.zip", other), tmp_path / "run"))
    assert not (tmp_path / "run" / "run.json").exists()


def test_earlier_ones_are_kept_until_the_new_one_is_whole(run: Path, packed: Path, tmp_path: Path):
    with pytest.raises(OutputError, match="overwrite=True"):
        list(pack(run, packed))
    before = packed.read_bytes()
    job = pack(run, packed, overwrite=True)
    next(event for event in job if isinstance(event, Step))
    job.close()
    assert packed.read_bytes() == before
    out = tmp_path / "run"
    shutil.copytree(run, out)
    with pytest.raises(OutputError, match="overwrite=True"):
        list(unpack(packed, out))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("of mine")
    with pytest.raises(OutputError, match="is not deleted"):
        list(unpack(packed, tmp_path / "mine", overwrite=True))
    cut = rewritten(packed, tmp_path / "cut.zip", lambda held: {**held, "best.safetensors": b"x"})
    with pytest.raises(ModelError):
        list(unpack(cut, out, overwrite=True))
    assert RunFacts.read(out).taxonomy == RunFacts.read(run).taxonomy
    list(unpack(packed, out, overwrite=True))
    assert load_file(out / "best.safetensors").keys() == load_file(run / "best.safetensors").keys()
    assert not (out / "tiles.csv").exists()


def test_the_commands(run: Path, tmp_path: Path):
    model, out = tmp_path / "model.zip", tmp_path / "run"
    assert CliRunner().invoke(cli.app, ["pack", str(run), "--out", str(model), "--licence", "MIT"]).exit_code == 0
    assert CliRunner().invoke(cli.app, ["unpack", str(model), "--out", str(out)]).exit_code == 0
    assert run_identity(out) == run_identity(run)
    with pytest.raises(ModelError, match=r"unpack a packed model with `unpack\(\)`"):
        load_model(model)
