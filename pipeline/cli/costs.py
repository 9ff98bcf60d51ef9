"""`veobatch costs`: the ledger's money against the vendor's own log."""

from __future__ import annotations

import json
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import click

from pipeline import clocks
from pipeline.batch.paths import existing_batch_paths
from pipeline.cli.options import ledger_options
from pipeline.cli.reporting.terminal import one_line
from pipeline.errors import BatchLocked, ExitCode, StopReason, StopRun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.batch.paths import BatchPaths, LedgerChoice
    from pipeline.client import Api, LogRow
    from pipeline.ledger import Ledger
    from pipeline.model import Record
    from pipeline.results.cost_audit import CostAudit


SANDBOX_SPEED = 20.0


@click.command("costs")
@click.argument("target", metavar="MANIFEST|DIR")
@click.option("--output", metavar="DIR", help="Where the batch lives, when not in output/<manifest's name>.")
@click.option("--base-url", metavar="URL", help="The API's address.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@ledger_options
def command(
    target: str, output: str | None, ledger_choice: LedgerChoice, base_url: str | None, as_json: bool
) -> int:
    """Compare what the ledger says was spent with what the vendor logged, and list every difference.

    Costs that the ledger did not know are written into it. Exit code 1 when something differs. A rehearsal
    is compared with the sandbox's journal and needs no key.
    """
    import anyio

    paths = existing_batch_paths(target, output, ledger_choice)
    return anyio.run(_audit_costs, paths, base_url, as_json)


async def _open_api(stack: AsyncExitStack, paths: BatchPaths, base_url: str | None, *, sandbox: bool) -> Api:
    """Return a client of the API, or of the sandbox with the journal of the rehearsal, which needs no key."""
    from pipeline.client import Api, ApiKey
    from pipeline.runner.credentials import find_base_url, require_key

    if sandbox:
        from pipeline.runner.embedded_sandbox import SANDBOX_KEY, start_sandbox

        url, warnings = await start_sandbox(stack, paths.folder, SANDBOX_SPEED)
        for warning in warnings:
            click.echo(warning, err=True)
        return await stack.enter_async_context(Api(url, ApiKey(SANDBOX_KEY, "--sandbox")))
    key = require_key(os.environ, hint="The log is the account's own.")
    return await stack.enter_async_context(Api(find_base_url(base_url, os.environ), key))


async def _audit_costs(paths: BatchPaths, base_url: str | None, as_json: bool) -> int:
    """Print totals and differences; return 1 when something differs.

    Raises `StopRun` when the vendor's log cannot be read to its end: half a log proves nothing.
    """
    from pipeline.batch.ledger_access import SANDBOX_VENDOR, open_read_only_ledger
    from pipeline.reconcile.request_log import fetch_whole_log
    from pipeline.results.cost_audit import audit_costs, learned_entries

    async with await open_read_only_ledger(paths) as ledger:
        records, identity = await ledger.load(), ledger.identity
        entries = await ledger.submissions()
        sandbox = await ledger.meta_get("vendor") == SANDBOX_VENDOR and base_url is None
    now = clocks.wall()
    oldest = min((record.submitted_at for record in records if record.submitted_at), default=now)
    async with AsyncExitStack() as stack:
        api = await _open_api(stack, paths, base_url, sandbox=sandbox)
        log = await fetch_whole_log(api, oldest, now)
    if log.error:
        raise StopRun(StopReason.UNREACHABLE, f"the vendor's log cannot be read: {log.error}")
    audit = audit_costs(records, log.rows, identity)
    news = audit.learned_costs or learned_entries(entries, log.rows)
    learned = await _save_learned_costs(paths, audit, log.rows) if news else 0
    click.echo(json.dumps(_as_json(audit, learned)) if as_json else _audit_text(audit, learned))
    return int(ExitCode.SOME_FAILED if audit.differences else ExitCode.DONE)


async def _save_learned_costs(paths: BatchPaths, audit: CostAudit, log: Sequence[LogRow]) -> int:
    """Write learned costs into the ledger; a run that holds it will ask for them itself another time."""
    from pipeline.batch.ledger_access import open_exclusive_ledger
    from pipeline.results.cost_audit import learned_entries

    try:
        async with open_exclusive_ledger(paths, what="veobatch costs") as ledger:
            records = {record.key: record for record in await ledger.load()}
            for key, row in audit.learned_costs.items():
                await _save_cost(ledger, records[key], row.usd, row.credits)
            await ledger.put_submissions(learned_entries(await ledger.submissions(), log))
    except BatchLocked as locked:
        click.echo(f"nothing was written: {locked}", err=True)
        return 0
    return len(audit.learned_costs)


async def _save_cost(ledger: Ledger, record: Record, usd: float | None, credits_used: float | None) -> None:
    known = record.credits_used if record.credits_used is not None else credits_used
    await ledger.commit(record, record.evolve(usd_spent=usd, reserved_usd=None, credits_used=known))


def _as_json(audit: CostAudit, learned: int) -> dict[str, Any]:
    return {
        "actual_usd": round(audit.actual_usd, 6),
        "estimated_usd": round(audit.estimated_usd, 6),
        "unknown_rows": audit.unknown_rows,
        "learned_rows": learned,
        "other_requests": audit.other_requests,
        "other_usd": round(audit.other_usd, 6),
        "differences": [
            {"kind": item.kind, "key": item.key, "message": item.message} for item in audit.differences
        ],
    }


def _audit_text(audit: CostAudit, learned: int) -> str:
    lines = [f"actual     ${audit.actual_usd:,.2f}"]
    if audit.estimated_usd:
        lines.append(f"estimated  ${audit.estimated_usd:,.2f} for rows whose cost the vendor has not said")
    if audit.unknown_rows:
        lines.append(f"unknown    {audit.unknown_rows} rows")
    if learned:
        lines.append(f"learned    the cost of {learned} rows, from the log")
    if audit.other_requests:
        lines.append(f"others     {audit.other_requests} requests of other batches, ${audit.other_usd:,.2f}")
    lines += [f"differs    {one_line(item.message)}" for item in audit.differences]
    if not audit.differences:
        lines.append("nothing differs from the vendor's log")
    return "\n".join(lines)
