"""What all jobs share: an unforeseen error becomes :class:`JobFailed`, and one job can be a phase of another."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from functools import wraps
from typing import Any, ParamSpec, TypeVar, overload

from napari_pbip.errors import JobFailed, OutputError, PbipError
from napari_pbip.events import Event, Finished, Job, Step

P = ParamSpec("P")
Result = TypeVar("Result")
JobMaker = Callable[[], Job]
"""Makes a job's generator; nothing of the job is done yet."""
_MORE_MEMORY = "close other programs, or use a machine with more of it"
_NO_MEMORY = ("out of memory", "allocate memory", "not enough memory")
"""Part of what torch says, in lower case: of CUDA and Metal; of the processor on Linux and macOS; on Windows."""


@overload
def job(run: Callable[P, Job]) -> Callable[P, Job]: ...
@overload
def job(*, less_memory: str) -> Callable[[Callable[P, Job]], Callable[P, Job]]: ...
def job(run: Callable[P, Job] | None = None, *, less_memory: str = _MORE_MEMORY) -> Any:
    """Decorate a generator of events so that only :class:`~napari_pbip.errors.PbipError` comes out of it.

    Every torch error is a RuntimeError, which Qt worker threads lose without a word, so nothing but our own
    errors may leave a job. Closing the generator (cancelling) and Ctrl+C pass through untouched.

    Parameters
    ----------
    run
        The job.
    less_memory
        What a user can do where the memory is full, for example "use a smaller train.batch_size".
    """

    def decorate(run: Callable[P, Job]) -> Callable[P, Job]:
        @wraps(run)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> Job:
            try:
                yield from run(*args, **kwargs)
            except PbipError:
                raise
            except Exception as error:  # the one place that may: see the docstring
                raise explained(error, run.__name__.replace("_", " "), less_memory) from error

        return guarded

    return decorate if run is None else decorate(run)


def explained(error: Exception, name: str = "", less_memory: str = _MORE_MEMORY) -> PbipError:
    """An unexpected error, as one sentence.

    Parameters
    ----------
    error
        What was met; one of ours is returned as it is.
    name
        Name of the job, if it has one.
    less_memory
        What a user can do where the memory is full.
    """
    said = " ".join(str(error).split())
    if isinstance(error, PbipError):
        return error
    if isinstance(error, MemoryError) or any(words in said.lower() for words in _NO_MEMORY):
        whose = "graphics card's" if "cuda" in said.lower() or "mps" in said.lower() else "machine's"
        return JobFailed(f"The {whose} memory is full; {less_memory}.")
    if isinstance(error, OSError):
        return OutputError(f"A file could not be read or written: {said}.")
    what = f"The job {name!r} failed" if name else "Something unforeseen went wrong"
    return JobFailed(f"{what}: {type(error).__name__}: {said}.")


def heard(inner: Generator[object, None, Result], done: int) -> Generator[Step, None, Result]:
    """Go through work that is no progress of the job's own, with a ``Step`` now and then so that a cancel is heard.

    Parameters
    ----------
    inner
        The work; what it yields is not told, what it returns is returned.
    done
        How much of the job is done meanwhile.
    """
    with closing(inner):
        while True:
            try:
                next(inner)
            except StopIteration as end:
                result: Result = end.value
                return result
            yield Step(done)


def phase(inner: Job) -> Generator[Event, None, Mapping[str, Any]]:
    """The events of a job that is part of another, without its end; returns its summary.

    ``Finished`` is the last event of a job, so that of a part must not be announced.
    """
    summary: Mapping[str, Any] = {}
    with closing(inner):  # what it meets while it saves is told, before the folder of the outer one is released
        for event in inner:
            if isinstance(event, Finished):
                summary = event.summary
            else:
                yield event
    return summary
