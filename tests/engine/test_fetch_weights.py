"""Fetching weights from a local server with the protocol of the hub."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from napari_pbip.engine.fetch_weights import fetch_weights
from napari_pbip.errors import ConfigError, WeightsUnavailable
from napari_pbip.events import Event, Finished, Started, Step, Warned
from napari_pbip.models.encoders import catalogue, find_weights
from napari_pbip.models.encoders.catalogue import from_spec
from tests.hub import Hub, release
from tests.models.encoders.small_encoders import small


def kinds(events: list[Event]) -> list[type]:
    return [type(event) for event in events]


def test_fetched_weights_are_found_and_loaded(hub: Hub, tmp_path: Path) -> None:
    release(hub, "plip", tmp_path / "plip")
    spec = catalogue()["plip"]
    assert find_weights(spec) is None
    events = list(fetch_weights("plip"))
    assert kinds(events)[0] is Started
    assert events[0].total == 1  # megabytes, of a small network
    assert kinds(events)[-2:] == [Step, Finished]
    folder = find_weights(spec)
    assert events[-1].summary == {"encoder": "plip", "folder": str(folder), "ready": True}
    assert folder is not None
    assert folder.is_relative_to(tmp_path / "hub")
    assert not {"README.md", "pytorch_model.bin"} & {path.name for path in folder.iterdir()}
    tiny, _ = small("plip", tmp_path / "plip")
    assert from_spec(tiny).text_features(["tumour"]).shape == (1, 24)  # the tokenizer came along
    count = len(hub.asked)
    assert kinds(list(fetch_weights("plip"))) == [Started, Finished]
    assert len(hub.asked) == count  # what is here is not asked for again


def test_fetched_into_the_folder_of_the_environment(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release(hub, "dinov2-small", tmp_path / "released")
    monkeypatch.setenv("NAPARI_PBIP_WEIGHTS", str(tmp_path / "weights"))
    *_, last = fetch_weights("dinov2-small")
    assert last.output == tmp_path / "weights" / "dinov2-small"
    assert find_weights(catalogue()["dinov2-small"]) == last.output
    assert (last.output / "model.safetensors").read_bytes() == (tmp_path / "released/model.safetensors").read_bytes()


def test_of_a_pickle_it_is_said_how_to_convert_it(hub: Hub) -> None:
    hub.repositories["MahmoodLab/UNI"] = {"pytorch_model.bin": b"pickle", "README.md": b""}
    *_, warned, last = fetch_weights("uni")
    assert isinstance(warned, Warned)
    assert "convert it once" in warned.message
    assert last.summary["ready"] is False
    assert (last.output / "pytorch_model.bin").read_bytes() == b"pickle"
    assert find_weights(catalogue()["uni"]) is None


def test_access_has_to_be_asked_for(hub: Hub) -> None:
    hub.repositories["MahmoodLab/UNI"] = {"pytorch_model.bin": b"pickle"}
    hub.gated.add("MahmoodLab/UNI")
    with pytest.raises(
        WeightsUnavailable,
        match=r"no access to MahmoodLab/UNI yet; ask for it at http://.*HF_TOKEN, or fetch .*\.$",
    ):
        list(fetch_weights("uni"))


def test_a_cancelled_download_stops_and_goes_on_later(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    release(hub, "phikon", tmp_path / "phikon")
    hub.repositories["owkin/phikon"]["model.safetensors"] += bytes(10_000_000)
    hub.slow = True
    job = fetch_weights("phikon")
    assert next(job).total == 11
    assert next(event for event in job if event.done > 0).done < 11
    job.close()
    hub.slow = False
    assert find_weights(catalogue()["phikon"]) is None
    assert [t for t in threading.enumerate() if t.name.startswith("napari-pbip-fetch")] == []
    *_, last = fetch_weights("phikon")
    size = (last.output / "model.safetensors").stat().st_size
    assert size == len(hub.repositories["owkin/phikon"]["model.safetensors"])


def test_offline_mode_is_honoured(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsUnavailable, match="Offline mode is on"):
        list(fetch_weights("plip"))
    assert hub.asked == []


def test_a_hub_that_does_not_answer(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsUnavailable, match=r"127\.0\.0\.1:9/vinid/plip cannot be reached"):
        list(fetch_weights("plip"))


def test_what_cannot_be_fetched(hub: Hub) -> None:
    with pytest.raises(ConfigError, match="no encoder 'plib'"):
        list(fetch_weights("plib"))
    with pytest.raises(WeightsUnavailable, match="needs no weights"):
        list(fetch_weights("texture"))
    with pytest.raises(WeightsUnavailable, match=r"on no hub: get them from https://github.com/RyanWangZf/MedCLIP"):
        list(fetch_weights("medclip"))
    with pytest.raises(WeightsUnavailable, match=r"name the folder of the weights with `bank\.weights`"):
        list(fetch_weights("transformers"))
