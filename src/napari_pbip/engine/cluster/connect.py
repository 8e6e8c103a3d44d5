"""Connecting to a scheduler, or starting processes of this machine."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from napari_pbip.engine.cluster.workers import Cluster
from napari_pbip.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client

Scheduler: TypeAlias = "str | Client | None"
"""Where work is done: ``local:4``, the address of a scheduler, an open client of one, or None for this process."""

_CONNECT_SECONDS = 10.0
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


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
        If dask.distributed is not installed, no scheduler answers, its certificates are not configured, it has no
        workers, or a worker has this package not or in another version.
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
        _require_answer(scheduler)
        try:
            client = Client(scheduler, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:  # it has ended since
            raise _no_answer(scheduler) from error
        try:
            yield Cluster(client)
        finally:
            _close(client)


def _require_answer(address: str) -> None:
    """Check that a scheduler answers at an address; a client would wait for ever for a program that is none."""
    from distributed.comm import connect
    from distributed.security import Security

    security = Security().get_connection_args("client")
    if address.startswith("tls:") and security.get("ssl_context") is None:
        raise ClusterError(
            f"The scheduler at {address} asks for certificates, and dask has none here; configure them "
            "(https://distributed.dask.org/en/stable/tls.html)."
        )

    async def ask() -> None:
        comm = await connect(address, timeout=_CONNECT_SECONDS, **security)
        try:
            await comm.write({"op": "identity", "reply": True})
            who: Any = await comm.read()
        finally:
            comm.abort()
        if who.get("type") != "Scheduler":  # but a worker, for example
            raise ValueError(f"it is {who.get('type')}")

    try:
        with ThreadPoolExecutor(1) as other:  # a notebook has a loop in this thread
            other.submit(asyncio.run, asyncio.wait_for(ask(), _CONNECT_SECONDS)).result()
    except Exception as error:  # distributed raises errors of many kinds, also for what a web server answers
        raise _no_answer(address) from error


def _no_answer(address: str) -> ClusterError:
    return ClusterError(
        f"No scheduler answers at {address}; start one with `dask scheduler`, or correct `scheduler`: it is the "
        "address that dask writes after `Scheduler at`, not that of the dashboard or of a worker."
    )


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
