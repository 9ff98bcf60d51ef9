"""The ledger's money against the vendor's log: what agrees, what differs, what nobody asked for. Pure.

A create's correlation id names its ledger, its row and its attempt, so that every charge finds its row
even when the row's last attempt was another one.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.results.csv import listed
from pipeline.submit.create import correlation_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.client import LogRow
    from pipeline.model import Record

CENT_PART: Final = 0.005
"""Two amounts that differ by less than half a cent are the same amount."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it should be, in words; `key` names the row, when there is one."""

    kind: str
    words: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Reckoning:
    """Totals in USD. `learned` are costs that the ledger did not know, by the row's key.

    `estimated_usd` is what is set aside for paid rows whose cost nobody has said; `unknown_rows` counts
    paid rows with neither. `others_usd` are charges in the log that are not of this batch.
    """

    actual_usd: float
    estimated_usd: float
    unknown_rows: int
    others: int
    others_usd: float
    learned: Mapping[str, LogRow]
    differences: tuple[Difference, ...]


def reckon(records: Sequence[Record], log: Sequence[LogRow], identity: str) -> Reckoning:
    """Compare every row of the batch with every row of the log that carries this ledger's identity."""
    by_stem = {_stem(identity, record): record for record in records}
    charges: dict[str, list[LogRow]] = defaultdict(list)
    strays: list[LogRow] = []
    others: list[LogRow] = []
    for row in _once(log):
        ours = row.client_request_id.startswith(f"vb.{identity}.")
        record = by_stem.get(row.client_request_id.rpartition(".")[0]) if ours else None
        if record is not None:
            charges[record.key].append(row)
        else:
            (strays if ours else others).append(row)
    differences = [found for record in records for found in _compare(record, charges[record.key])]
    differences += [_stray(row) for row in strays if row.usd]
    learned = {
        record.key: paid[0]
        for record in records
        if record.usd_spent is None and len(paid := [row for row in charges[record.key] if row.usd]) == 1
    }
    return _totals(records, learned, others, differences)


def _stem(identity: str, record: Record) -> str:
    return correlation_id(identity, record, 0).rpartition(".")[0]


def _once(log: Sequence[LogRow]) -> list[LogRow]:
    """A row may be read twice when others are logged between two pages."""
    return list({(row.request_id or row.inference_id or id(row), row.created): row for row in log}.values())


def _compare(record: Record, rows: Sequence[LogRow]) -> list[Difference]:
    paid = [row for row in rows if row.usd]
    found = []
    if len(paid) > 1:
        total = sum(row.usd or 0.0 for row in paid)
        words = f"{record.id}: {len(paid)} charges, ${total:.2f} in all: {', '.join(map(_name, paid))}"
        found.append(Difference("charged_twice", words, record.key))
    elif paid and record.usd_spent is not None and abs((paid[0].usd or 0.0) - record.usd_spent) > CENT_PART:
        words = f"{record.id}: the ledger says ${record.usd_spent:.2f}, the log ${paid[0].usd:.2f}"
        found.append(Difference("amount", words, record.key))
    elif record.usd_spent and not paid and rows:
        words = f"{record.id}: the ledger says ${record.usd_spent:.2f}, the log shows no charge"
        found.append(Difference("not_charged", words, record.key))
    for row in paid:
        if record.generation_id and row.inference_id and row.inference_id != record.generation_id:
            words = f"{record.id}: a charge for {row.inference_id}, which is not its generation"
            found.append(Difference("other_generation", words, record.key))
    return found


def _stray(row: LogRow) -> Difference:
    words = f"a charge of ${row.usd or 0.0:.2f} without a row: {_name(row)} ({row.client_request_id})"
    return Difference("without_a_row", words)


def _name(row: LogRow) -> str:
    return row.inference_id or row.request_id or row.client_request_id


def _totals(
    records: Sequence[Record],
    learned: Mapping[str, LogRow],
    others: Sequence[LogRow],
    differences: Sequence[Difference],
) -> Reckoning:
    actual = estimated = 0.0
    unknown = 0
    for record in listed(records):
        usd = learned[record.key].usd if record.key in learned else record.usd_spent
        if usd is not None:
            actual += usd
        elif record.reserved_usd is not None:
            estimated += record.reserved_usd
        else:
            unknown += record.accepted_at is not None and record.finished_at is not None
    usd_of_others = sum(row.usd or 0.0 for row in others)
    return Reckoning(actual, estimated, unknown, len(others), usd_of_others, learned, tuple(differences))
