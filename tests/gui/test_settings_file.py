"""Saving and loading settings with the dialogs of the menu; test_train.py tests a training with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from napari_pbip.config import JobSettings
from napari_pbip.errors import OutputError
from napari_pbip.gui.sessions import session_of
from tests.gui.napari_privates import main_window
from tests.gui.qt_helpers import Settle, click

SETTINGS = JobSettings.parse(
    {
        "data": {"folder": "/tiles"},
        "method": {"name": "pbip", "preset": "paper"},
        "bank": {"k": {"TUM": 4, "STR": "auto"}},
    }
)


@pytest.fixture
def told() -> Iterator[list[Any]]:
    """Collect napari's notifications."""
    from napari.utils.notifications import notification_manager

    seen: list[Any] = []
    notification_manager.notification_ready.connect(seen.append)
    yield seen
    notification_manager.notification_ready.disconnect(seen.append)


def answer(viewer: Any, settle: Settle, path: Path) -> None:
    """Paste a path into the open dialog and press its button."""
    from qtpy.QtWidgets import QDialogButtonBox, QFileDialog, QLineEdit

    dialog = main_window(viewer).findChild(QFileDialog)
    settle(dialog.isVisible)
    closed: list[int] = []
    dialog.finished.connect(closed.append)
    # pasted at once: what Qt makes of half a path, in its own time, would change the dialog under our hands
    dialog.findChild(QLineEdit).setText(str(path))
    button = dialog.findChild(QDialogButtonBox).buttons()[0]
    settle(button.isEnabled)
    click(button)
    settle(lambda: closed)
    settle()


def test_settings_are_saved_and_loaded_from_the_menu(
    viewer: Any, settle: Settle, tmp_path: Path, told: list[Any]
) -> None:
    from napari_pbip.gui.settings_file import load, save

    session = session_of(viewer)
    session.settings = SETTINGS
    save(viewer)
    answer(viewer, settle, tmp_path / "job")
    settle(lambda: told)
    assert JobSettings.read(tmp_path / "job.yaml") == SETTINGS
    assert "job.yaml" in told[-1].message
    session.settings = JobSettings()
    load(viewer)
    answer(viewer, settle, tmp_path / "job.yaml")
    settle(lambda: session.settings == SETTINGS)


def test_a_file_that_cannot_be_used_is_a_sentence_and_changes_nothing(
    viewer: Any, settle: Settle, tmp_path: Path, told: list[Any]
) -> None:
    from napari.utils.notifications import NotificationSeverity

    from napari_pbip.gui.settings_file import load

    session = session_of(viewer)
    session.settings = SETTINGS
    for number, text in enumerate(("train: {epochs: none}", "trian: {epochs: 3}", "- a list", "a: [1"), 1):
        (tmp_path / "job.yaml").write_text(text)
        load(viewer)
        answer(viewer, settle, tmp_path / "job.yaml")
        assert session.settings == SETTINGS
        assert len(told) == number
        assert told[-1].severity is NotificationSeverity.ERROR
        assert "\n" not in told[-1].message
        assert "Traceback" not in told[-1].message


def test_what_cannot_be_written_is_a_sentence(viewer: Any, tmp_path: Path) -> None:
    from napari_pbip.gui.settings_file import write_settings

    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="another place"):
        write_settings(session_of(viewer), tmp_path / "file" / "job.yaml")


def test_the_project_s_image_bank_is_named_in_the_file(viewer: Any, tmp_path: Path) -> None:
    from napari_pbip.gui.settings_file import write_settings

    session = session_of(viewer)
    session.bank_folder.mkdir(parents=True)
    (session.bank_folder / "bank.json").write_text("{}")
    write_settings(session, tmp_path / "job.yaml")
    assert JobSettings.read(tmp_path / "job.yaml").bank_folder == session.bank_folder
    assert session.settings.bank_folder is None
