"""`veobatch report`: results.csv and report.html again, from the ledger."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from pipeline.batch.paths import existing_batch_paths
from pipeline.cli.options import ledger_options
from pipeline.errors import ExitCode, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.batch.paths import BatchPaths, LedgerChoice
    from pipeline.ledger import Ledger
    from pipeline.model import Record
    from pipeline.storage import OutputStore

_MAX_WRITES_BESIDE_RUN: Final = 3
"""A run whose rows change all the time writes the files itself in the end, and nobody waits for that."""


@click.command("report")
@click.argument("target", metavar="MANIFEST|DIR")
@click.option(
    "--output", metavar="DIR|URL", help="Where the batch lives, when not in output/<manifest's name>."
)
@click.option(
    "--only-picks", is_flag=True, help="Write picks.html instead: the picked clips, to show a client."
)
@ledger_options
def command(target: str, output: str | None, only_picks: bool, ledger_choice: LedgerChoice) -> int:
    """Write results.csv and report.html again. Makes no request and submits nothing.

    A run that is going on is not disturbed.
    """
    import anyio

    return anyio.run(_write_report, existing_batch_paths(target, output, ledger_choice), only_picks)


async def _write_report(paths: BatchPaths, only_picks: bool) -> int:
    from pipeline.batch.ledger_access import open_read_only_ledger
    from pipeline.batch.ownership import reject_foreign_files
    from pipeline.storage import open_store

    reject_foreign_files(paths)
    store = open_store(paths.output)
    try:
        async with await open_read_only_ledger(paths) as ledger:
            names = await write_results(paths, ledger, store, only_picks=only_picks)
    finally:
        await store.aclose()
    click.echo("\n".join(paths.output_path(name) for name in names))
    return int(ExitCode.DONE)


async def write_results(
    paths: BatchPaths, ledger: Ledger, store: OutputStore, *, only_picks: bool = False
) -> tuple[str, ...]:
    """Write the table and the report, or the page of picks, from the ledger; return the files' names.

    What has changed meanwhile is written, too: a run that ended in between has left newer files.
    Raises `StoreError` when the output cannot be written, `UsageError` when nothing was picked and when the
    ledger has lost the rows of the table that is there.
    """
    from pipeline.batch.ledger_access import made_by_sandbox
    from pipeline.batch.ownership import check_rows_known
    from pipeline.results import CSV_NAME, REPORT_NAME
    from pipeline.results.csv_writer import ResultsWriter
    from pipeline.results.picks import load_placed

    manifest = json.loads(await ledger.meta_get("manifest") or '""')
    title = Path(manifest).stem if manifest else paths.folder.name
    sandbox = await made_by_sandbox(ledger)
    writer = ResultsWriter(store, title=title, manifest=manifest, sandbox=sandbox, batch=ledger.identity)
    if only_picks:
        return (await writer.write_picks_page(await ledger.load(), await load_placed(ledger)),)
    await check_rows_known(store, ledger, paths, Path(manifest or "MANIFEST"))
    state, written = await _LedgerState.load(ledger), 0
    while written < (_MAX_WRITES_BESIDE_RUN if state.in_run else inf):
        money = await ledger.totals()
        if not await writer.finish(state.records, next_command=state.next_command(), money=money):
            raise StoreError(f"{paths.output} cannot be written")
        written += 1
        before, state = state, await _LedgerState.load(ledger)
        if state == before:
            break
    return CSV_NAME, REPORT_NAME


@dataclass(frozen=True, slots=True)
class _LedgerState:
    """What the files are made of; `last_end` changes when a run begins, and before it writes its last."""

    records: Sequence[Record]
    run_facts: str | None
    last_end: str | None

    @classmethod
    async def load(cls, ledger: Ledger) -> _LedgerState:
        from pipeline.results.next_step import RUN_FACTS_NAME
        from pipeline.runner.previous_run_end import LAST_END_NAME

        # The end first: one that comes later than it is read here is seen to have changed the next time.
        end = await ledger.meta_get(LAST_END_NAME)
        return cls(await ledger.load(), await ledger.meta_get(RUN_FACTS_NAME), end)

    @property
    def in_run(self) -> bool:
        """Whether a run has not come to its end: then it will write the files after this was read."""
        from pipeline.runner.previous_run_end import RUNNING

        return bool(self.last_end) and json.loads(self.last_end or "{}").get("how") == RUNNING

    def next_command(self) -> str:
        from pipeline.results.next_step import NextStep, RunFacts, next_step

        last_run = RunFacts.from_json(self.run_facts)
        if last_run is None:
            return str(NextStep())
        return str(next_step(self.records, last_run.argv, last_run.stop_reason, batch_usd=last_run.batch_usd))
