from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from napari_pbip import engine
from napari_pbip.engine.jobs import job, phase
from napari_pbip.errors import ConfigError, JobFailed, OutputError, PbipError
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


def public_jobs() -> Iterator[tuple[str, Any]]:
    for module in pkgutil.walk_packages(engine.__path__, "napari_pbip.engine."):
        names = vars(importlib.import_module(module.name))
        classes = [c for n, c in names.items() if inspect.isclass(c) and c.__module__ == module.name and n[0] != "_"]
        for holder in (names, *map(vars, classes)):
            for name, function in holder.items():
                ours = inspect.isfunction(function) and function.__module__ == module.name and name[0] != "_"
                if ours and function.__annotations__.get("return") == "Job":
                    yield f"{module.name}.{name}", function


def test_nothing_but_our_own_errors_leaves_any_job() -> None:
    jobs = dict(public_jobs())
    assert len(jobs) > 15
    assert [name for name, function in jobs.items() if not hasattr(function, "__wrapped__")] == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), r"^The machine's memory is full; eat less\.$"),
        (RuntimeError("CUDA out of memory. Tried"), r"^The graphics card's memory is full; eat less\.$"),
        (RuntimeError("MPS backend out of memory (MPS allocated"), r"^The graphics card's memory is full; eat less\.$"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), r"^The machine's memory"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), r"^The machine's memory"),
        (ValueError("two\nlines"), r"^The job 'hungry' failed: ValueError: two lines\.$"),
    ],
)
def test_full_memory_is_told_with_the_way_out(error: Exception, words: str) -> None:
    @job(less_memory="eat less")
    def hungry() -> Job:
        yield Started("x", 1, "steps")
        raise error

    with pytest.raises(JobFailed, match=words):
        list(hungry())


def test_what_a_part_of_a_job_meets_while_it_saves_is_told() -> None:
    @job
    def part() -> Job:
        try:
            yield Started("x", 1, "steps")
        finally:
            raise OutputError("The disk is full.")

    @job
    def whole() -> Job:
        yield from phase(part())

    running = whole()
    next(running)
    with pytest.raises(OutputError, match="The disk is full"):
        running.close()
