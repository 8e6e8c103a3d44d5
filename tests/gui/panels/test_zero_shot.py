"""Classifying tiles without training, from the Bank widget, with real mouse and keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from napari_pbip.config import BankSettings, DataSettings
from napari_pbip.engine.banks.zero_shot import zero_shot
from napari_pbip.gui.sessions import session_of
from napari_pbip.models.encoders import default_sentence
from tests.engine.training.test_construct import clip
from tests.gui.qt_helpers import Settle, click


@pytest.fixture
def session(viewer: Any, weak_data: Path) -> Any:
    session = session_of(viewer)
    session.change(data=DataSettings(folder=weak_data, mpp=0.5), bank=BankSettings(encoder="tiny", k=2))
    return session


@pytest.fixture
def opened(viewer: Any, session: Any, settle: Settle) -> Callable[[], Any]:
    """Open the window from a docked Bank widget."""
    from napari_pbip.gui.docks.bank import BankWidget
    from napari_pbip.gui.panels.zero_shot import ZeroShotDialog

    widget = BankWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Image bank", area="right")
    settle(lambda: session.bank.tiles is not None)

    def open_window() -> Any:
        click(widget.zero_shot_button)
        settle(lambda: session.zero_shot.splits)
        return widget.findChildren(ZeroShotDialog)[-1]

    return open_window


def shown(table: Any) -> list[list[str]]:
    rows, columns = range(table.rowCount()), range(table.columnCount())
    return [[table.item(row, column).text() for column in columns] for row in rows]


def test_without_text_tower_and_bank_it_says_what_to_do(opened: Any) -> None:
    window = opened()
    assert "no text tower" in window.about.text()
    assert not window.start_button.isEnabled()
    assert not window.sentences.isVisible()
    window.close()


def test_by_prototypes_of_the_bank(opened: Any, session: Any, settle: Settle) -> None:
    session.bank.build()
    settle(lambda: session.bank.bank is not None)
    window = opened()
    assert [window.split.itemText(i) for i in range(1, window.split.count())] == ["val", "test"]
    click(window.start_button)
    settle(lambda: session.zero_shot.job is None and window.figures.isVisible())
    *_, end = zero_shot(session.settings.data, bank=session.bank_folder)
    scores = end.summary["prompts"]["image"]
    wanted = [[n, f"{scores['recall'][n]:.1f} %", f"{scores['f1'][n]:.1f} %"] for n in ("LYM", "MUS")]
    overall = [f"All {end.summary['tiles']} tiles", f"{scores['accuracy']:.1f} %", f"{scores['f1_mean']:.1f} %"]
    assert shown(window.figures) == [*wanted, overall]
    assert "in the bank" in window.bar.notice.text()
    window.split.setCurrentText("test")  # mosaics, of two classes each
    click(window.start_button)
    settle(lambda: session.zero_shot.job is None)
    assert shown(window.figures) == [["All 0 tiles", "–", "–"]]
    assert "several classes" in window.notice.text()
    window.close()


def test_by_sentences_that_can_be_changed(opened: Any, session: Any, settle: Settle, tmp_path: Path) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QLineEdit

    session.change(bank=BankSettings(encoder="transformers", weights=clip(tmp_path / "clip")))
    window = opened()
    assert shown(window.sentences) == [[name, default_sentence(name)] for name in ("LYM", "MUS")]
    window.sentences.editItem(window.sentences.item(1, 1))
    settle(lambda: window.sentences.findChildren(QLineEdit))
    editor = window.sentences.findChild(QLineEdit)
    editor.selectAll()
    QTest.keyClicks(editor, "Pink bundles.")
    QTest.keyClick(editor, Qt.Key.Key_Return)
    settle(lambda: session.zero_shot.sentences)
    assert session.zero_shot.sentences == {"MUS": "Pink bundles."}
    click(window.start_button)
    settle(lambda: session.zero_shot.job is None)
    assert session.zero_shot.result["sentences"] == {"LYM": default_sentence("LYM"), "MUS": "Pink bundles."}
    assert [window.figures.horizontalHeaderItem(i).text() for i in (1, 2)] == [
        "Accuracy, by sentence",
        "F1, by sentence",
    ]
    window.close()
    settle()
    again = opened()  # what was written and found is still there
    assert again.sentences.item(1, 1).text() == "Pink bundles."
    assert again.figures.rowCount() == 3
    again.sentences.item(1, 1).setText("")
    assert again.sentences.item(1, 1).text() == default_sentence("MUS")
    again.close()
