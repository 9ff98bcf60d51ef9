"""How far this machine has seen each ledger come, so that one put back from a backup is noticed.

One small file a ledger, outside of the batch's folder, which a backup brings back as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline import system
from pipeline.errors import StopReason, StopRun
from pipeline.model import State
from pipeline.net.json_cache import read_json, write_json
from pipeline.reconcile.forgotten import Memory, may_have_forgotten, recover_forgotten

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.client import Api
    from pipeline.events import Event
    from pipeline.ledger import Ledger
    from pipeline.model import Record

WRITE_INTERVAL_S: Final = 1.0
UNKNOWN_BEGIN_S: Final = 90 * 86_400.0
"""How far back the log is read for a batch whose begin nobody noted."""


def memory_path(identity: str) -> Path:
    from platformdirs import user_state_path

    return user_state_path("veobatch") / "ledgers" / f"{identity}.json"


def read_memory(identity: str) -> Memory | None:
    """Return what is remembered of a ledger, None when there is nothing that can be read."""
    value = read_json(memory_path(identity))
    if not isinstance(value, dict):
        return None
    try:
        return Memory(int(value["runs"]), int(value["submissions"]), float(value["at"]))
    except (KeyError, TypeError, ValueError):
        return None


class LedgerMemory:
    """Observes a run, and keeps up to a second's delay what its ledger has come to."""

    def __init__(self, api: Api, identity: str, runs: int, records: Sequence[Record]) -> None:
        self._api, self._identity, self._runs = api, identity, runs
        self._submissions = sum(record.intent for record in records)
        self._written_at = 0.0
        self.save()

    def on_transition(self, before: Record, after: Record) -> None:
        if after.intent > before.intent:
            self._submissions += after.intent - before.intent
            if system.monotonic() - self._written_at >= WRITE_INTERVAL_S:
                self.save()

    def on_event(self, event: Event) -> None:
        """Events tell nothing of the ledger."""

    def save(self) -> None:
        """Write down how far the ledger has come."""
        self._written_at = system.monotonic()
        at = self._api.vendor_now() or system.wall()
        value = {"runs": self._runs, "submissions": self._submissions, "at": at}
        write_json(memory_path(self._identity), value)


async def recall_forgotten(
    api: Api, ledger: Ledger, records: Sequence[Record], *, uncertain: bool, key_id: str, wait_s: float
) -> tuple[list[Record], str]:
    """Give rows back what their ledger may have forgotten; return all records, and what to say of it.

    `wait_s` is how long the log may take to show a submission. Raises `StopRun` when the log cannot be
    read, or cannot show everything yet: a pending row may be paid for.
    """
    now = system.wall()
    runs = int(await ledger.meta_get("runs") or 1) - 1
    begun_at = await ledger.meta_get("begun_at")
    if begun_at is None:
        known = [record.submitted_at for record in records if record.submitted_at is not None]
        begun_at = str(min(known, default=now if not runs else now - UNKNOWN_BEGIN_S))
        await ledger.meta_set("begun_at", begun_at)
    memory = read_memory(ledger.identity)
    pending = any(record.state is State.PENDING and record.position >= 0 for record in records)
    if not pending or not may_have_forgotten(records, runs, memory, uncertain=uncertain):
        return list(records), ""
    recovered, error = await recover_forgotten(api, ledger, records, float(begun_at), wall=now, key_id=key_id)
    if error:
        raise StopRun(
            StopReason.IN_DOUBT,
            "the ledger may be an older copy, whose pending rows may have been submitted, and the vendor's "
            f"log cannot be read: {error}. Nothing was submitted: run again when it can",
        )
    found = sum(before is not after for before, after in zip(records, recovered, strict=True))
    rest_s = (memory.at if memory is not None else 0.0) + wait_s - (api.vendor_now() or now)
    is_older = memory is not None and sum(record.intent for record in recovered) < memory.submissions
    if is_older and rest_s > 0:
        raise StopRun(
            StopReason.IN_DOUBT,
            "the ledger is an older copy, and the vendor's log may not show yet what was submitted since. "
            f"Nothing was submitted: run again in {rest_s:.0f} s",
        )
    if not found:
        return recovered, ""
    return recovered, f"{found} row(s) were submitted by a run that this ledger does not know: they go on"
