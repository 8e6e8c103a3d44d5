"""The short form for CI; ``python -m tests.robustness.mutate_files`` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.robustness.mutate_files import USES, case, unpack


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("kept"))


@pytest.mark.parametrize("kind", range(len(USES)), ids=USES)
def test_damaged_files_are_opened_or_refused_in_one_sentence(kind: int, kept: Path) -> None:
    for number in range(kind, 12 * len(USES), len(USES)):
        name, fault = case(number, kept)
        assert fault is None, f"{name}\n{fault}"
