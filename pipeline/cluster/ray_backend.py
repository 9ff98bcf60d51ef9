"""Ray: the only file that knows it. Actors and their ends, a cluster that is there or one made here.

Ray reads much of its environment while it is imported, so that it is imported when it is started.

https://docs.ray.io/en/latest/ray-core/actors.html
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import anyio
from anyio import to_thread

from pipeline.cluster.coordinator import Coordinator
from pipeline.cluster.messages import CoordinatorLost
from pipeline.cluster.temp_folders import make_temp_folder, remove_temp_folders
from pipeline.cluster.worker import ClusterWorker
from pipeline.errors import StopReason, StopRun, UsageError, VeobatchError
from pipeline.extras import missing_extra

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.cluster.messages import (
        ClusterConfig,
        FinalReport,
        Heartbeat,
        HeartbeatReply,
        StatusSnapshot,
    )
    from pipeline.events import Event

NAMESPACE: Final = "veobatch"
OBJECT_STORE_BYTES: Final = 100 * 1024**2
"""Nothing large passes through Ray's object store: rows come from the ledger, videos from the CDN."""

CONNECT_TIMEOUT_S: Final = 5.0
"""How long the head of a cluster may take to accept a connection. Ray itself would try for minutes."""

START_CHECK_S: Final = 5.0
"""How long the coordinator may take to start before Ray itself is checked."""

HEAD_RECONNECT_TIMEOUT_S: Final = 7 * 24 * 3600
"""How long processes may go on without the head of the cluster."""

if find_spec("ray") is None:
    raise missing_extra("--engine ray", "ray")


class RayCoordinatorClient:
    """Calls the coordinator's actor. Each call raises `CoordinatorLost` when it is gone."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    async def open(self) -> None:
        """Wait until the coordinator has a process and the ledger. Raises `StopRun` when it cannot."""
        begun = self.actor.open.remote()
        while True:
            with anyio.move_on_after(START_CHECK_S):
                try:
                    await begun
                except actor_error_type() as error:
                    raise CoordinatorLost(error_summary(error)) from error
                return
            await to_thread.run_sync(require_ray)

    async def join(self, worker: str) -> dict[str, Any]:
        known: dict[str, Any] = await self._call("join", worker)
        return known

    async def heartbeat(self, report: Heartbeat) -> HeartbeatReply:
        reply: HeartbeatReply = await self._call("heartbeat", report)
        return reply

    async def leave(self, final_report: FinalReport) -> None:
        await self._call("leave", final_report)

    async def report_event(self, event: Event) -> None:
        await self._call("report_event", event)

    async def take_snapshot(self) -> StatusSnapshot:
        snapshot: StatusSnapshot = await self._call("take_snapshot")
        return snapshot

    async def worker_died(self, worker: str) -> None:
        await self._call("worker_died", worker)

    async def stop_submitting(self, reason: StopReason, message: str) -> None:
        await self._call("stop_submitting", reason, message)

    async def interrupt(self, message: str) -> None:
        await self._call("interrupt", message)

    async def learned_durations(self) -> dict[str, Any]:
        known: dict[str, Any] = await self._call("learned_durations")
        return known

    async def close(self) -> None:
        await self._call("close")

    def call_nowait(self, method: str, *args: object, **options: object) -> None:
        """Call without waiting for an answer."""
        getattr(self.actor, method).remote(*args, **options)

    async def _call(self, method: str, *args: object) -> Any:
        try:
            return await getattr(self.actor, method).remote(*args)
        except actor_error_type() as error:
            raise CoordinatorLost(error_summary(error)) from error


class WorkerProcess:
    """A worker in a process of its own, which Ray gives to it."""

    def run(self, name: str, config: ClusterConfig, coordinator: Any) -> tuple[StopReason, str] | None:
        """Work to the end; return why it could not, if something prevented it."""
        try:
            anyio.run(ClusterWorker(name, config, RayCoordinatorClient(coordinator)).run)
        except CoordinatorLost:
            return None
        except StopRun as error:
            return error.reason, str(error)
        except VeobatchError as error:
            return StopReason.UNFINISHED, str(error)
        return None


def start_or_join(address: str | None, workers: int) -> None:
    """Join the cluster at `address` (`auto`: the one that this machine belongs to), or start one here.

    One that is started here listens on loopback only, and keeps its files where no other user can read them.
    Raises `UsageError` when there is none, or none can be started.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray prints on standard output when a machine of the cluster is lost, which may be somebody's JSON.
    os.environ["RAY_DEDUP_LOGS"] = "1"
    os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."
    # A process whose cluster's head is gone for longer is ended by Ray without a message of ours.
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(HEAD_RECONNECT_TIMEOUT_S))
    if address is None:
        _start_local(workers)
    else:
        _join_cluster(address)


def _start_local(workers: int) -> None:
    # Despite its name it is read everywhere: without it Ray listens on all of the machine's addresses.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    options: dict[str, Any] = {}
    if not os.environ.get("RAY_TMPDIR"):
        options["_temp_dir"] = str(make_temp_folder() / "ray")  # Ray opens this one to everybody
    try:
        _init(
            address="local",  # else Ray joins one that was started on this machine, whoever's it is
            num_cpus=workers + 1,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            **options,
        )
    except (OSError, ValueError, RuntimeError) as error:
        remove_temp_folders()
        raise UsageError(f"--engine ray: Ray cannot be started: {error_summary(error)}") from error


def _join_cluster(address: str) -> None:
    if "://" in address:
        raise UsageError(
            f"--ray-address {address}: run the command on a machine of the cluster, with auto or HOST:PORT"
        )
    if address != "auto":
        _check_reachable(address)
    # Something listens there: if it is no Ray, or wants a token, twenty attempts change nothing.
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")
    os.environ.setdefault("RAY_py_gcs_connect_timeout_s", "5")
    os.environ.setdefault("RAY_gcs_rpc_server_connect_timeout_s", "2")
    try:
        _init(address=address)
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"--ray-address {address}: {error_summary(error)}\n"
            "Start one with `ray start --head`, or leave --ray-address out to start one for this run only; "
            "for a cluster that asks for a token, export RAY_AUTH_MODE=token."
        ) from error


def _check_reachable(address: str) -> None:
    """Raise `UsageError` unless something listens at `address`, HOST:PORT."""
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise UsageError(f"Ray's address {address}: give HOST:PORT, such as 10.0.0.1:6379, or auto")
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        detail = error.strerror or type(error).__name__
        raise UsageError(f"Ray's address {address}: nothing answers there ({detail})") from error


def _init(**options: Any) -> None:
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    ray.init(
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
        **options,
    )


def reclaim_signals() -> None:
    """Give Python the signals back that Ray took when it started; call it in the main thread.

    Ray's own handler of SIGTERM prints a stack and aborts the process.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.getsignal(number))
        signal.siginterrupt(number, False)


def start_coordinator(
    name: str, config: ClusterConfig, epoch: int, orphans: frozenset[str]
) -> RayCoordinatorClient:
    """Start the one coordinator of an epoch, known in the cluster by `name`; return its client.

    It lives on the driver's machine: the run ends with that one anyway, and with no other. Raises `StopRun`
    when it can have no process.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    require_ray()
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    made = ray.remote(Coordinator).options(name=name, num_cpus=0, max_restarts=0, scheduling_strategy=here)
    try:
        return RayCoordinatorClient(made.remote(config, epoch, orphans))
    except actor_error_type() as error:
        raise StopRun(StopReason.UNFINISHED, f"Ray starts no process: {error_summary(error)}") from error


def require_ray() -> None:
    """Raise `StopRun` when the cluster's head is gone, or what of it was on this machine."""
    import ray

    here = ray.get_runtime_context()
    try:
        _check_reachable(here.gcs_address)
    except UsageError as error:
        raise StopRun(StopReason.UNFINISHED, f"the Ray cluster has lost its head: {error}") from error
    nodes: Any = ray.nodes  # it has no types
    if not any(node["Alive"] and node["NodeID"] == here.get_node_id() for node in nodes()):
        raise StopRun(StopReason.UNFINISHED, "Ray has lost this machine: run the command again")


def start_worker() -> Any:
    """Start a process for a worker, wherever the cluster has room; the driver replaces it, not Ray."""
    import ray

    made = ray.remote(WorkerProcess).options(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")
    return made.remote()


def kill(coordinator: RayCoordinatorClient | None, workers: Sequence[Any]) -> None:
    """Kill the processes that are still there."""
    import ray

    for actor in (*workers, *([] if coordinator is None else [coordinator.actor])):
        ray.kill(actor)


def shutdown() -> None:
    """Leave the cluster; one that was started here ends."""
    import ray

    ray.shutdown()
    remove_temp_folders()


def actor_error_type() -> type[Exception]:
    """The error of a call to a process that is gone or broken."""
    from ray.exceptions import RayError

    found: type[Exception] = RayError
    return found


def error_summary(error: Exception) -> str:
    """Return what happened, on one line: a process that is gone, or what Ray says first."""
    from ray import exceptions

    if isinstance(error, exceptions.ActorUnavailableError):
        return "it cannot be reached"
    if isinstance(error, exceptions.ActorDiedError) and not error.actor_init_failed:
        return "its process died"
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
