"""Choosing an encoder: it says what is missing, and fetches only after a yes, from a local hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from napari_pbip.config import BankSettings, DataSettings
from napari_pbip.gui.sessions import session_of
from napari_pbip.models.encoders import catalogue, find_weights
from tests.gui.qt_helpers import Settle, answer, choose_encoder, click
from tests.hub import Hub, release


@pytest.fixture
def bank(viewer: Any, settle: Settle, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the Bank widget on a machine that has the weights of only one encoder."""
    import torch

    from napari_pbip.gui.docks.bank import BankWidget

    folder = tmp_path / "weights"
    monkeypatch.setenv("NAPARI_PBIP_WEIGHTS", str(folder))
    (folder / "uni").mkdir(parents=True)
    save_file({"weight": torch.zeros(1)}, folder / "uni" / "model.safetensors")
    widget = BankWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Image bank", area="right")
    settle(lambda: session_of(viewer).encoders.places)
    settle()
    return widget


def test_the_list_tells_ready_ones_from_missing_ones(bank: Any) -> None:
    from tests.gui.widgets.test_settings_form import painted

    box = bank.encoder.form.editor("encoder")
    names = [box.itemText(i) for i in range(box.count())]
    assert sorted(names) == sorted(catalogue())
    lines = {name: painted(box.view(), i) for i, name in enumerate(names)}
    ready = [name for name in names if lines[name].endswith("ready")]
    assert ready == ["efficientnet-lite0", "texture", "tiny", "uni"] == names[:4]
    assert lines["phikon"] == "phikon  –  343 MB to fetch"
    assert lines["conch"] == "conch  –  810 MB to fetch, on request"
    assert "by hand" in lines["medclip"]
    assert "your own" in lines["transformers"]


def test_what_is_missing_is_one_sentence(bank: Any, hub: Hub) -> None:
    notice = bank.encoder.notice
    for name, says, fetchable in (
        ("phikon", "343 MB, licence: Owkin, non-commercial", True),
        ("conch", "ask for access at https://huggingface.co/MahmoodLab/CONCH", True),
        ("medclip", "get them from https://github.com/RyanWangZf/MedCLIP", False),
        ("transformers", "choose their folder", False),
    ):
        choose_encoder(bank.encoder, name)
        assert notice.isVisible(), name
        assert says in notice.text()
        assert notice.text().rstrip(".").count(". ") == 0
        assert bank.encoder.fetch_button.isVisible() == fetchable, name
        assert bank.encoder.weights_form.isVisible(), name
        choose_encoder(bank.encoder, "uni")
        assert not notice.isVisible()
        assert not bank.encoder.fetch_button.isVisible()
    assert hub.asked == []


def test_a_bank_is_not_begun_with_an_encoder_that_is_missing(
    bank: Any,
    viewer: Any,
    settle: Settle,
    hub: Hub,
) -> None:
    from napari_pbip import samples

    session = session_of(viewer)
    session.change(data=DataSettings(folder=samples.tiles()), bank=BankSettings(encoder="phikon", k=1))
    settle(lambda: session.bank.tiles is not None)
    click(bank.build_button)
    assert session.bank.job is None
    assert "not on this machine" in bank.encoder.notice.text()
    assert hub.asked == []


def test_nothing_is_fetched_without_a_yes_and_then_it_can_be_used(
    bank: Any,
    viewer: Any,
    settle: Settle,
    hub: Hub,
    tmp_path: Path,
) -> None:
    release(hub, "phikon", tmp_path / "phikon")
    choose_encoder(bank.encoder, "phikon")
    click(bank.encoder.fetch_button)
    said = answer(bank, settle, "Cancel")
    assert all(part in said for part in ("343 MB", "Owkin, non-commercial", "https://huggingface.co/owkin/phikon"))
    settle()
    assert hub.asked == []
    click(bank.encoder.fetch_button)
    answer(bank, settle, "Fetch")
    session = session_of(viewer)
    settle(lambda: session.encoders.job is None and not session.encoders.lacks_weights(catalogue()["phikon"]))
    assert hub.asked
    assert find_weights(catalogue()["phikon"]) == tmp_path / "weights" / "phikon"
    assert not bank.encoder.notice.isVisible()
    assert not bank.encoder.fetch_button.isVisible()
    assert bank.encoder.usable()


def test_a_download_can_be_stopped_and_outlives_the_dock(
    bank: Any,
    viewer: Any,
    settle: Settle,
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from napari_pbip.gui.docks.train import TrainWidget

    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    release(hub, "phikon", tmp_path / "phikon")
    hub.repositories["owkin/phikon"]["model.safetensors"] += bytes(10_000_000)
    hub.slow = True
    choose_encoder(bank.encoder, "phikon")
    click(bank.encoder.fetch_button)
    answer(bank, settle, "Fetch")
    settle(lambda: "of 11 MB" in bank.encoder.bar.text.text())
    assert not bank.encoder.fetch_button.isEnabled()
    viewer.window.remove_dock_widget(bank)
    session = session_of(viewer)
    session.settings = type(session.settings).parse({"method": {"name": "lpd"}, "bank": {"encoder": "phikon"}})
    train = TrainWidget(viewer)  # it chooses the encoder too
    viewer.window.add_dock_widget(train, name="Train")
    settle()
    click(train.encoder.bar.cancel_button)
    settle(lambda: session.encoders.job is None)
    assert "kept" in train.encoder.bar.notice.text()
    assert find_weights(catalogue()["phikon"]) is None
    assert train.encoder.fetch_button.isEnabled()


def test_no_access_is_a_sentence(bank: Any, viewer: Any, settle: Settle, hub: Hub, tmp_path: Path) -> None:
    release(hub, "h-optimus-0", tmp_path / "optimus")
    hub.gated.add("bioptimus/H-optimus-0")
    choose_encoder(bank.encoder, "h-optimus-0")
    click(bank.encoder.fetch_button)
    assert "on request" in answer(bank, settle, "Fetch")
    settle(lambda: session_of(viewer).encoders.job is None)
    assert "hf auth login" in bank.encoder.bar.notice.text()
    assert bank.encoder.fetch_button.isEnabled()


def test_names_and_weights_that_do_not_fit(bank: Any, viewer: Any, tmp_path: Path) -> None:
    choose_encoder(bank.encoder, "unicorn")
    assert "no encoder 'unicorn'" in bank.encoder.notice.text()
    assert not bank.encoder.usable()
    choose_encoder(bank.encoder, "texture")
    session_of(viewer).change(bank=BankSettings(weights=tmp_path))
    assert "takes no weights" in bank.encoder.notice.text()
    assert bank.encoder.weights_form.isVisible()
