"""A model is uploaded to a local server with the protocol of the hub, by the hub's own client, and fetched again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from napari_pbip import cli
from napari_pbip.engine.runs import run_identity
from napari_pbip.engine.sample_project import sample_project
from napari_pbip.errors import ModelError, OutputError
from napari_pbip.events import Step, Warned
from napari_pbip.sharing.packing import PACKED, pack
from napari_pbip.sharing.push import push
from napari_pbip.sharing.unpacking import unpack
from tests.hub import TOKEN, Hub

# of the library, about a call of its own
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
CONTENTS = {"README.md", "run.json", "best.safetensors", PACKED}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patient Jones")
    list(sample_project(folder / "tiles", folder / "bank", folder / "skin"))
    return folder / "skin"


@pytest.fixture
def jane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def test_a_model_is_private_by_default_and_comes_back(hub: Hub, jane: None, run: Path, tmp_path: Path):
    command = ["push", str(run), "jane/skin", "--licence", "CC-BY-4.0"]
    said = CliRunner().invoke(cli.app, command)
    assert said.exit_code == 0
    assert "/jane/skin (private)" in said.output.replace("\n", "")
    assert hub.private == {"jane/skin"}
    held = hub.repositories["jane/skin"]
    assert set(held) == {*CONTENTS, ".gitattributes"}
    assert all(b"Jones" not in content for content in held.values())
    files = json.loads(held[PACKED])["files"]
    assert files == {name: hashlib.sha256(held[name]).hexdigest() for name in CONTENTS - {PACKED}}
    card = held["README.md"].decode()
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert (metadata["license"], metadata["library_name"]) == ("cc-by-4.0", "napari-pbip")
    assert "# skin" in card
    assert hub.messages == [f"skin, weights {run_identity(run)}"]
    out = tmp_path / "there"
    assert CliRunner().invoke(cli.app, ["unpack", "hf://jane/skin", "--out", str(out)]).exit_code == 0
    assert run_identity(out) == run_identity(run)
    assert {path.name for path in out.iterdir()} == CONTENTS - {PACKED}


def test_a_packed_file_is_uploaded_as_it_is_and_replaces_an_earlier_model(
    hub: Hub, jane: None, run: Path, tmp_path: Path
):
    packed = tmp_path / "model.zip"
    list(pack(run, packed, "our own terms"))
    hub.repositories["jane/skin"] = {PACKED: b"{}", "last.safetensors": b"old", "picture.png": b"mine"}
    hub.private.add("jane/skin")
    *events, last = push(packed, "jane/skin", public=True)
    assert [event.message for event in events if isinstance(event, Warned)] == [
        f"jane/skin is private and stays so; its page, {last.summary['address']}, can make it public."
    ]
    assert set(hub.repositories["jane/skin"]) == {*CONTENTS, "picture.png"}
    assert "license_name: our own terms" in hub.repositories["jane/skin"]["README.md"].decode()
    with pytest.raises(OutputError, match="states its licence already"):
        list(push(packed, "jane/skin", "MIT"))


def test_what_others_would_see_or_lose_is_not_done_unasked(hub: Hub, jane: None, run: Path):
    hub.repositories |= {"jane/open": {PACKED: b"{}"}, "jane/other": {"model.bin": b"of mine"}}
    hub.private.add("jane/other")
    with pytest.raises(OutputError, match=r"jane/open is public.*`public=True`"):
        list(push(run, "jane/open"))
    with pytest.raises(OutputError, match="holds other files than a packed model"):
        list(push(run, "jane/other"))
    assert hub.messages == []
    *_, last = push(run, "jane/open", public=True)
    assert last.summary["private"] is False
    *_, last = push(run, "jane/new", public=True)
    assert last.summary["private"] is False
    assert hub.private == {"jane/other"}


def test_a_cancelled_upload_shows_nothing(hub: Hub, jane: None, run: Path):
    job = push(run, "jane/skin")
    next(event for event in job if isinstance(event, Step))
    job.close()
    assert set(hub.repositories["jane/skin"]) == {".gitattributes"}


def test_what_is_wrong_is_one_sentence(hub: Hub, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(OutputError, match=r"needs a login.*`hf auth login` or set HF_TOKEN\.$"):
        list(push(run, "jane/skin"))
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(OutputError, match="needs a login"):
        list(push(run, "jane/skin"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(OutputError, match=r"You may not do this with others/skin; name a repository of yours"):
        list(push(run, "others/skin"))
    for name in ("jane/skin/more", "jane/", "https://huggingface.co/jane/skin"):
        with pytest.raises(OutputError, match="is no name of a repository; give OWNER/NAME"):
            list(push(run, name))
    with pytest.raises(ModelError):
        list(push(tmp_path, "jane/skin"))
    with pytest.raises(ModelError, match="There is no repository jane/none"):
        list(unpack("hf://jane/none", tmp_path / "out"))
    hub.repositories["jane/other"] = {"model.bin": b"of mine"}
    with pytest.raises(ModelError, match="holds no packed model"):
        list(unpack("hf://jane/other", tmp_path / "out"))
    list(push(run, "jane/skin"))
    hub.repositories["jane/skin"]["run.json"] += b" "
    with pytest.raises(ModelError, match="jane/skin is damaged or was changed"):
        list(unpack("hf://jane/skin", tmp_path / "out"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OutputError, match="Offline mode is on"):
        list(push(run, "jane/skin"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OutputError, match="cannot be reached"):
        list(push(run, "jane/skin"))
    assert not list((tmp_path / "out").rglob("*"))
