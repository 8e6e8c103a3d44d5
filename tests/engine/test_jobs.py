from __future__ import annotations

import pytest
import torch

from napari_pbip.engine.jobs import job
from napari_pbip.errors import ConfigError, JobFailed, PbipError
from napari_pbip.events import Job, Started


def test_a_torch_error_leaves_a_job_as_job_failed() -> None:
    @job
    def broken_job() -> Job:
        yield Started("x", 1, "steps")
        torch.zeros(2) @ torch.zeros(3)

    with pytest.raises(JobFailed, match="broken job") as caught:
        list(broken_job())
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert not isinstance(caught.value, RuntimeError)  # Qt worker threads would lose it


def test_our_own_errors_and_cancelling_pass_through() -> None:
    closed = []

    @job
    def refused() -> Job:
        try:
            yield Started("x", 1, "steps")
            raise ConfigError("no")
        finally:
            closed.append(True)

    with pytest.raises(ConfigError, match="no"):
        list(refused())
    running = refused()
    next(running)
    running.close()
    assert closed == [True, True]


def test_no_error_of_ours_is_a_runtime_error() -> None:
    family = [PbipError]
    while family:
        error = family.pop()
        assert not issubclass(error, RuntimeError)
        family += error.__subclasses__()
