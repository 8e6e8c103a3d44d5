"""Several jobs: one after the other in this process, or side by side on the workers of a scheduler."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from napari_pbip.engine.cluster.workers import PACKAGE, TICK_SECONDS, Cluster
from napari_pbip.engine.jobs import explained
from napari_pbip.errors import ClusterError
from napari_pbip.events import Event, Finished, Job, Noted, RunStep, Started, Step, Warned

if TYPE_CHECKING:
    from distributed import Future

In = TypeVar("In")


@dataclass(frozen=True, slots=True)
class Ended:
    """One of several jobs has ended."""

    summary: Mapping[str, Any] = field(default_factory=dict)
    """The summary of its ``Finished``; empty if it failed or has none."""
    error: str = ""
    """What went wrong, as a sentence; empty if nothing did."""


Outcome = tuple[int, Event | Ended]
"""The number of a job and one of its events; the last one of each is :class:`Ended`."""

Make = Callable[[In, bool], Job]
"""Makes the job of an item, and takes whether another process had begun it and was lost."""


def in_turn(make: Make[In], items: Iterable[In]) -> Generator[Outcome, None, None]:
    """Run a job for each item, one after the other, in this process; one that fails does not stop the others."""
    for number, item in enumerate(items):
        with closing(_to_its_end(make, item, begun=False)) as events:
            for event in events:
                yield number, event


def _to_its_end(make: Make[In], item: In, *, begun: bool) -> Generator[Event | Ended, None, None]:
    """Yield the events of a job, and last how it ended."""
    summary: Mapping[str, Any] = {}
    try:
        with closing(make(item, begun)) as job:
            for event in job:
                if isinstance(event, Finished):
                    summary = event.summary
                else:
                    yield event
    except ClusterError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it is that job's, and the next one may do well
        yield Ended(error=str(explained(error, less_memory="use a smaller batch_size")))
    else:
        yield Ended(summary)


def on_workers(cluster: Cluster, make: Make[In], items: Iterable[In]) -> Generator[Outcome | None, None, None]:
    """Run a job for each item on the workers, as many at a time as they have threads.

    Parameters
    ----------
    cluster
        The workers.
    make, items
        As ``work`` and ``items`` of :meth:`Cluster.results`.

    Yields
    ------
    tuple or None
        As :func:`in_turn`, but the events of jobs that run at the same time are mixed, some steps are left out, and
        there are no events of regions; None if there was nothing for half a second.

    Raises
    ------
    ClusterError
        If the scheduler or all workers are lost.
    """
    from distributed import Event as Flag

    topic = f"{PACKAGE}-{uuid.uuid4().hex}"
    told: SimpleQueue[tuple[int, dict[str, Any]]] = SimpleQueue()
    ended: set[int] = set()
    stop = Flag(topic, client=cluster.client)

    def stop_all() -> None:
        with suppress(OSError, RuntimeError, ValueError):  # the scheduler is lost
            stop.set()

    def events() -> Iterator[Outcome]:
        with suppress(Empty):
            while True:
                number, plain = told.get_nowait()
                if number not in ended:
                    yield number, _from_plain(plain)

    cluster.client.subscribe_topic(topic, lambda message: told.put(message[1]))
    try:
        work = partial(_run, make, topic)
        with closing(cluster.submitted(work, enumerate(items), ahead=1, retries=0, at_end=stop_all)) as submitted:
            for found in submitted:
                some = False
                for outcome in events():
                    some = True
                    yield outcome
                if found is not None:
                    number, future = found
                    ended.add(number)
                    yield number, _ended(cluster, future)
                elif not some:
                    yield None
    finally:
        with suppress(OSError, ValueError, RuntimeError):  # the scheduler is lost
            cluster.client.unsubscribe_topic(topic)


def as_one(
    outcomes: Generator[Outcome | None, None, None], names: Sequence[str], failed: str = "failed"
) -> Generator[Event, None, list[Ended]]:
    """Yield the events of several jobs as those of one, and return how each ended.

    Parameters
    ----------
    outcomes
        Of :func:`in_turn` or :func:`on_workers`.
    names
        What the user calls each job.
    failed
        What is said of one that failed, before its error.

    Yields
    ------
    Event
        A :class:`~napari_pbip.events.RunStep` for phases and steps of a job, and for its end, with the number of ended
        jobs; ``Warned`` for one that failed; warnings of jobs, and notes of all of them, each once.
    """
    ended: dict[int, Ended] = {}
    phases: dict[int, Started] = {}
    said: set[tuple[str, int | None]] = set()
    with closing(outcomes):
        for outcome in outcomes:
            if outcome is None:
                yield Step(len(ended))
                continue
            number, event = outcome
            name = names[number]
            match event:
                case Started():
                    phases[number] = event
                    yield RunStep(len(ended), run=_so_far(name, event, event.done))
                case Step() if number in phases:
                    yield RunStep(len(ended), run=_so_far(name, phases[number], event.done))
                case Noted() | Warned() if (event.message, _of(event, number)) not in said:
                    said.add((event.message, _of(event, number)))
                    yield replace(event, message=f"{name}: {event.message}")
                case Ended():
                    ended[number] = event
                    if event.error:
                        yield Warned(f"{name} {failed}: {event.error}")
                    yield RunStep(len(ended), run=name, finished=not event.error)
    return [ended[number] for number in range(len(names))]


def _of(event: Noted | Warned, number: int) -> int | None:
    """Return the number of the job that a warning is about; a note, such as one on the model, may be about all."""
    return number if isinstance(event, Warned) else None


def _so_far(name: str, phase: Started, done: int) -> str:
    return f"{name}: {done:,} of {phase.total:,} {phase.unit}"


def _ended(cluster: Cluster, future: Future) -> Ended:
    """Return how a job ended; raises ClusterError if that is the fault of the cluster."""
    try:
        ended: Ended = cluster.result(future)
    except ClusterError as error:
        if future.status == "error":  # of this job only
            return Ended(error=str(error))
        raise
    return ended


def _run(make: Make[In], topic: str, numbered: tuple[int, In]) -> Ended:
    """Run a job on a worker to its end, or until it is stopped; send its events to whoever follows it."""
    from distributed import Event as Flag
    from distributed import get_worker

    number, item = numbered
    worker, stop, begun = get_worker(), Flag(topic), Flag(f"{topic}-{number}")
    again = begun.is_set()
    next_step, next_look = 0.0, 0.0
    with closing(_to_its_end(make, item, begun=again)) as events:
        for event in events:
            if isinstance(event, Ended):
                return event
            if isinstance(event, Started) and not again:  # what is there now can be resumed
                begun.set()
                again = True
            now = time.monotonic()
            if now > next_look:
                next_look = now + 2 * TICK_SECONDS
                if stop.is_set():
                    break
            if type(event) is Step and now < next_step:
                continue
            if (plain := _to_plain(event)) is not None:
                next_step = now + TICK_SECONDS
                worker.log_event(topic, (number, plain))
    return Ended(error="stopped")


_SENT: dict[str, type[Any]] = {kind.__name__: kind for kind in (Started, Step, Noted, Warned)}


def _to_plain(event: Event) -> dict[str, Any] | None:
    """Return an event as plain values, or None for one of which nobody at a distance makes use."""
    if type(event).__name__ not in _SENT:
        return None
    values = {name: getattr(event, name) for name in type(event).__dataclass_fields__}
    if "values" in values:
        values["values"] = {name: float(value) for name, value in values["values"].items()}
    return {"event": type(event).__name__, **values}


def _from_plain(plain: Mapping[str, Any]) -> Event:
    values = dict(plain)
    event: Event = _SENT[values.pop("event")](**values)
    return event
