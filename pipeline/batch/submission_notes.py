"""How far this machine has seen each ledger come, so that one put back from a backup is noticed.

One small file a ledger, outside of the batch's folder, which a backup brings back as a whole.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pipeline import clocks
from pipeline.client import key_id
from pipeline.errors import StopReason, StopRun
from pipeline.model import State
from pipeline.net.json_cache import read_json, write_json
from pipeline.reconcile.restored_ledger import Memory, may_have_forgotten, recover_forgotten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipeline.client import Api
    from pipeline.events import Event
    from pipeline.ledger import Ledger
    from pipeline.model import Record

RECALL_NAME: Final = "recall"
UNKNOWN_BEGIN_S: Final = 90 * 86_400.0
"""How far back the log is read for a batch whose beginning was not noted."""


def memory_path(identity: str) -> Path:
    from platformdirs import user_state_path

    return user_state_path("veobatch") / "ledgers" / f"{identity}.json"


def read_memory(identity: str) -> Memory | None:
    """Return what is remembered of a ledger, None when there is nothing that can be read."""
    value = read_json(memory_path(identity))
    if not isinstance(value, dict):
        return None
    try:
        keys = frozenset(map(str, value.get("key_ids", ())))
        return Memory(int(value["runs"]), int(value["submissions"]), float(value["at"]), keys)
    except (KeyError, TypeError, ValueError):
        return None


class LedgerMemory:
    """Observes a run and saves how far its ledger has come, with each submission."""

    def __init__(self, api: Api, identity: str, runs: int, records: Sequence[Record]) -> None:
        self._api, self._identity, self._runs = api, identity, runs
        self._submissions = sum(record.submission_no for record in records)
        before = read_memory(identity)
        self._key_ids = {key_id(api.key.secret, identity), *(before.key_ids if before is not None else ())}
        self.save()

    def on_transition(self, before: Record, after: Record) -> None:
        if after.submission_no > before.submission_no:
            self._submissions += after.submission_no - before.submission_no
            # Each at once: a submission that is not noted here, and that a backup forgets, is bought again.
            self.save()

    def on_event(self, event: Event) -> None:
        """Events tell nothing of the ledger."""

    def save(self) -> None:
        """Write down how far the ledger has come."""
        # Unknown is 0, and never this machine's clock: by a wrong one, waiting would end too soon or never.
        at = self._api.vendor_now() or 0.0
        value = {
            "runs": self._runs,
            "submissions": self._submissions,
            "at": at,
            "key_ids": sorted(self._key_ids),
        }
        write_json(memory_path(self._identity), value)


@dataclass(frozen=True, slots=True)
class Recall:
    """What was found out so far of an older copy of a ledger; kept in it until all is known.

    `noticed_at` is when it was noticed (the vendor's time), `key_ids` are the keys whose log was read since,
    late enough to show everything.
    """

    noticed_at: float
    key_ids: frozenset[str] = frozenset()

    @classmethod
    async def read(cls, ledger: Ledger, now: float) -> Recall:
        text = await ledger.meta_get(RECALL_NAME)
        if not text:
            return cls(now)
        noticed_at, *key_ids = json.loads(text)
        return cls(noticed_at, frozenset(key_ids))

    async def write(self, ledger: Ledger) -> None:
        await ledger.meta_set(RECALL_NAME, json.dumps([self.noticed_at, *sorted(self.key_ids)]))

    def after_reading(self, key_id: str, memory: Memory, now: float, wait_s: float) -> Recall:
        """Return what is found out once the log of a key was read, at `now`."""
        # A log that was read too soon has to be read again, whichever key the next run has.
        if self._remaining_s(memory, now, wait_s) > 0:
            return self
        return replace(self, key_ids=self.key_ids | {key_id})

    def _remaining_s(self, memory: Memory, now: float, wait_s: float) -> float:
        """Return in how many seconds a log shows everything that may have been forgotten."""
        known = 0.0 < memory.at < self.noticed_at
        return (memory.at if known else self.noticed_at) + wait_s - now

    def obstacle(self, memory: Memory, now: float, wait_s: float) -> str:
        """Return why the logs that were read cannot show everything that was forgotten, "" when they do."""
        if (remaining_s := self._remaining_s(memory, now, wait_s)) > 0:
            return (
                "the ledger is an older copy, and the vendor's log may not show yet what was submitted "
                f"since. Nothing was submitted: run again in {remaining_s:.0f} s"
            )
        if memory.key_ids - self.key_ids:
            return (
                "the ledger is an older copy, and what was submitted since with another key is in that key's "
                "log only. Nothing was submitted: run once with each key that this batch was run with"
            )
        return ""


async def recall_forgotten(
    api: Api, ledger: Ledger, records: Sequence[Record], *, uncertain: bool, key_id: str, wait_s: float
) -> tuple[Mapping[str, Record], str]:
    """Give rows back what their ledger may have forgotten; return those by their keys, and what to say of it.

    `wait_s` is how long the log may take to show a submission. Raises `StopRun` when the log cannot be
    read, or cannot show everything yet: an open row may be paid for.
    """
    runs = int(await ledger.meta_get("runs") or 1) - 1
    begun_at = await _begun_at(ledger, records, runs)
    memory = read_memory(ledger.identity)
    is_open = any(r.position >= 0 and r.state not in (State.READY, State.DONE) for r in records)
    if not is_open or not may_have_forgotten(records, runs, memory, uncertain=uncertain):
        return {}, ""
    if api.vendor_now() is None:  # any answer tells the vendor's time
        await api.log_page({"period": "24h"}, limit=1, offset=0)
    now = api.vendor_now() or clocks.wall()
    recall = await Recall.read(ledger, now)
    recovered, error = await recover_forgotten(api, ledger, records, begun_at, now=now, key_id=key_id)
    if error:
        if api.vendor_now() is not None:
            await recall.write(ledger)
        raise StopRun(
            StopReason.IN_DOUBT,
            "the ledger may be an older copy, whose open rows may be paid for, and the vendor's "
            f"log cannot be read: {error}. Nothing was submitted: run again when it can",
        )
    submissions = sum(recovered.get(record.key, record).submission_no for record in records)
    if memory is not None and submissions < memory.submissions:
        recall = recall.after_reading(key_id, memory, now, wait_s)
        await recall.write(ledger)
        if obstacle := recall.obstacle(memory, now, wait_s):
            raise StopRun(StopReason.IN_DOUBT, obstacle)
    await ledger.meta_set(RECALL_NAME, "")
    if not recovered:
        return {}, ""
    found = len(recovered)
    return recovered, f"{found} row(s) were submitted by a run that this ledger does not know: they go on"


async def _begun_at(ledger: Ledger, records: Sequence[Record], runs: int) -> float:
    """Return when the batch was begun, by this machine's clock; note it in a ledger that does not say."""
    begun_at = await ledger.meta_get("begun_at")
    if begun_at is None:
        now = clocks.wall()
        known = [record.submitted_at for record in records if record.submitted_at is not None]
        begun_at = str(min(known, default=now if not runs else now - UNKNOWN_BEGIN_S))
        await ledger.meta_set("begun_at", begun_at)
    return float(begun_at)
