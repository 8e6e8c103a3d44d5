"""What all jobs share: an unforeseen error becomes :class:`JobFailed`, and one job can be a phase of another."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import wraps
from typing import Any, ParamSpec

from napari_pbip.errors import JobFailed, OutputError, PbipError
from napari_pbip.events import Event, Finished, Job

P = ParamSpec("P")
JobMaker = Callable[[], Job]
"""Makes a job's generator; nothing of the job is done yet."""


def job(run: Callable[P, Job]) -> Callable[P, Job]:
    """Decorate a generator of events so that only :class:`~napari_pbip.errors.PbipError` comes out of it.

    Every torch error is a RuntimeError, which Qt worker threads lose without a word, so nothing but our own
    errors may leave a job. Closing the generator (cancelling) passes through untouched.
    """

    @wraps(run)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Job:
        try:
            yield from run(*args, **kwargs)
        except PbipError:
            raise
        except MemoryError as error:
            raise JobFailed("The machine's memory is full; use a smaller batch_size.") from error
        except OSError as error:
            raise OutputError(f"A file could not be read or written: {error}.") from error
        except Exception as error:  # the one place that may: see the docstring
            hint = "; the device's memory is full, use a smaller batch_size" if _out_of_memory(error) else ""
            name = run.__name__.replace("_", " ")
            raise JobFailed(f"The job {name!r} failed: {type(error).__name__}: {error}{hint}.") from error

    return guarded


def phase(inner: Job) -> Generator[Event, None, Mapping[str, Any]]:
    """The events of a job that is part of another, without its end; returns its summary.

    ``Finished`` is the last event of a job, so that of a part must not be announced.
    """
    summary: Mapping[str, Any] = {}
    for event in inner:
        if isinstance(event, Finished):
            summary = event.summary
        else:
            yield event
    return summary


def _out_of_memory(error: Exception) -> bool:
    return "out of memory" in str(error).lower()
