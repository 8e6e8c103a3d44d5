"""napari's preferences name the person whose work is recorded."""

from __future__ import annotations

from typing import Any

import pytest
from napari.settings import get_plugin_settings

from napari_pbip.provenance import OPERATOR, Made


def test_the_name_in_the_preferences_is_recorded(viewer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    records = get_plugin_settings("napari-pbip").records
    records.operator = " A. Müller "
    assert Made.now().operator == "A. Müller"
    monkeypatch.setenv(OPERATOR, "B. Becker")
    assert Made.now().operator == "B. Becker"
    monkeypatch.delenv(OPERATOR)
    records.operator = ""
    assert Made.now().operator is None
