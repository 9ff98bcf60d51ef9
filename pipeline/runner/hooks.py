"""A run's events told to other programs: to a command's standard input and to a webhook.

A hook never holds up or fails a run: events wait in a queue of one entry a row, deliveries have a time limit
and are tried again, and what is not delivered `DRAIN_LIMIT_S` after the run's end is given up, with a
warning. A receiver may see an event twice (the same `delivery`) and has to expect that.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shlex
import subprocess
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, Protocol

import aiohttp
import anyio
from yarl import URL

from pipeline import system
from pipeline.backoff import RetryPolicy, backoff_s
from pipeline.errors import UsageError
from pipeline.events import Event, Level, Topic
from pipeline.model import State
from pipeline.net.public_resolver import PrivateAddressError, PublicResolver, reject_private_literal
from pipeline.results.csv_rows import iso
from pipeline.results.rows import row_of
from pipeline.results.run_log import Redactor
from pipeline.runner.credentials import KEY_VARIABLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from pipeline.batch.paths import BatchPaths
    from pipeline.batch.request import RunRequest
    from pipeline.events import Observer
    from pipeline.model import Record
    from pipeline.runner.summary import RunSummary

SECRET_VARIABLE: Final = "VEOBATCH_WEBHOOK_SECRET"  # noqa: S105 - the variable's name
SIGNATURE_HEADER: Final = "X-Veobatch-Signature"
DRAIN_LIMIT_S: Final = 30.0
DELIVERY_LIMIT_S: Final = 10.0
COMMAND_LIMIT_S: Final = 60.0
_POLICY: Final = RetryPolicy(max_rejections=5, first_wait_s=1.0, max_wait_s=60.0)
_ENDED: Final = frozenset({State.DONE, State.FAILED})


class DeliveryError(Exception):
    """An event was not delivered; `final` when trying again cannot help."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class Target(Protocol):
    """Where events go."""

    option: str

    async def deliver(self, event: Mapping[str, Any], body: bytes) -> None:
        """Deliver one event, `body` in JSON. Raises `DeliveryError`."""


def sign(body: bytes, secret: str, at: int) -> str:
    """Return the signature's header: the time, and the HMAC-SHA256 of `<time>.<body>` in hexadecimal."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


class Webhook:
    """POSTs events to a URL. Redirects are not followed, and private addresses are refused unless allowed."""

    option = "--webhook"

    def __init__(self, url: str, secret: str, *, allow_private: bool = False) -> None:
        """Raises `UsageError` for a URL that cannot be used, without showing it: it may hold a token."""
        try:
            self._url = URL(url)
        except ValueError:
            self._url = URL()
        if self._url.scheme not in ("http", "https") or not self._url.host:
            raise UsageError("--webhook takes an address such as https://example.com/hook")
        try:
            if not allow_private:
                reject_private_literal(self._url.host)
        except PrivateAddressError as error:
            raise UsageError(f"--webhook: {error}: allow it with --allow-private-webhook") from error
        self._secret, self._allow_private = secret, allow_private

    async def deliver(self, event: Mapping[str, Any], body: bytes) -> None:
        headers = {"Content-Type": "application/json", "X-Veobatch-Delivery": str(event["delivery"])}
        if self._secret:
            headers[SIGNATURE_HEADER] = sign(body, self._secret, int(system.wall()))
        resolver = None if self._allow_private else PublicResolver()
        timeout = aiohttp.ClientTimeout(total=DELIVERY_LIMIT_S)
        try:
            connector = aiohttp.TCPConnector(resolver=resolver)
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                posting = session.post(self._url, data=body, headers=headers, allow_redirects=False)
                async with posting as response:
                    code = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, PrivateAddressError) else None
            raise DeliveryError(str(cause) if cause else type(error).__name__, final=bool(cause)) from error
        if not 200 <= code < 300:
            raise DeliveryError(f"answered {code}", final=400 <= code < 500 and code not in (408, 425, 429))


class CommandHook:
    """Runs a command for each event, with the event on its standard input. No shell, and never the key."""

    option = "--on-done"

    def __init__(self, command: str) -> None:
        """Raises `UsageError` for a command that cannot be split into words."""
        try:
            self._argv = shlex.split(command, posix=os.name != "nt")
        except ValueError as error:
            raise UsageError(f"--on-done: {error}") from error
        if not self._argv:
            raise UsageError("--on-done takes a command, such as ./done.sh")

    async def deliver(self, event: Mapping[str, Any], body: bytes) -> None:
        row = event.get("row") or {}
        secrets = {*KEY_VARIABLES, SECRET_VARIABLE}
        environ = {name: value for name, value in os.environ.items() if name not in secrets}
        environ |= {
            "VEOBATCH_EVENT": str(event["event"]),
            "VEOBATCH_ID": str(row.get("id", "")),
            "VEOBATCH_STATUS": str(row.get("status", "")),
            "VEOBATCH_VIDEO": str(row.get("video_path") or ""),
        }
        try:
            with anyio.fail_after(COMMAND_LIMIT_S):
                ended = await anyio.run_process(
                    self._argv, input=body, env=environ, check=False, stdout=subprocess.DEVNULL
                )
        except TimeoutError as error:
            raise DeliveryError(f"still ran after {COMMAND_LIMIT_S:.0f} s", final=True) from error
        except OSError as error:
            raise DeliveryError(error.strerror or str(error), final=True) from error
        if ended.returncode:
            raise DeliveryError(f"exit code {ended.returncode}", final=True)


def make_targets(request: RunRequest, environ: Mapping[str, str]) -> list[Target]:
    """Return where a run's events go. Raises `UsageError` for what cannot be used."""
    targets: list[Target] = [CommandHook(request.on_done)] if request.on_done else []
    if request.webhook:
        secret, private = environ.get(SECRET_VARIABLE, ""), request.allow_private_webhook
        targets.append(Webhook(request.webhook, secret, allow_private=private))
    return targets


class Hooks:
    """An observer that notices rows that end, and the tasks that deliver that."""

    def __init__(
        self, targets: Sequence[Target], request: RunRequest, paths: BatchPaths, secret: str
    ) -> None:
        """`secret` is the key, which no event may hold."""
        self._queues: list[tuple[Target, dict[str, Mapping[str, Any]]]] = [(one, {}) for one in targets]
        self._request, self._paths = request, paths
        self._redact = Redactor([secret])
        self._run_id = system.token_hex(8)
        self._wake = anyio.Event()
        self._warned: set[str] = set()
        self.observer: Observer | None = None
        """Who is told of deliveries that failed."""

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
        at = iso(system.wall())
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
            except DeliveryError as error:
                if error.final or attempt == _POLICY.max_rejections:
                    self._warn(target.option, f"{target.option} failed: {error}; the run goes on")
                    return
                await anyio.sleep(backoff_s(_POLICY, attempt))
            else:
                return

    def _warn(self, kind: str, message: str) -> None:
        """Warn of each kind of trouble once; the log has the others."""
        level = Level.DEBUG if kind in self._warned else Level.WARNING
        self._warned.add(kind)
        if self.observer is not None:
            self.observer.on_event(Event(Topic.NOTE, message, level))


def _iso(value: datetime) -> str:
    return iso(value.timestamp())
