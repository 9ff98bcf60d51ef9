"""Calls to the coordinator's actor, whether the cluster is still there, and what an error of Ray means."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import anyio
from anyio import to_thread

from pipeline.cluster.messages import CoordinatorLost
from pipeline.errors import StopReason, StopRun, UsageError

if TYPE_CHECKING:
    from pipeline.cluster.messages import FinalReport, Heartbeat, HeartbeatReply, StatusSnapshot
    from pipeline.events import Event

START_CHECK_S: Final = 5.0
"""How long the coordinator may take to start before Ray itself is checked."""


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


CONNECT_TIMEOUT_S: Final = 5.0
"""How long the head of a cluster may take to accept a connection. Ray itself would try for minutes."""


def check_reachable(address: str) -> None:
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


def require_ray() -> None:
    """Raise `StopRun` when the cluster's head is gone, or what of it was on this machine."""
    import ray

    here = ray.get_runtime_context()
    try:
        check_reachable(here.gcs_address)
    except UsageError as error:
        raise StopRun(StopReason.UNFINISHED, f"the Ray cluster has lost its head: {error}") from error
    nodes: Any = ray.nodes  # it has no types
    if not any(node["Alive"] and node["NodeID"] == here.get_node_id() for node in nodes()):
        raise StopRun(StopReason.UNFINISHED, "Ray has lost this machine: run the command again")
