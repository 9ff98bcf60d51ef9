"""The texts of the ledger's statements, and SQLite's as they were compiled beforehand.

SQLAlchemy makes them (`statements`, `schema`); importing it takes longer than all else that a run does with
its ledger before its first create. So SQLite's lie in a file that `python -m docs.generate` writes. It must
not know connections, records or SQLAlchemy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

SCHEMA_VERSION: Final = 4
"""The version of the tables that this package writes. A ledger with a higher one is left alone."""

SPENDING_VERSION: Final = 3
"""The version that brought the entries of spending, and the columns of records that came with it."""

SQLITE_FILE: Final = Path(__file__).with_name("sqlite.json")

Migration = tuple[int, Sequence[str]]
"""A version and the statements that bring the tables of the one before up to it."""


@dataclass(frozen=True, slots=True)
class Statements:
    """SQL texts with positional parameters, in the order given by each comment."""

    record_update: str  # STATE_COLUMNS of `after`; batch, key, version and state of `before`
    record_update_content: str  # CONTENT_COLUMNS and STATE_COLUMNS of `after`; then as `record_update`
    # As `record_update`, with 1 or 0 twice before the batch (whether it ends the lease); then the lease.
    record_update_fenced: str
    record_update_content_fenced: str  # as `record_update_content`, likewise
    history_add: str  # batch, key, version, before, after, at, stamp
    record_add: str  # batch, JOB_COLUMNS, STATE_COLUMNS
    position_set: str  # position, batch, key
    position_and_line_set: str  # position, line, batch, key
    pick_set: str  # pick, pick_note, batch, key
    picks: str  # batch; gives key, pick and pick_note of what a reviewer has spoken of
    upgrade: str  # completed_at, earlier_usd, batch, key
    load: str  # batch
    load_all: str  # nothing; gives JOB_COLUMNS, STATE_COLUMNS and the batch
    get: str  # batch, key
    stamp_get: str  # batch, key, version
    counts: str  # batch, lowest position, highest position
    submission_put: str  # batch, the columns of `spending`
    # batch, generation_id, key, submission_no; writes nothing when it is another key's, or an earlier
    # submission's of that key.
    generation_claim: str
    submissions: str  # batch
    money: str  # batch; gives state, usd, credits, reserved_usd and how many entries have these
    shared_generations: str  # batch, batch; as `submissions`, of generations that several entries name
    meta_set: str  # batch, name, value
    meta_get: str  # batch, name
    claim: str  # batch, how many, worker, batch; gives JOB_COLUMNS, STATE_COLUMNS and the lease
    lease_get: str  # batch, key; gives lease and worker, locked against changes
    revoke: str  # batch, worker; gives key, state and lease
    revoke_all: str  # batch
    worker_set: str  # worker, batch, key
    unleased_in_flight: str  # batch; of rows that are not leased
    epoch_get: str  # batch, name
    epoch_next: str  # batch, name, "1"; gives the number
    batch_add: str  # batch, identity, created_at
    batch_get: str  # batch
    identity_set: str  # identity, batch; writes nothing when the batch has rows
    version_add: str  # version, applied_at
    version_get: str  # nothing


def sqlite_statements(version: int = SCHEMA_VERSION) -> Statements:
    """Return SQLite's statements, for a ledger of an earlier `version` those that read."""
    compiled = _compiled()
    return Statements(**{**compiled["statements"], **compiled["to_read"].get(str(version), {})})


def sqlite_migrations(current_version: int) -> list[Migration]:
    """Return the versions that a ledger of `current_version` lacks, oldest first, with their statements."""
    found = _compiled()["migrations"]
    return [(version, texts) for version, texts in found if version > current_version]


@cache
def _compiled() -> dict[str, Any]:
    compiled: dict[str, Any] = json.loads(SQLITE_FILE.read_text(encoding="utf-8"))
    return compiled
