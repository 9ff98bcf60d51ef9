"""Rows under way that were submitted with another key, or to another address, than the present one. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.model import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.model import Record

OPEN_STATES = frozenset({State.SUBMITTING, State.IN_DOUBT, State.GENERATING, State.READY})


def origin_notes(records: Iterable[Record], key_id: str, api_name: str) -> tuple[str, ...]:
    """Return what to say, before anything is submitted, about rows under way that came from elsewhere.

    The vendor shows a key's requests and generations to that key; with another one, rows in doubt stay in
    doubt. Rows that are done or failed, or whose key an old ledger does not know, are no matter.
    """
    rows = [record for record in records if record.state in OPEN_STATES and record.key_id]
    other_keys = sum(record.key_id != key_id for record in rows)
    addresses = sorted({record.api_url for record in rows} - {api_name})
    notes = []
    if other_keys:
        notes.append(
            f"{other_keys} row(s) under way were submitted with another key: those in doubt stay in doubt "
            "with this one; run again with that key, or see `veobatch reconcile --help`"
        )
    if addresses:
        notes.append(
            f"rows under way were submitted to {', '.join(addresses)}, not to {api_name}: those in doubt "
            f"stay in doubt here; run again with --base-url {addresses[0]}"
        )
    return tuple(notes)
