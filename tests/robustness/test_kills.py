"""The short form for CI: each job is killed before two of its renamings, the one in the middle and the last one.

``python -m tests.robustness.kills`` kills them before every renaming, or at random moments.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.robustness.kills import JOBS, kill_at_renames, prepare, warm


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    prepare(folder)
    warm()
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked from one that has loaded torch")
@pytest.mark.parametrize("name", JOBS)
def test_a_job_that_was_killed_ends_as_if_it_had_not_been(name: str, root: Path) -> None:
    outcome = kill_at_renames(name, root, lambda total: {total // 2, total} - {0})
    assert outcome.kills
    assert outcome.compared == outcome.kills
