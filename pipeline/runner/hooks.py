"""A run's events told to other programs: to a command's standard input and to a webhook.

A hook never holds up or fails a run: events wait in a queue of one entry a row, deliveries have a time limit
and are tried again, and what is not delivered `DRAIN_LIMIT_S` after the run's end is given up, with a
warning. A receiver may see an event twice (the same `delivery`) and has to expect that.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import anyio

from pipeline import clocks
from pipeline.backoff import RetryPolicy, backoff_s
from pipeline.events import Event, Level, Topic
from pipeline.model import State
from pipeline.results.csv_rows import iso
from pipeline.results.rows import row_of
from pipeline.results.run_log import Redactor
from pipeline.runner.hook_targets import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from pipeline.batch.paths import BatchPaths
    from pipeline.batch.request import RunRequest
    from pipeline.events import Observer
    from pipeline.model import Record
    from pipeline.runner.hook_targets import Target
    from pipeline.runner.summary import RunSummary

DRAIN_LIMIT_S: Final = 30.0
_POLICY: Final = RetryPolicy(max_rejections=5, first_wait_s=1.0, max_wait_s=60.0)
_ENDED: Final = frozenset({State.DONE, State.FAILED})


class Hooks:
    """An observer that notices rows that end, and the tasks that deliver that."""

    def __init__(
        self, targets: Sequence[Target], request: RunRequest, paths: BatchPaths, secret: str
    ) -> None:
        """`secret` is the key, which no event may hold."""
        self._queues: list[tuple[Target, dict[str, Mapping[str, Any]]]] = [(one, {}) for one in targets]
        self._request, self._paths = request, paths
        self._redact = Redactor([secret])
        self._run_id = clocks.token_hex(8)
        self._wake = anyio.Event()
        self._warned: set[str] = set()
        self.observer: Observer | None = None
        """The observer to which failed deliveries are reported."""

    def on_transition(self, before: Record, after: Record) -> None:
        if after.state in _ENDED and before.state not in _ENDED:
            row = asdict(row_of(after, self._paths.output_path, sandbox=self._request.sandbox))
            shown = {name: self._plain(value) for name, value in row.items()}
            self._put(f"row:{after.key}", "row", row=shown)

    def on_event(self, event: Event) -> None:
        """Only ends are told."""

    async def keep_current(self) -> None:
        """Deliver what is due, until cancelled."""
        while True:
            await self._deliver_all()
            await self._wake.wait()

    async def finish(self, summary: RunSummary) -> None:
        """Tell the run's end after all that is still to be told, for `DRAIN_LIMIT_S` at most."""
        if not self._queues:
            return
        self._put("run", "run", summary=summary.to_json())
        with anyio.move_on_after(DRAIN_LIMIT_S):
            await self._deliver_all()
        left = sum(len(queue) for _, queue in self._queues)
        if left:
            self._warn("left", f"{left} event(s) were not delivered within {DRAIN_LIMIT_S:.0f} s")

    def _put(self, key: str, kind: str, **facts: Any) -> None:
        at = iso(clocks.wall())
        base = {
            "event": kind,
            "delivery": f"{self._run_id}:{key}",
            "at": at,
            "sandbox": self._request.sandbox,
        }
        event = {**base, "batch": self._request.manifest.stem, **facts}
        for _, queue in self._queues:
            queue[key] = event
        self._wake.set()

    def _plain(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._redact(value)
        return _iso(value) if hasattr(value, "isoformat") else value

    async def _deliver_all(self) -> None:
        self._wake = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for target, queue in self._queues:
                tasks.start_soon(self._empty, target, queue)

    async def _empty(self, target: Target, queue: dict[str, Mapping[str, Any]]) -> None:
        while queue:
            key = next(iter(queue))
            event = queue[key]
            await self._try(target, event)
            if queue.get(key) is event:
                del queue[key]

    async def _try(self, target: Target, event: Mapping[str, Any]) -> None:
        body = json.dumps(event).encode()
        for attempt in range(1, _POLICY.max_rejections + 1):
            try:
                await target.deliver(event, body)
            except Exception as error:  # whatever a hook meets, the run goes on
                final = not isinstance(error, DeliveryError) or error.final
                if final or attempt == _POLICY.max_rejections:
                    self._warn(target.option, f"{target.option} failed: {error}; the run goes on")
                    return
                await anyio.sleep(backoff_s(_POLICY, attempt))
            else:
                return

    def _warn(self, kind: str, message: str) -> None:
        """Warn of each kind of error once; the log has the others."""
        level = Level.DEBUG if kind in self._warned else Level.WARNING
        self._warned.add(kind)
        if self.observer is not None:
            self.observer.on_event(Event(Topic.NOTE, message, level))


def _iso(value: datetime) -> str:
    return iso(value.timestamp())
