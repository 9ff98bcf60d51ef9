"""What the package uses of Ray, in a simulated world: actors, calls to them, and how each is lost.

A call is carried out at most once; whoever made it may learn only that its actor cannot be reached, whether
it was carried out or not (https://docs.ray.io/en/latest/ray-core/fault_tolerance/actors.html).
"""

from __future__ import annotations

import asyncio
import inspect
import pickle
from typing import TYPE_CHECKING, Any, Final

from pipeline.cluster.coordinator import Coordinator
from pipeline.cluster.messages import CoordinatorLost
from pipeline.cluster.ray_client import RayCoordinatorClient
from pipeline.cluster.worker import ClusterWorker
from pipeline.errors import StopReason, StopRun, VeobatchError
from tests.simulation import scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from pipeline.cluster.messages import ClusterConfig
    from tests.simulation.cluster.world import ClusterWorld
    from tests.simulation.machine import Process

LATE_S: Final = 40.0


class RayError(Exception):
    """A call to a process that is gone, or that cannot be reached."""


class Call:
    """A call on its way, whose future is its caller's."""

    def __init__(self, ray: Ray) -> None:
        self.caller = scheduler.running()
        self._ray = ray
        self._ended = False
        self._result: object = None
        self._error: Exception | None = None
        self._waiters: list[asyncio.Future[None]] = []

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the answer; whoever stops waiting may wait again."""
        if not self._ended:
            self._waiters.append(waiter := self.caller.loop.create_future())
            yield from waiter
        if self._error is not None:
            raise self._error
        return self._result

    def end(self, result: object = None, error: Exception | None = None, after_s: float = 0.0) -> None:
        """Let the caller have the answer, in its time."""
        self._ray.later(after_s, lambda: self._resolve(result, error))

    def _resolve(self, result: object, error: Exception | None) -> None:
        """Take the first answer; whoever waits learns it in the caller's next steps."""
        if self._ended:
            return
        self._ended, self._result, self._error = True, result, error
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()


class Method:
    """`actor.method`, whose `remote` makes a call."""

    def __init__(self, actor: Actor, name: str) -> None:
        self._actor, self._name = actor, name

    def remote(self, *args: Any, **options: Any) -> Call:
        return self._actor.call(self._name, args, options)


class Actor:
    """The coordinator's process as its callers have it."""

    def __init__(self, ray: Ray, owner: Process, make: Callable[[], Any]) -> None:
        self.ray, self.owner = ray, owner
        self.process: Process | None = None
        self.is_gone = False
        self._make = make
        self._instance: Any = None
        self._waiting: list[Callable[[], None]] = []
        self._calls: list[Call] = []

    def __getattr__(self, name: str) -> Method:
        if name.startswith("_"):
            raise AttributeError(name)
        return Method(self, name)

    async def live(self, process: Process) -> int:
        """Be there until killed."""
        self._instance = self._make()
        while self._waiting:
            self._waiting.pop(0)()
        await asyncio.Event().wait()
        return 0

    def lose(self) -> None:
        """The process is gone: whoever waits for an answer learns it soon."""
        self.is_gone = True
        for call in self._calls:
            call.end(error=RayError("its process died"), after_s=self.ray.notice_s())
        self._calls.clear()

    def call(self, name: str, args: Any, options: Any) -> Call:
        """Call a method of the actor's, with copies of what is passed."""
        ray, call = self.ray, Call(self.ray)
        kind = ray.world.chance.draw("message")
        sent = pickle.dumps((args, options))
        lost = RayError("it cannot be reached")
        if kind == "lost":
            call.end(error=lost, after_s=ray.latency_s())
        if kind == "answer lost":
            call.end(error=lost, after_s=1.0 + ray.latency_s())
        if kind != "lost":
            self._calls.append(call)
            late_s = LATE_S * ray.random.random() if kind == "late" else 0.0
            ray.later(ray.latency_s() + late_s, lambda: self._arrive(call, name, sent, kind))
        return call

    def _arrive(self, call: Call, name: str, sent: bytes, kind: str) -> None:
        if self.is_gone:
            call.end(error=RayError("its process died"))
        elif self._instance is None or self.process is None:
            self._waiting.append(lambda: self._arrive(call, name, sent, kind))
        else:
            self.process.loop.create_task(self._carry_out(call, name, sent, kind))

    async def _carry_out(self, call: Call, name: str, sent: bytes, kind: str) -> None:
        args, options = pickle.loads(sent)  # noqa: S301  # our own bytes
        result = getattr(self._instance, name)(*args, **options)
        if inspect.isawaitable(result):
            result = await result
        self._calls.remove(call)
        late_s = LATE_S * self.ray.random.random() if kind == "answer late" else 0.0
        call.end(pickle.loads(pickle.dumps(result)), after_s=self.ray.latency_s() + late_s)  # noqa: S301


class WorkerHandle:
    """A worker's process as its driver has it."""

    def __init__(self, ray: Ray, owner: Process) -> None:
        self.ray, self.owner = ray, owner
        self.process: Process | None = None
        self.is_gone = False
        self.run = self
        self._call: Call | None = None
        self._ended: tuple[StopReason, str] | None = None

    def remote(self, name: str, config: ClusterConfig, coordinator: Actor) -> Call:
        """Let the worker work, once its process has started."""
        self._call = Call(self.ray)
        copy: ClusterConfig = pickle.loads(pickle.dumps(config))  # noqa: S301  # our own bytes

        async def live(process: Process) -> int:
            await self._work(name, copy, coordinator)
            return 0

        machine = self.ray.place_worker()
        self.ray.later(self.ray.start_s(), lambda: self.ray.start(self, live, machine, f"worker {name}"))
        return self._call

    async def _work(self, name: str, config: ClusterConfig, coordinator: Actor) -> None:
        """Do what `ray_backend.WorkerProcess.run` does, in the loop that is there."""
        try:
            await ClusterWorker(name, config, RayCoordinatorClient(coordinator)).run()
        except CoordinatorLost:
            return
        except StopRun as error:
            self._ended = error.reason, str(error)
        except VeobatchError as error:
            self._ended = StopReason.UNFINISHED, str(error)

    def lose(self) -> None:
        """The process has ended, or was killed: the driver learns it."""
        self.is_gone = True
        if self._call is not None:
            killed = self.process is None or self.process.main is None or not self.process.main.done()
            error = RayError("its process died") if killed else None
            self._call.end(self._ended, error, self.ray.notice_s())


class Ray:
    """Stand in for `pipeline.cluster.ray_backend` and for the functions of `ray_client` that know Ray."""

    def __init__(self, world: ClusterWorld) -> None:
        self.world = world
        self.random = world.chance.stream("ray")
        self.actors: list[Actor | WorkerHandle] = []
        self._starts_from = 0.0

    def later(self, after_s: float, what: Callable[[], object]) -> None:
        self.world.user.loop.call_later(after_s, what)

    def latency_s(self) -> float:
        return 0.01 * self.random.random()

    def notice_s(self) -> float:
        """How long until a death is known: at once, or when a machine has not been heard of for a while."""
        return self.random.random() ** 8 * 60.0

    def start_s(self) -> float:
        """How long until an actor's process starts; without a head, none does."""
        wait_s = self.random.random() + self.random.random() ** 10 * 60.0
        return wait_s + max(0.0, self._starts_from - self.world.now)

    def lose_head(self, away_s: float) -> None:
        """Lose all actors: a node ends its own when it has not heard of the head for a while."""
        self._starts_from = self.world.now + away_s
        for actor in [actor for actor in self.actors if not actor.is_gone]:
            is_there = isinstance(actor, Actor)
            self.later(0.0 if is_there else 60.0 * self.random.random(), lambda actor=actor: self._end(actor))  # type: ignore[misc]

    def place_worker(self) -> Any:
        machines = self.world.worker_machines
        return machines[self.random.randrange(len(machines))]

    def start(self, actor: Actor | WorkerHandle, live: Any, machine: Any, name: str) -> None:
        """Start an actor's process, unless its owner is gone by now."""
        if actor.is_gone or not actor.owner.alive:
            actor.lose()
            return
        actor.process = self.world.start(live, machine)
        self.world.tell("is", actor.process.number, name)

    def on_gone(self, process: Process) -> None:
        """A process is gone: those who call it learn it, and what it owns ends, mostly at once."""
        for actor in self.actors:
            if actor.process is process:
                actor.lose()
        mine = [actor for actor in self.actors if actor.owner is process and not actor.is_gone]
        lingers = bool(mine) and self.world.chance.draw("orphans") == "linger"
        for actor in mine:
            after_s = 900.0 * self.random.random() if lingers else 3.0 * self.random.random()
            self.later(after_s, lambda actor=actor: self._end(actor))  # type: ignore[misc]

    def is_orphaned(self, process: Process) -> bool:
        """Whether a process goes on although the driver that started it is gone."""
        running = self.world.processes
        return any(actor.process is process and actor.owner not in running for actor in self.actors)

    def _end(self, actor: Actor | WorkerHandle) -> None:
        if actor.process is not None and actor.process.alive:
            self.world.kill(actor.process)
        elif not actor.is_gone:
            actor.lose()

    # What the driver and the workers call.

    def start_or_join(self, address: str | None, workers: int) -> None:
        """Ray is there."""

    def reclaim_signals(self) -> None:
        """Signals are the process's own."""

    def shutdown(self) -> None:
        """What a driver owns ends with it."""

    def start_coordinator(
        self, name: str, config: ClusterConfig, epoch: int, orphans: frozenset[str]
    ) -> RayCoordinatorClient:
        owner, made = scheduler.running(), pickle.dumps((config, epoch, orphans))
        actor = Actor(self, owner, lambda: Coordinator(*pickle.loads(made)))  # noqa: S301  # our own bytes
        self.actors.append(actor)
        self.later(self.start_s(), lambda: self.start(actor, actor.live, owner.machine, "the coordinator"))
        return RayCoordinatorClient(actor)

    def start_worker(self) -> WorkerHandle:
        handle = WorkerHandle(self, scheduler.running())
        self.actors.append(handle)
        return handle

    def kill(self, coordinator: RayCoordinatorClient | None, workers: Sequence[WorkerHandle]) -> None:
        for actor in (*workers, *([] if coordinator is None else [coordinator.actor])):
            self._end(actor)

    def require_ray(self) -> None:
        """The cluster is there."""

    def actor_error_type(self) -> type[Exception]:
        return RayError

    def error_summary(self, error: Exception) -> str:
        return str(error)
