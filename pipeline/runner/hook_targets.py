"""Where a run's events go: a webhook, signed, and a command. How often they are tried is not theirs."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import shlex
import signal
import subprocess
import tempfile
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Protocol

import aiohttp
import anyio
from yarl import URL

from pipeline import clocks
from pipeline.batch.ledger_access import ledger_passwords, redact_password
from pipeline.errors import UsageError
from pipeline.net.http_session import make_session
from pipeline.net.proxy import proxy_for, proxy_request_options
from pipeline.net.public_resolver import (
    RESOLVING_PROXY_HOST,
    PrivateAddressError,
    PublicResolver,
    reject_private_literal,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.batch.request import RunRequest

SECRET_VARIABLE: Final = "VEOBATCH_WEBHOOK_SECRET"  # noqa: S105 - the variable's name
SIGNATURE_HEADER: Final = "X-Veobatch-Signature"
LEDGER_VARIABLE: Final = "VEOBATCH_LEDGER"
_SECRET_NAME: Final = re.compile(
    r"(?:AIML|VEOBATCH_).*(?:KEY|SECRET|PASSWORD|TOKEN).*|PGPASSWORD", re.IGNORECASE
)
_MIN_FOUND_CHARS: Final = 8
"""A shorter secret is found as a whole value only: it may be part of any."""
DELIVERY_LIMIT_S: Final = 10.0
COMMAND_LIMIT_S: Final = 60.0


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
            if self._url.host.replace(".", "").isdigit():
                ip_address(self._url.host)  # 127.1 and 2130706433 are addresses to some resolvers
            if not allow_private:
                reject_private_literal(self._url.host)
        except ValueError as error:
            raise UsageError("--webhook takes a name, or an address of four numbers") from error
        except PrivateAddressError as error:
            raise UsageError(f"--webhook: {error}: allow it with --allow-private-webhook") from error
        self._secret, self._allow_private = secret, allow_private
        self._proxy = proxy_for(self._url, os.environ)

    async def deliver(self, event: Mapping[str, Any], body: bytes) -> None:
        headers = {"Content-Type": "application/json", "X-Veobatch-Delivery": str(event["delivery"])}
        if self._secret:
            headers[SIGNATURE_HEADER] = sign(body, self._secret, int(clocks.wall()))
        resolver = None if self._allow_private else PublicResolver()
        timeout = aiohttp.ClientTimeout(total=DELIVERY_LIMIT_S)
        options: dict[str, Any] = {"data": body, "headers": headers, "allow_redirects": False}
        options |= proxy_request_options(self._proxy)
        RESOLVING_PROXY_HOST.set(self._proxy is not None)
        try:
            connector = aiohttp.TCPConnector(resolver=resolver)
            async with (
                make_session(connector=connector, timeout=timeout) as session,
                session.post(self._url, **options) as response,
            ):
                code = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, PrivateAddressError) else None
            raise DeliveryError(str(cause) if cause else type(error).__name__, final=bool(cause)) from error
        if not 200 <= code < 300:
            raise DeliveryError(f"answered {code}", final=400 <= code < 500 and code not in (408, 425, 429))


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the keys, secrets and passwords of this tool, whatever holds them.

    A ledger's URL stays, without its password.
    """
    ledger = environ.get(LEDGER_VARIABLE, "")
    secrets = {value for name, value in environ.items() if value and _SECRET_NAME.fullmatch(name)}
    secrets |= {*ledger_passwords(ledger)}
    long_secrets = [secret for secret in secrets if len(secret) >= _MIN_FOUND_CHARS]
    passed = {
        name: value
        for name, value in environ.items()
        if not (_SECRET_NAME.fullmatch(name) or value in secrets)
        and not any(secret in value for secret in long_secrets)
    }
    return passed | ({LEDGER_VARIABLE: redact_password(ledger)} if LEDGER_VARIABLE in environ else {})


class CommandHook:
    """Runs a command for each event, with the event on its standard input. No shell, and never a secret."""

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
        environ = without_secrets(os.environ)
        environ |= {
            "VEOBATCH_EVENT": str(event["event"]),
            "VEOBATCH_ID": str(row.get("id", "")),
            "VEOBATCH_STATUS": str(row.get("status", "")),
            "VEOBATCH_VIDEO": str(row.get("video_path") or ""),
        }
        try:
            with anyio.fail_after(COMMAND_LIMIT_S):
                code = await _run_command(self._argv, body, environ)
        except TimeoutError as error:
            raise DeliveryError(f"still ran after {COMMAND_LIMIT_S:.0f} s", final=True) from error
        except OSError as error:
            raise DeliveryError(error.strerror or str(error), final=True) from error
        if code:
            raise DeliveryError(f"exit code {code}", final=True)


async def _run_command(argv: Sequence[str], body: bytes, environ: Mapping[str, str]) -> int:
    """Return a command's exit code. Cancelled, it is killed with all that it started."""
    # A session of its own: Ctrl-C is for the run, which may have minutes left to finish what is paid for.
    own_session = os.name != "nt"
    with tempfile.TemporaryFile() as event:  # a file: a command need not read its input, nor be waited for
        event.write(body)
        event.seek(0)
        with anyio.CancelScope(shield=True):  # one cancelled while it starts would leave its children behind
            process = await anyio.open_process(
                argv,
                env=environ,
                stdin=event,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=own_session,
            )
    async with process:
        try:
            return await process.wait()
        except BaseException:
            with suppress(OSError):
                if own_session:
                    os.killpg(process.pid, signal.SIGKILL)
            raise


def make_targets(request: RunRequest, environ: Mapping[str, str]) -> list[Target]:
    """Return where a run's events go. Raises `UsageError` for what cannot be used."""
    targets: list[Target] = [CommandHook(request.on_done)] if request.on_done else []
    if request.webhook:
        secret, private = environ.get(SECRET_VARIABLE, ""), request.allow_private_webhook
        targets.append(Webhook(request.webhook, secret, allow_private=private))
    return targets
