"""Ray: the only file that knows it. Actors and their ends, a cluster that is there or one made here.

https://docs.ray.io/en/latest/ray-core/actors.html
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Final

import anyio

from pipeline.cluster.account import Account
from pipeline.cluster.worker import Worker
from pipeline.errors import StopReason, StopRun, UsageError, VeobatchError

try:
    import ray
    from ray import exceptions
except ImportError as error:
    raise UsageError("--engine ray needs one more package: pip install 'veobatch[ray]'") from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.cluster.job import ClusterJob, Leaving, Reply, Report

NAMESPACE: Final = "veobatch"
STORE_BYTES: Final = 100 * 1024**2
"""Nothing large passes through Ray's object store: rows come from the ledger, videos from the CDN."""


class RayLine:
    """A worker's way to the account's actor."""

    def __init__(self, account: Any) -> None:
        self._account = account

    async def join(self, worker: str) -> dict[str, Any]:
        known: dict[str, Any] = await self._account.join.remote(worker)
        return known

    async def exchange(self, report: Report) -> Reply:
        reply: Reply = await self._account.exchange.remote(report)
        return reply

    async def leave(self, leaving: Leaving) -> None:
        await self._account.leave.remote(leaving)


class WorkerProcess:
    """A worker in a process of its own, which Ray gives to it."""

    def live(self, name: str, job: ClusterJob, account: Any) -> tuple[StopReason, str] | None:
        """Work to the end; return what made it impossible, if anything did."""
        try:
            anyio.run(Worker(name, job, RayLine(account)).live)
        except StopRun as trouble:
            return trouble.reason, str(trouble)
        except VeobatchError as trouble:
            return StopReason.UNFINISHED, str(trouble)
        return None


def start(address: str | None, workers: int) -> None:
    """Join the cluster at `address` (`auto`: the one that this machine belongs to), or start one here.

    Raises `UsageError` when there is none.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    logging.getLogger("ray").setLevel(logging.ERROR)
    common: dict[str, Any] = {
        "namespace": NAMESPACE,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": False,
    }
    try:
        if address is None:
            ray.init(
                num_cpus=workers + 1,
                object_store_memory=STORE_BYTES,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                **common,
            )
        else:
            ray.init(address=address, **common)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(f"--engine ray: {words(error)}") from error


def new_account(name: str, job: ClusterJob, epoch: int, orphans: frozenset[str]) -> Any:
    """Start the one account of an epoch, known in the cluster by `name`."""
    made = ray.remote(Account).options(name=name, num_cpus=0, max_restarts=0)
    return made.remote(job, epoch, orphans)


def new_worker() -> Any:
    """Start a process for a worker, wherever the cluster has room; the driver replaces it, not Ray."""
    made = ray.remote(WorkerProcess).options(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")
    return made.remote()


def stop(account: Any, workers: Sequence[Any]) -> None:
    """End whoever is still there, and leave the cluster; one that was started here ends."""
    for actor in (*workers, *([] if account is None else [account])):
        ray.kill(actor)
    ray.shutdown()


def died() -> type[Exception]:
    """The error of a call to an actor that is no more."""
    return exceptions.RayActorError


def lost() -> type[Exception]:
    """The errors of calls to the account when it is no more."""
    return exceptions.RayError


def words(error: Exception) -> str:
    """Return the first line of what Ray says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
