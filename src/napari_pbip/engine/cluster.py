"""Work on several processes or machines, by dask.distributed.

A job stays a generator of events in the process that was asked for it. What takes long in it is given to workers: parts
of a slide or of a bank as functions whose results come back (:meth:`Cluster.results`), and whole jobs, such as the runs
of a comparison, whose events come back (:meth:`Cluster.jobs`). Both are given out only as fast as workers take them.

A worker that is lost does not stop a job: the scheduler gives its work to another one. A job of which a part was done
by then is resumed there. If the scheduler is lost, the job ends with an error, and resuming it continues from what is
on disk.

Workers see the same files under the same paths. What they send is pickled by dask, so a scheduler should be open to
trusted machines only; nothing that is pickled is ever read from disk.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from napari_pbip.engine.jobs import explained
from napari_pbip.errors import ClusterError
from napari_pbip.events import Event, Finished, Job, Noted, Started, Step, Warned

if TYPE_CHECKING:
    from distributed import Client, Future

In = TypeVar("In")
Out = TypeVar("Out")
Scheduler: TypeAlias = "str | Client | None"
"""Where work is done: ``local:4``, the address of a scheduler, an open client of one, or None for this process."""

PACKAGE = "napari-pbip"
TICK_SECONDS = 0.5
"""Longest time without an event, so that a job can be cancelled while it waits for workers."""
_CONNECT_SECONDS = 10.0
_WORKER_SECONDS = 60.0
"""Time in which the first worker has to join, and after which a job whose workers have all left ends."""
_STOP_SECONDS = 60.0
"""Time that the jobs on workers get to save what is finished when they are stopped."""
_RETRIES = 2
"""How often a part is computed again that raised an error, for example of a network drive."""
_QUEUED = 2
"""Parts for each thread of a worker: one that it computes, and one that is there when it has finished that."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


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


@contextmanager
def connected(scheduler: Scheduler) -> Iterator[Cluster | None]:
    """Connect to a scheduler while the block runs, or start processes of this machine that end with the block.

    Parameters
    ----------
    scheduler
        ``local:4`` for four processes, the address of a scheduler, such as ``tcp://node1:8786``, or a client, which
        stays open; None gives None.

    Raises
    ------
    ClusterError
        If dask.distributed is not installed, no scheduler answers, it has no workers, or a worker has this package not
        or in another version.
    """
    if scheduler is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterError(
            "Work on several processes or machines needs another library; run `pip install napari-pbip[distributed]`, "
            "or leave `scheduler` out."
        ) from error
    if isinstance(scheduler, Client):
        yield Cluster(scheduler)
    elif scheduler.startswith("local:"):
        with _local(int(scheduler.removeprefix("local:"))) as client:
            yield Cluster(client)
    else:
        try:
            client = Client(scheduler, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"No scheduler answers at {scheduler}; start one with `dask scheduler`, or correct `scheduler`."
            ) from error
        try:
            yield Cluster(client)
        finally:
            _close(client)


@contextmanager
def _local(count: int) -> Iterator[Client]:
    """Start processes of this machine, which share its cores."""
    from distributed import Client, LocalCluster

    cores = os.cpu_count() or 1
    shared = {name: os.environ.get(name, str(max(1, cores // count))) for name in _THREADS}
    try:
        cluster = LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # a free port; dask serves one in any case
            memory_limit=0,  # dask would restart workers that hold a network on a machine with little memory
            silence_logs=logging.CRITICAL,
            env=shared,
        )
    except RuntimeError as error:
        raise ClusterError(
            f"The processes of local:{count} cannot be started ({error}); in a script of your own, start the job below "
            '`if __name__ == "__main__":`, because each of them imports the script.'
        ) from error
    with cluster:
        client = Client(cluster, set_as_default=False)
        try:
            yield client
        finally:
            _close(client)


def _close(client: Client) -> None:
    with suppress(OSError):  # the scheduler has ended
        client.close()


class Cluster:
    """The workers of a scheduler, each of which was found to have this version of the package.

    Parameters
    ----------
    client
        A client of the scheduler.

    Raises
    ------
    ClusterError
        If there are no workers, or one has this package not or in another version.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self._threads, self._looked, self._seen = 0, 0.0, time.monotonic()
        self.name = str(client.scheduler.address) if client.scheduler else "the scheduler"
        try:
            client.wait_for_workers(1, timeout=_WORKER_SECONDS)
        except TimeoutError as error:
            raise ClusterError(
                f"No worker has joined the scheduler at {self.name}; start some with `dask worker {self.name}`."
            ) from error
        self._require_this_version()

    def _require_this_version(self) -> None:
        here = version(PACKAGE)
        # a function of the standard library, which a worker without this package can call
        for worker, there in self.client.run(version, PACKAGE, on_error="return").items():
            if isinstance(there, PackageNotFoundError):
                raise ClusterError(f"The worker {worker} does not have {PACKAGE}; install version {here} there.")
            if there != here:
                raise ClusterError(
                    f"The worker {worker} has {PACKAGE} {there}, and this is {here}; install one version everywhere."
                )

    @property
    def threads(self) -> int:
        """Number of parts that the workers compute at the same time."""
        if time.monotonic() - self._looked > 4 * TICK_SECONDS:
            with self._lost():
                self._threads = sum(self.client.nthreads().values())
            self._looked = time.monotonic()
        return self._threads

    def results(self, work: Callable[[In], Out], items: Iterable[In]) -> Generator[tuple[int, Out] | None, None, None]:
        """Compute a function of items on the workers.

        Items are taken from the iterable as workers become free, at most two ahead of each thread.

        Parameters
        ----------
        work
            A function of a module of this package, or a ``functools.partial`` of one.
        items
            The items, which can be pickled.

        Yields
        ------
        tuple or None
            Number and result of an item, as soon as it is there; None if nothing was for half a second.

        Raises
        ------
        ClusterError
            If the scheduler or all workers are lost, or workers died of an item.
        PbipError
            That the function raises.
        """
        with closing(self._submitted(work, items, ahead=_QUEUED, retries=_RETRIES)) as submitted:
            for found in submitted:
                yield None if found is None else (found[0], self._result(found[1]))

    def jobs(self, make: Make[In], items: Iterable[In]) -> Generator[Outcome | None, None, None]:
        """Run a job for each item on the workers, as many at a time as they have threads.

        Parameters
        ----------
        make
            A function of a module of this package, or a ``functools.partial`` of one.
        items
            The items, which can be pickled.

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
        stop = Flag(topic, client=self.client)

        def events() -> Iterator[Outcome]:
            with suppress(Empty):
                while True:
                    number, plain = told.get_nowait()
                    if number not in ended:
                        yield number, _from_plain(plain)

        self.client.subscribe_topic(topic, lambda message: told.put(message[1]))
        try:
            submitted = self._submitted(
                partial(_run, make, topic), enumerate(items), ahead=1, retries=0, at_end=lambda: self._stop(stop)
            )
            with closing(submitted):
                for found in submitted:
                    some = False
                    for outcome in events():
                        some = True
                        yield outcome
                    if found is not None:
                        number, future = found
                        ended.add(number)
                        yield number, self._ended(future)
                    elif not some:
                        yield None
        finally:
            with suppress(OSError, ValueError, RuntimeError):  # the scheduler is lost
                self.client.unsubscribe_topic(topic)

    def _submitted(
        self,
        work: Callable[[In], object],
        items: Iterable[In],
        *,
        ahead: int,
        retries: int,
        at_end: Callable[[], None] = lambda: None,
    ) -> Generator[tuple[int, Future] | None, None, None]:
        """Submit items as workers take them; yield number and future of each that is done, or None for a while."""
        done: SimpleQueue[Future] = SimpleQueue()
        waiting: dict[str, tuple[int, Future]] = {}
        numbered = enumerate(items)
        following = next(numbered, None)
        try:
            while waiting or following is not None:
                while following is not None and len(waiting) < max(1, ahead * self.threads):
                    number, item = following
                    future = self.client.submit(work, item, pure=False, retries=retries)
                    waiting[future.key] = number, future
                    future.add_done_callback(done.put)
                    following = next(numbered, None)
                try:
                    future = done.get(timeout=TICK_SECONDS)
                except Empty:
                    self._require_workers()
                    yield None
                else:
                    yield waiting.pop(future.key)
        finally:
            if waiting:
                at_end()
                self._end([future for _, future in waiting.values()])

    def _stop(self, stop: Any) -> None:
        with suppress(OSError, RuntimeError, ValueError):
            stop.set()

    def _end(self, futures: list[Future]) -> None:
        """Take back what no worker has begun, and wait until what is running has ended."""
        from distributed import wait

        with suppress(OSError, RuntimeError, ValueError):  # the scheduler is lost
            begun = {key for keys in self.client.processing().values() for key in keys}
            self.client.cancel([future for future in futures if future.key not in begun])
            wait([future for future in futures if future.key in begun], timeout=_STOP_SECONDS)

    def _result(self, future: Future) -> Any:
        """Return the result of a future that is done."""
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        try:
            return future.result()
        except FutureCancelledError as error:
            raise self._gone() from error
        except KilledWorker as error:
            raise ClusterError(
                f"Workers of {self.name} ended several times while they computed the same part, in most cases for want "
                "of memory; look at their logs, and start fewer on a machine, or use a smaller batch size."
            ) from error
        except ModuleNotFoundError as error:
            raise ClusterError(
                f"A worker of {self.name} lacks the Python package {error.name!r}; install {PACKAGE} {version(PACKAGE)}"
                " on all machines."
            ) from error

    def _ended(self, future: Future) -> Ended:
        """Return how a job ended; raises ClusterError if that is the fault of the cluster."""
        try:
            ended: Ended = self._result(future)
        except ClusterError as error:
            if future.status == "error":  # of this job only
                return Ended(error=str(error))
            raise
        return ended

    def _require_workers(self) -> None:
        now = time.monotonic()
        if self.threads:
            self._seen = now
        elif now - self._seen > _WORKER_SECONDS:
            raise ClusterError(
                f"All workers of {self.name} have left; what is finished is kept. Start some with `dask worker "
                f"{self.name}`, and resume the job."
            )

    @contextmanager
    def _lost(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # distributed raises RuntimeError for a client that was closed
            raise self._gone() from error

    def _gone(self) -> ClusterError:
        return ClusterError(
            f"The scheduler at {self.name} has ended or can no longer be reached; what is finished is kept. Start it "
            "again, and resume the job."
        )


def require_seen(*paths: Path) -> None:
    """Check, on a worker, that files and folders of the job are there.

    Raises
    ------
    ClusterError
        If one is not.
    """
    for path in paths:
        if not path.exists():
            from distributed import get_worker

            raise ClusterError(
                f"The worker {get_worker().address} does not see {path}; use a folder that all machines have under the "
                "same path."
            )


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
