"""The short form for CI: each job is killed twice. ``python -m tests.robustness.kills`` does it any number of times."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from tests.robustness.kills import JOBS, prepare, torture


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    prepare(folder)
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked from one that has loaded torch")
@pytest.mark.parametrize("name", JOBS)
def test_a_job_that_was_killed_ends_as_if_it_had_not_been(name: str, root: Path) -> None:
    outcome = torture(name, root, 2, random.Random(name))
    assert outcome.kills == 2
    assert outcome.compared
