"""What all jobs share: unexpected errors become :class:`JobFailed`, and a job can be a phase of another."""

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
"""A function that makes a job's generator, which does nothing before its first event is requested."""
_MORE_MEMORY = "close other programs, or use a machine with more of it"
_NO_MEMORY = ("out of memory", "allocate memory", "not enough memory")
"""Parts of torch's messages in lower case: of CUDA and Metal; of the CPU on Linux and macOS; of the CPU on Windows."""


@overload
def job(run: Callable[P, Job]) -> Callable[P, Job]: ...
@overload
def job(*, less_memory: str) -> Callable[[Callable[P, Job]], Callable[P, Job]]: ...
def job(run: Callable[P, Job] | None = None, *, less_memory: str = _MORE_MEMORY) -> Any:
    """Decorate a generator of events so that it raises only :class:`~napari_pbip.errors.PbipError`.

    Torch raises RuntimeErrors, which Qt worker threads swallow silently; a job must therefore raise only errors of this
    package. Closing the generator (cancelling) and Ctrl+C are not affected.

    Parameters
    ----------
    run
        The job.
    less_memory
        What a user can do if the memory is full, for example "use a smaller `train.batch_size`".
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
    """Return a PbipError for an unexpected error.

    Parameters
    ----------
    error
        The error; a PbipError is returned as it is.
    name
        Name of the job, if it has one.
    less_memory
        What a user can do if the memory is full.
    """
    said = " ".join(str(error).split())
    if isinstance(error, PbipError):
        return error
    if isinstance(error, MemoryError) or any(words in said.lower() for words in _NO_MEMORY):
        whose = "graphics card's" if "cuda" in said.lower() or "mps" in said.lower() else "machine's"
        return JobFailed(f"The {whose} memory is full; {less_memory}.")
    if isinstance(error, OSError):
        return OutputError(f"A file could not be read or written: {said}.")
    what = f"The job {name!r} failed" if name else "An unexpected error occurred"
    return JobFailed(f"{what}: {type(error).__name__}: {said}.")


def cancellable(inner: Generator[object, None, Result], done: int) -> Generator[Step, None, Result]:
    """Run a generator inside a job and return its value; yield a ``Step`` whenever it yields, so that a cancel works.

    Parameters
    ----------
    inner
        The generator; the values that it yields are ignored.
    done
        Value of ``done`` in these steps, which do not count as progress of the job.
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
    """Yield the events of a job that is a phase of another one, without ``Finished``; return its summary.

    ``Finished`` must be the last event of a job, so that of a phase is left out.
    """
    summary: Mapping[str, Any] = {}
    with closing(inner):  # it saves, and raises errors of saving, before the outer job releases its folder
        for event in inner:
            if isinstance(event, Finished):
                summary = event.summary
            else:
                yield event
    return summary
