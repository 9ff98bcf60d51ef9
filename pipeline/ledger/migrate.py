"""A ledger's identity, and the migration of its tables from an earlier version."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Final

from pipeline import clocks
from pipeline.errors import LedgerError
from pipeline.ledger import rows, spending
from pipeline.ledger.compiled_statements import SCHEMA_VERSION, SPENDING_VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.ledger.backend import Cursor
    from pipeline.ledger.compiled_statements import Migration, Statements


def migrate(cursor: Cursor, sql: Statements, steps: Sequence[Migration], current_version: int) -> None:
    """Bring the tables from `current_version` (0: there are none) up to today's, in an open transaction.

    `steps` are the migrations from there on.
    """
    for version, texts in steps:
        for text in texts:
            cursor.execute(text)
        cursor.execute(sql.version_add, (version, clocks.wall()))
    if 0 < current_version < SPENDING_VERSION:  # last: records are read with every column of today
        _write_spending(cursor, sql)


def _write_spending(cursor: Cursor, sql: Statements) -> None:
    """Write the record of spending from the records of an earlier version."""
    cursor.execute(sql.load_all)
    found = cursor.fetchall()
    records = rows.to_records(row[:-1] for row in found)
    for batch, record in zip((row[-1] for row in found), records, strict=True):
        upgraded = spending.upgraded(record)
        if upgraded != record:
            cursor.execute(sql.upgrade, (upgraded.completed_at, upgraded.earlier_usd, batch, record.key))
        for entry in spending.entries_of(upgraded):
            cursor.execute(sql.submission_put, (batch, *spending.to_row(entry)))


def reject_newer_version(location: str, found: int) -> None:
    """Raise `LedgerError` when the ledger at `location` is of a later version than this program knows."""
    if found > SCHEMA_VERSION:
        raise LedgerError(
            f"{location}: this ledger was written by a newer veobatch (ledger version {found}, this one "
            f"knows up to {SCHEMA_VERSION}): install that veobatch, or a later one; nothing was changed"
        )


_IDENTITY_LETTERS: Final = string.ascii_lowercase + string.digits


def new_identity() -> str:
    """Return a random name of ten lower-case letters and digits."""
    number = int(clocks.token_hex(16), 16)
    return "".join(_IDENTITY_LETTERS[number // 36**place % 36] for place in range(10))
