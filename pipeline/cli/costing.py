"""What `veobatch costs` does: read ledger and log, compare, learn what the ledger did not know."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import anyio
import click

from pipeline.cli.credentials import find_base_url, need_key
from pipeline.cli.ledger_access import held_ledger, looked_at
from pipeline.cli.paths import existing_place
from pipeline.cli.terminal import one_line
from pipeline.client import Api
from pipeline.errors import ExitCode, Held, StopReason, StopRun
from pipeline.reconcile.request_log import read_whole_log
from pipeline.results.cost_audit import reckon

if TYPE_CHECKING:
    from pipeline.cli.paths import LedgerChoice, Place
    from pipeline.client import ApiKey
    from pipeline.ledger import Ledger
    from pipeline.model import Record
    from pipeline.results.cost_audit import Reckoning


def show_costs(
    target: str, output: str | None, where: LedgerChoice, base_url: str | None, *, as_json: bool
) -> int:
    """Print totals and differences; return 1 when something differs.

    Raises `StopRun` when the vendor's log cannot be read to its end: half a log proves nothing.
    """
    place = existing_place(target, output, where)
    key = need_key(os.environ, hint="The log is the account's own.")
    return anyio.run(_costs, place, find_base_url(base_url, os.environ), key, as_json)


async def _costs(place: Place, base_url: str, key: ApiKey, as_json: bool) -> int:
    async with await looked_at(place) as ledger:
        records, identity = await ledger.load(), ledger.identity
    now = time.time()
    oldest = min((record.submitted_at for record in records if record.submitted_at), default=now)
    async with Api(base_url, key) as api:
        log = await read_whole_log(api, oldest, now)
    if log.trouble:
        raise StopRun(StopReason.UNREACHABLE, f"the vendor's log cannot be read: {log.trouble}")
    found = reckon(records, log.rows, identity)
    learned = await _learn(place, found) if found.learned else 0
    click.echo(json.dumps(_as_json(found, learned)) if as_json else _words(found, learned))
    return int(ExitCode.SOME_FAILED if found.differences else ExitCode.DONE)


async def _learn(place: Place, found: Reckoning) -> int:
    """Write learned costs into the ledger; a run that holds it will ask for them itself another time."""
    try:
        async with held_ledger(place, what="veobatch costs") as ledger:
            records = {record.key: record for record in await ledger.load()}
            for key, row in found.learned.items():
                await _settle(ledger, records[key], row.usd, row.credits)
    except Held as held:
        click.echo(f"nothing was written: {held}", err=True)
        return 0
    return len(found.learned)


async def _settle(ledger: Ledger, record: Record, usd: float | None, credits_used: float | None) -> None:
    known = record.credits_used if record.credits_used is not None else credits_used
    await ledger.commit(record, record.evolve(usd_spent=usd, reserved_usd=None, credits_used=known))


def _as_json(found: Reckoning, learned: int) -> dict[str, Any]:
    return {
        "actual_usd": round(found.actual_usd, 6),
        "estimated_usd": round(found.estimated_usd, 6),
        "unknown_rows": found.unknown_rows,
        "learned_rows": learned,
        "other_requests": found.others,
        "other_usd": round(found.others_usd, 6),
        "differences": [
            {"kind": item.kind, "key": item.key, "message": item.words} for item in found.differences
        ],
    }


def _words(found: Reckoning, learned: int) -> str:
    lines = [f"actual     ${found.actual_usd:,.2f}"]
    if found.estimated_usd:
        lines.append(f"estimated  ${found.estimated_usd:,.2f} for rows whose cost the vendor has not said")
    if found.unknown_rows:
        lines.append(f"unknown    {found.unknown_rows} rows")
    if learned:
        lines.append(f"learned    the cost of {learned} rows, from the log")
    if found.others:
        lines.append(f"others     {found.others} requests of other batches, ${found.others_usd:,.2f}")
    lines += [f"differs    {one_line(item.words)}" for item in found.differences]
    if not found.differences:
        lines.append("nothing differs from the vendor's log")
    return "\n".join(lines)
