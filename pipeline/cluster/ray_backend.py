"""Ray, which only this file and `ray_client` know: a cluster that is there or one made here, and its
processes.

Ray reads much of its environment while it is imported, so that it is imported when it is started.

https://docs.ray.io/en/latest/ray-core/actors.html
"""

from __future__ import annotations

import logging
import os
import signal
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import anyio

from pipeline.cluster.coordinator import Coordinator
from pipeline.cluster.messages import CoordinatorLost
from pipeline.cluster.ray_client import (
    RayCoordinatorClient,
    actor_error_type,
    check_reachable,
    error_summary,
    require_ray,
)
from pipeline.cluster.temp_folders import make_temp_folder, remove_temp_folders
from pipeline.cluster.worker import ClusterWorker
from pipeline.errors import StopReason, StopRun, UsageError, VeobatchError
from pipeline.extras import missing_extra

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.cluster.messages import (
        ClusterConfig,
    )

NAMESPACE: Final = "veobatch"
OBJECT_STORE_BYTES: Final = 100 * 1024**2
"""Nothing large passes through Ray's object store: rows come from the ledger, videos from the CDN."""


HEAD_RECONNECT_TIMEOUT_S: Final = 7 * 24 * 3600
"""How long processes may go on without the head of the cluster."""

if find_spec("ray") is None:
    raise missing_extra("--engine ray", "ray")


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
    # Ray starts workers with niceness 15, for computations: beside other load ours would miss their leases.
    os.environ.setdefault("RAY_worker_niceness", "0")
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
        check_reachable(address)
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
    _end_listener()


def _end_listener() -> None:
    """End Ray's thread that prints errors of the cluster, by its next message.

    Once the head is gone it asks for messages without a pause, which takes a core for as long as the run goes
    on (Ray 2.60, `listen_error_messages`); and what it prints goes to standard output.
    """
    from ray._private.worker import global_worker

    stopped = getattr(global_worker, "threads_stopped", None)
    if stopped is not None:
        stopped.set()  # `ray.shutdown` sets it, too, and clears it when the thread has ended


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
