"""The patches by which the package's cluster and its PostgreSQL ledger live in the world."""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import psycopg

import pipeline.cluster.driver
import pipeline.cluster.ray_client
import pipeline.cluster.record_view
import pipeline.cluster.worker
import pipeline.ledger.backend
import pipeline.ledger.postgres
import pipeline.ledger.writer
from pipeline.storage.local import LocalStore
from tests.simulation import scheduler
from tests.simulation.cdn import CdnSession
from tests.simulation.cluster.green import QUEUE, THREADING, TIME
from tests.simulation.cluster.server import compile_statements
from tests.simulation.network import SimApi
from tests.simulation.posix import SimPath

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.simulation.cluster.world import ClusterWorld


class WorkerApi(SimApi):
    """The client as a worker makes it."""

    def __init__(self, _: str, key: Any, *, may_create: Callable[[], bool], **options: Any) -> None:
        super().__init__(scheduler.running(), key)
        self._may_create = may_create


class SharedStore(LocalStore):
    """A folder that all machines see."""

    def __init__(self, root: str) -> None:
        path: Any = SimPath(root)
        super().__init__(path)


@asynccontextmanager
async def _open_session() -> AsyncIterator[CdnSession]:
    yield CdnSession(scheduler.running())


def cluster_patches(world: ClusterWorld) -> list[tuple[Any, str, Any]]:
    """Return what stands in for the system: (module, name, value)."""
    driver, worker = pipeline.cluster.driver, pipeline.cluster.worker
    ray_client, ray = pipeline.cluster.ray_client, world.ray
    # Four messages a second would be most of a world's steps.
    beat_s = world.chance.stream("beat").choice((0.5, 2.0, 5.0, 5.0))
    return [
        (psycopg, "connect", world.connect),
        (pipeline.ledger.postgres, "compile_statements", compile_statements),
        (pipeline.ledger.postgres, "threading", THREADING),
        (pipeline.ledger.postgres, "time", TIME),
        (pipeline.ledger.backend, "threading", THREADING),
        (pipeline.ledger.writer, "threading", THREADING),
        (pipeline.ledger.writer, "queue", QUEUE),
        (driver, "ray_backend", ray),
        (driver, "ray_client", ray),
        (ray_client, "require_ray", ray.require_ray),
        (ray_client, "actor_error_type", ray.actor_error_type),
        (ray_client, "error_summary", ray.error_summary),
        (driver, "SNAPSHOT_INTERVAL_S", beat_s),
        (pipeline.cluster.record_view, "CHECK_INTERVAL_S", beat_s),
        (worker, "MAX_HEARTBEAT_S", beat_s),
        (worker, "HEARTBEAT_INTERVALS_WHEN_WAITING", 0.1 * beat_s),
        (worker, "Api", WorkerApi),
        (worker, "open_session", _open_session),
        (worker, "open_store", SharedStore),
        (worker, "TemporaryDirectory", lambda **_: nullcontext("/pictures")),
        (pipeline.storage.files, "_host_tag", lambda: scheduler.running().machine.name),
    ]
