"""`veobatch status`: counts by state, from the ledger alone, also while a run is going on."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from pipeline.batch.paths import existing_batch_paths
from pipeline.cli.options import ledger_options
from pipeline.errors import ExitCode
from pipeline.model import State
from pipeline.results.overview import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.batch.paths import BatchPaths, LedgerChoice

WATCH_INTERVAL_S = 1.0
OPEN_STATES = frozenset(State) - {State.DONE, State.FAILED}


@click.command("status")
@click.argument("target", metavar="MANIFEST|DIR")
@click.option("--output", metavar="DIR", help="Where the batch lives, when not in output/<manifest's name>.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--watch", is_flag=True, help="Print changes until the batch is finished.")
@ledger_options
def command(target: str, output: str | None, ledger_choice: LedgerChoice, as_json: bool, watch: bool) -> int:
    """Count the rows of a batch by status: pending, generating, done and so on. Changes nothing."""
    import anyio

    return anyio.run(_show_status, existing_batch_paths(target, output, ledger_choice), as_json, watch)


async def _show_status(paths: BatchPaths, as_json: bool, watch: bool) -> int:
    """Print counts by state; with `watch`, again whenever they change, until no row is open."""
    import anyio

    last: Mapping[State, int] | None = None
    while True:
        counts, sandbox = await _load_counts(paths)
        if counts != last:
            click.echo(_format_counts(paths, counts, as_json=as_json, sandbox=sandbox))
            sys.stdout.flush()
        last = counts
        if not watch or not any(counts.get(state, 0) for state in OPEN_STATES):
            return int(ExitCode.DONE)
        await anyio.sleep(WATCH_INTERVAL_S)


async def _load_counts(paths: BatchPaths) -> tuple[Mapping[State, int], bool]:
    """Return the counts, and whether the sandbox made the clips."""
    from pipeline.batch.ledger_access import made_by_sandbox, open_read_only_ledger

    async with await open_read_only_ledger(paths) as ledger:
        return await ledger.counts(), await made_by_sandbox(ledger)


def _format_counts(paths: BatchPaths, counts: Mapping[State, int], *, as_json: bool, sandbox: bool) -> str:
    by_name = {state.value: counts.get(state, 0) for state in State}
    by_name["in_doubt"] += by_name.pop("submitting")
    if as_json:
        total, home = sum(by_name.values()), str(paths.folder)
        return json.dumps({"total": total, "counts": by_name, "home": home, "sandbox": sandbox})
    parts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in by_name.items() if count)
    rows = counted(sum(by_name.values()), "row")
    return f"{rows}{f': {parts}' if parts else ''}{' (sandbox)' if sandbox else ''}"
