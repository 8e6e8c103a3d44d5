"""Damaged slides of every format are read, or refused in one sentence. The long form is ``mutate_slides``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.robustness.mutate_slides import outcomes
from tests.robustness.slide_visitor import MEMORY


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits neither memory nor time of a process this way")
def test_ten_damaged_slides_of_each_format(tmp_path: Path) -> None:
    found = list(outcomes(tmp_path, range(150), seed=1))
    wrong = [f"{one.number} {one.kind}: {one.what}: {one.outcome} {one.said}" for one in found if not one.fine]
    assert not wrong, "\n".join(wrong)
    assert found[-1].peak < MEMORY
    # The damage is neither so slight that nothing notices nor so heavy that nothing opens.
    assert 15 < sum(one.outcome == "read" for one in found) < 135
