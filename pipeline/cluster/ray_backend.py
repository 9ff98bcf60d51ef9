"""Ray: the only file that knows it. Actors and their ends, a cluster that is there or one made here.

Ray reads much of its environment while it is imported, so that it is imported when it is started.

https://docs.ray.io/en/latest/ray-core/actors.html
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import anyio
from anyio import to_thread
from filelock import FileLock, Timeout

from pipeline.cluster.coordinator import Account
from pipeline.cluster.messages import AccountLost
from pipeline.cluster.worker import Worker
from pipeline.errors import StopReason, StopRun, UsageError, VeobatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.cluster.messages import ClusterJob, Leaving, Reply, Report, Standing
    from pipeline.events import Event

NAMESPACE: Final = "veobatch"
STORE_BYTES: Final = 100 * 1024**2
"""Nothing large passes through Ray's object store: rows come from the ledger, videos from the CDN."""

KNOCK_S: Final = 5.0
"""How long the head of a cluster may take to accept a connection. Ray itself would try for minutes."""

LOOK_S: Final = 5.0
"""How long the account may take to begin before a look at what may be in its way."""

HEADLESS_S: Final = 7 * 24 * 3600
"""How long those who have each other may go on without the head of the cluster."""

SHORT_NAMES: Final = "/tmp"  # noqa: S108 - made private at once; a socket's path may have 103 characters
"""Where the folder of a Ray of our own is made: Ray puts sockets into it, under long names."""

PREFIX: Final = "veobatch-"
OWNER: Final = "owner.lock"

ABANDONED_S: Final = 600.0
"""How old a folder must be that nobody holds: Ray's helpers outlive a driver that was killed by a minute."""

if find_spec("ray") is None:
    raise UsageError("--engine ray needs one more package: pip install 'veobatch[ray]'")

_own_folder: list[Path] = []
_own_lock: list[FileLock] = []


class RayLine:
    """The way to the account's actor. Each call raises `AccountLost` when it is no more."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    async def begin(self) -> None:
        """Wait until the account has its process and the ledger. Raises `StopRun` when it can have none."""
        begun = self.actor.begin.remote()
        while True:
            with anyio.move_on_after(LOOK_S):
                try:
                    await begun
                except lost() as error:
                    raise AccountLost(words(error)) from error
                return
            await to_thread.run_sync(need_ray)

    async def join(self, worker: str) -> dict[str, Any]:
        known: dict[str, Any] = await self._ask("join", worker)
        return known

    async def exchange(self, report: Report) -> Reply:
        reply: Reply = await self._ask("exchange", report)
        return reply

    async def leave(self, leaving: Leaving) -> None:
        await self._ask("leave", leaving)

    async def say(self, event: Event) -> None:
        await self._ask("say", event)

    async def standing(self) -> Standing:
        standing: Standing = await self._ask("standing")
        return standing

    async def gone(self, worker: str) -> None:
        await self._ask("gone", worker)

    async def halt(self, reason: StopReason, message: str) -> None:
        await self._ask("halt", reason, message)

    async def interrupt(self, message: str) -> None:
        await self._ask("interrupt", message)

    async def learned(self) -> dict[str, Any]:
        known: dict[str, Any] = await self._ask("learned")
        return known

    async def end(self) -> None:
        await self._ask("end")

    def tell(self, method: str, *args: object, **options: object) -> None:
        """Call without waiting for an answer."""
        getattr(self.actor, method).remote(*args, **options)

    async def _ask(self, method: str, *args: object) -> Any:
        try:
            return await getattr(self.actor, method).remote(*args)
        except lost() as error:
            raise AccountLost(words(error)) from error


class WorkerProcess:
    """A worker in a process of its own, which Ray gives to it."""

    def live(self, name: str, job: ClusterJob, account: Any) -> tuple[StopReason, str] | None:
        """Work to the end; return what made it impossible, if anything did."""
        try:
            anyio.run(Worker(name, job, RayLine(account)).live)
        except AccountLost:
            return None
        except StopRun as trouble:
            return trouble.reason, str(trouble)
        except VeobatchError as trouble:
            return StopReason.UNFINISHED, str(trouble)
        return None


def start(address: str | None, workers: int) -> None:
    """Join the cluster at `address` (`auto`: the one that this machine belongs to), or start one here.

    One that is started here listens on loopback only, and keeps its files where no other user can read them.
    Raises `UsageError` when there is none, or none can be started.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray prints on standard output when a machine of the cluster is lost, which may be somebody's JSON.
    os.environ["RAY_DEDUP_LOGS"] = "1"
    os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."
    # A process whose cluster's head is gone for longer ends at once, without a word. Ours has one to say.
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(HEADLESS_S))
    if address is None:
        _start_here(workers)
    else:
        _join(address)


def _start_here(workers: int) -> None:
    # Despite its name it is read everywhere: without it Ray listens on all of the machine's addresses.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    options: dict[str, Any] = {}
    if not os.environ.get("RAY_TMPDIR"):
        _sweep()
        _own_folder.append(Path(tempfile.mkdtemp(prefix=PREFIX, dir=SHORT_NAMES)))
        _own_lock.append(FileLock(_own_folder[0] / OWNER))
        _own_lock[0].acquire(timeout=0)
        options["_temp_dir"] = str(_own_folder[0] / "ray")  # Ray opens this one to everybody
    try:
        _init(
            address="local",  # else Ray joins one that was started on this machine, whoever's it is
            num_cpus=workers + 1,
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            **options,
        )
    except (OSError, ValueError, RuntimeError) as error:
        _tidy()
        raise UsageError(f"--engine ray: Ray cannot be started: {words(error)}") from error


def _join(address: str) -> None:
    if "://" in address:
        raise UsageError(
            f"--ray-address {address}: run the command on a machine of the cluster, with auto or HOST:PORT"
        )
    if address != "auto":
        _knock(address)
    # Past the knock, what is there is no Ray, or asks for a token: neither changes in twenty attempts.
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")
    os.environ.setdefault("RAY_py_gcs_connect_timeout_s", "5")
    os.environ.setdefault("RAY_gcs_rpc_server_connect_timeout_s", "2")
    try:
        _init(address=address)
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"--ray-address {address}: {words(error)}\n"
            "Start one with `ray start --head`, or leave --ray-address out to start one for this run only; "
            "for a cluster that asks for a token, export RAY_AUTH_MODE=token."
        ) from error


def _knock(address: str) -> None:
    """Raise `UsageError` unless something listens at `address`, HOST:PORT."""
    try:
        place = urlsplit(f"//{address}")
        host, port = place.hostname, place.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise UsageError(f"Ray's address {address}: give HOST:PORT, such as 10.0.0.1:6379, or auto")
    try:
        socket.create_connection((host, port), KNOCK_S).close()
    except OSError as error:
        words = error.strerror or type(error).__name__
        raise UsageError(f"Ray's address {address}: nothing answers there ({words})") from error


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
    """Let Python have the signals again that Ray took while it was started; call it in the main thread.

    Ray's own handler of SIGTERM prints a stack and aborts the process.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.getsignal(number))
        signal.siginterrupt(number, False)


def new_account(name: str, job: ClusterJob, epoch: int, orphans: frozenset[str]) -> RayLine:
    """Start the one account of an epoch, known in the cluster by `name`; return the way to it.

    It lives on the driver's machine: the run ends with that one anyway, and with no other. Raises `StopRun`
    when it can have no process.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    need_ray()
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    made = ray.remote(Account).options(name=name, num_cpus=0, max_restarts=0, scheduling_strategy=here)
    try:
        return RayLine(made.remote(job, epoch, orphans))
    except lost() as error:
        raise StopRun(StopReason.UNFINISHED, f"Ray starts no process: {words(error)}") from error


def need_ray() -> None:
    """Raise `StopRun` when the cluster's head is gone, or what of it was on this machine."""
    import ray

    here = ray.get_runtime_context()
    try:
        _knock(here.gcs_address)
    except UsageError as error:
        raise StopRun(StopReason.UNFINISHED, f"the Ray cluster has lost its head: {error}") from error
    nodes: Any = ray.nodes  # it has no types
    if not any(node["Alive"] and node["NodeID"] == here.get_node_id() for node in nodes()):
        raise StopRun(StopReason.UNFINISHED, "Ray has lost this machine: run the command again")


def new_worker() -> Any:
    """Start a process for a worker, wherever the cluster has room; the driver replaces it, not Ray."""
    import ray

    made = ray.remote(WorkerProcess).options(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")
    return made.remote()


def end(account: RayLine | None, workers: Sequence[Any]) -> None:
    """End whoever is still there."""
    import ray

    for actor in (*workers, *([] if account is None else [account.actor])):
        ray.kill(actor)


def leave() -> None:
    """Leave the cluster; one that was started here ends."""
    import ray

    ray.shutdown()
    _tidy()


def _tidy() -> None:
    while _own_folder:
        shutil.rmtree(_own_folder.pop(), ignore_errors=True)
    while _own_lock:
        _own_lock.pop().release()


def _sweep() -> None:
    """Take away the folders of drivers that were killed; one that lives holds its own."""
    for folder in Path(SHORT_NAMES).glob(f"{PREFIX}*"):
        with suppress(OSError, Timeout):
            found = folder.stat()
            if found.st_uid != os.getuid() or found.st_mtime > time.time() - ABANDONED_S:
                continue
            with FileLock(folder / OWNER, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)


def lost() -> type[Exception]:
    """The error of a call to a process that is no more, or that broke."""
    from ray.exceptions import RayError

    found: type[Exception] = RayError
    return found


def words(error: Exception) -> str:
    """Return what happened, on one line: a process that is gone, or what Ray says first."""
    from ray import exceptions

    if isinstance(error, exceptions.ActorUnavailableError):
        return "it cannot be reached"
    if isinstance(error, exceptions.ActorDiedError) and not error.actor_init_failed:
        return "its process died"
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
