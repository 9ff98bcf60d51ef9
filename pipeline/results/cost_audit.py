"""The ledger's money against the vendor's log: what agrees, what differs, what no row explains. Pure.

A create's correlation id names its ledger, its row and its attempt, so that every charge finds its row
even when the row's last attempt was another one.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pipeline.ledger.spending import SubmissionState
from pipeline.results.csv_rows import visible_records
from pipeline.submit.create import row_correlation_prefix

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipeline.client import LogRow
    from pipeline.ledger.spending import Submission
    from pipeline.model import Record

AMOUNT_TOLERANCE_USD: Final = 0.005
"""Two amounts that differ by less than half a cent are the same amount."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One discrepancy, described in `message`; `key` names the row, when there is one."""

    kind: str
    message: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class CostAudit:
    """Totals in USD. `learned` are costs that the ledger did not know, by the row's key.

    `estimated_usd` is what is set aside for paid rows whose cost is not known; `unknown_rows` counts
    paid rows with neither. `others_usd` are charges in the log that are not of this batch.
    """

    actual_usd: float
    estimated_usd: float
    unknown_rows: int
    other_requests: int
    other_usd: float
    learned_costs: Mapping[str, LogRow]
    differences: tuple[Difference, ...]


def audit_costs(records: Sequence[Record], log: Sequence[LogRow], identity: str) -> CostAudit:
    """Compare every row of the batch with every row of the log that carries this ledger's identity."""
    by_prefix = {row_correlation_prefix(identity, record): record for record in records}
    charges: dict[str, list[LogRow]] = defaultdict(list)
    unmatched: list[LogRow] = []
    other_charges: list[LogRow] = []
    for row in _deduplicated(log):
        is_ours = row.client_request_id.startswith(f"vb.{identity}.")
        record = by_prefix.get(_row_prefix(row.client_request_id)) if is_ours else None
        if record is not None:
            charges[record.key].append(row)
        else:
            (unmatched if is_ours else other_charges).append(row)
    differences = [found for record in records for found in _compare_charges(record, charges[record.key])]
    differences += [_unmatched_charge(row) for row in unmatched if row.usd]
    learned_costs = {
        record.key: paid[0]
        for record in records
        if record.usd_spent is None and len(paid := [row for row in charges[record.key] if row.usd]) == 1
    }
    return _build_audit(records, learned_costs, other_charges, differences)


def learned_entries(entries: Iterable[Submission], log: Sequence[LogRow]) -> list[Submission]:
    """Return, brought up to date, the entries whose cost the ledger did not know and the log names.

    Also those of submissions that were given up in doubt, and of adopted generations.
    """
    charged = [row for row in log if row.usd and row.succeeded is not False]
    by_id = {row.client_request_id: row for row in charged if row.client_request_id}
    by_generation = {row.inference_id: row for row in charged if row.inference_id}
    learned = []
    for entry in entries:
        row = by_id.get(entry.id) or by_generation.get(entry.generation_id)
        if row is not None and entry.usd is None:
            spent = replace(entry, state=SubmissionState.SPENT, usd=row.usd, credits=row.credits)
            learned.append(replace(spent, generation_id=row.inference_id))
    return learned


def _row_prefix(client_request_id: str) -> str:
    return ".".join([*client_request_id.split(".")[:4], ""])


def _deduplicated(log: Sequence[LogRow]) -> list[LogRow]:
    """A row may be read twice when others are logged between two pages."""
    return list({(row.request_id or row.inference_id or id(row), row.created): row for row in log}.values())


def _compare_charges(record: Record, rows: Sequence[LogRow]) -> list[Difference]:
    paid = [row for row in rows if row.usd]
    differences = []
    if len(paid) > 1:
        total = sum(row.usd or 0.0 for row in paid)
        message = (
            f"{record.id}: {len(paid)} charges, ${total:.2f} in all: {', '.join(map(_charge_name, paid))}"
        )
        differences.append(Difference("charged_twice", message, record.key))
    elif (
        paid
        and record.usd_spent is not None
        and abs((paid[0].usd or 0.0) - record.usd_spent) > AMOUNT_TOLERANCE_USD
    ):
        message = f"{record.id}: the ledger says ${record.usd_spent:.2f}, the log ${paid[0].usd:.2f}"
        differences.append(Difference("amount", message, record.key))
    elif record.usd_spent and not paid and rows:
        message = f"{record.id}: the ledger says ${record.usd_spent:.2f}, the log shows no charge"
        differences.append(Difference("not_charged", message, record.key))
    for row in paid:
        if record.generation_id and row.inference_id and row.inference_id != record.generation_id:
            message = f"{record.id}: a charge for {row.inference_id}, which is not its generation"
            differences.append(Difference("other_generation", message, record.key))
    return differences


def _unmatched_charge(row: LogRow) -> Difference:
    message = (
        f"a charge of ${row.usd or 0.0:.2f} without a row: {_charge_name(row)} ({row.client_request_id})"
    )
    return Difference("without_a_row", message)


def _charge_name(row: LogRow) -> str:
    return row.inference_id or row.request_id or row.client_request_id


def _build_audit(
    records: Sequence[Record],
    learned_costs: Mapping[str, LogRow],
    other_charges: Sequence[LogRow],
    differences: Sequence[Difference],
) -> CostAudit:
    actual = estimated = 0.0
    unknown = 0
    for record in visible_records(records):
        usd = learned_costs[record.key].usd if record.key in learned_costs else record.usd_spent
        if usd is not None:
            actual += usd
        elif record.reserved_usd is not None:
            estimated += record.reserved_usd
        else:
            unknown += record.accepted_at is not None and record.finished_at is not None
    other_usd = sum(row.usd or 0.0 for row in other_charges)
    return CostAudit(
        actual, estimated, unknown, len(other_charges), other_usd, learned_costs, tuple(differences)
    )
