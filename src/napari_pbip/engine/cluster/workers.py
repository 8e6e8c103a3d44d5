"""Functions computed by the workers of a scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from napari_pbip.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client, Future

In = TypeVar("In")
Out = TypeVar("Out")

PACKAGE = "napari-pbip"
TICK_SECONDS = 0.5
"""Longest time without an event, so that a job can be cancelled while it waits for workers."""
_WORKER_SECONDS = 60.0
"""Time in which the first worker has to join, and after which a job whose workers have all left ends."""
_STOP_SECONDS = 60.0
"""Time that the jobs on workers get to save what is finished when they are stopped."""
_RETRIES = 2
"""How often a part is computed again that raised an error, for example of a network drive."""
_QUEUED = 2
"""Parts for each thread of a worker: one that it computes, and one that is there when it has finished that."""


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
        with self._lost():
            versions = self.client.run(version, PACKAGE, on_error="return")
        for worker, there in versions.items():
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
        with closing(self.submitted(work, items, ahead=_QUEUED, retries=_RETRIES)) as submitted:
            for found in submitted:
                yield None if found is None else (found[0], self.result(found[1]))

    def submitted(
        self,
        work: Callable[[In], object],
        items: Iterable[In],
        *,
        ahead: int,
        retries: int,
        at_end: Callable[[], None] = lambda: None,
    ) -> Generator[tuple[int, Future] | None, None, None]:
        """Submit items as workers take them.

        Parameters
        ----------
        work, items
            As for :meth:`results`.
        ahead
            How many items each thread of the workers has at most: the one that it computes, and those that wait.
        retries
            How often an item is given to a worker again if the function raised an error.
        at_end
            Called before waiting for what still runs, if the generator is closed earlier or fails.

        Yields
        ------
        tuple or None
            Number and future of an item that is done; None if none was for half a second.

        Raises
        ------
        ClusterError
            If the scheduler or all workers are lost.
        """
        done: SimpleQueue[Future] = SimpleQueue()
        waiting: dict[str, tuple[int, Future]] = {}
        numbered = enumerate(items)
        following = next(numbered, None)
        try:
            while waiting or following is not None:
                while following is not None and len(waiting) < max(1, ahead * self.threads):
                    number, item = following
                    with self._lost():
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

    def _end(self, futures: list[Future]) -> None:
        """Take back what no worker has begun, and wait until what is running has ended."""
        from distributed import wait

        with suppress(OSError, RuntimeError, ValueError):  # the scheduler is lost
            begun = {key for keys in self.client.processing().values() for key in keys}
            self.client.cancel([future for future in futures if future.key not in begun])
            wait([future for future in futures if future.key in begun], timeout=_STOP_SECONDS)

    def result(self, future: Future) -> Any:
        """Return the result of a future that is done.

        Raises
        ------
        ClusterError
            If the scheduler is lost, workers died of it, or one lacks a package.
        PbipError
            That the function raised.
        """
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        try:
            return future.result()
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
        except (FutureCancelledError, OSError, RuntimeError) as error:
            if future.status == "error":  # the function raised it; otherwise the result did not get here
                raise
            raise self._gone() from error

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
        except Exception as error:
            # for a client that it has closed, distributed raises errors of several kinds
            if isinstance(error, (OSError, RuntimeError)) or self.client.status in ("closing", "closed"):
                raise self._gone() from error
            raise

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
