"""The stand-in API inside this process, and the settings that fit a run against it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from contextlib import AsyncExitStack
    from pathlib import Path

SANDBOX_KEY: Final = "any-key-will-do"
_POLL_INTERVAL_S: Final = 10.0
_RECONCILE_AFTER_S: Final = 600.0
_MIN_RECONCILE_AFTER_S: Final = 10.0
"""How long a row's absence from the sandbox's log proves nothing: its renderings and its log's lag, at
speed 1, and a margin at any speed."""


async def start_sandbox(stack: AsyncExitStack, folder: Path, speed: float) -> tuple[str, tuple[str, ...]]:
    """Start the stand-in on `stack`, where an earlier run's left off; return its URL, and warnings."""
    from pipeline.sandbox import Sandbox, SandboxOptions

    options = SandboxOptions(
        speed=speed,
        balance_usd=1_000_000.0,  # for all runs of the batch: the journal remembers what they were charged
        journal=folder / "sandbox.jsonl",
    )
    sandbox = await stack.enter_async_context(Sandbox(options))
    return str(sandbox.url), tuple(sandbox.journal_warnings)


def sandbox_reconcile_after_s(speed: float) -> float:
    """Return how long a row has to be absent from the log of a sandbox of this speed."""
    return max(_RECONCILE_AFTER_S / speed, _MIN_RECONCILE_AFTER_S)


def sandbox_settings(speed: float) -> dict[str, Any]:
    """Return the defaults of settings for a sandbox that renders `speed` times faster than the vendor."""
    speed = max(1.0, speed)
    return {"poll_interval": _POLL_INTERVAL_S / speed, "reconcile_after": sandbox_reconcile_after_s(speed)}
