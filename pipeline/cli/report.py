"""`veobatch report`: results.csv and report.html again, from the ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.batch.paths import existing_batch_paths
from pipeline.cli.options import ledger_options
from pipeline.errors import ExitCode, StoreError

if TYPE_CHECKING:
    from pipeline.batch.paths import BatchPaths, LedgerChoice


@click.command("report")
@click.argument("target", metavar="MANIFEST|DIR")
@click.option(
    "--output", metavar="DIR|URL", help="Where the batch lives, when not in output/<manifest's name>."
)
@ledger_options
def command(target: str, output: str | None, ledger_choice: LedgerChoice) -> int:
    """Write results.csv and report.html again. Makes no request and submits nothing.

    A run that is going on is not disturbed.
    """
    import anyio

    return anyio.run(_write_report, existing_batch_paths(target, output, ledger_choice))


async def _write_report(paths: BatchPaths) -> int:
    from pipeline.batch.ledger_access import made_by_sandbox, open_read_only_ledger
    from pipeline.batch.ownership import reject_foreign_files
    from pipeline.ledger.totals import Book
    from pipeline.results import CSV_NAME, REPORT_NAME
    from pipeline.results.next_step import RUN_FACTS_NAME, NextStep, RunFacts, next_step
    from pipeline.results.writer import ResultsWriter
    from pipeline.storage import open_store

    reject_foreign_files(paths)
    async with await open_read_only_ledger(paths) as ledger:
        records = await ledger.load()
        manifest = json.loads(await ledger.meta_get("manifest") or '""')
        sandbox = await made_by_sandbox(ledger)
        money = Book(await ledger.submissions()).totals()
        last_run = RunFacts.from_json(await ledger.meta_get(RUN_FACTS_NAME))
    store = open_store(paths.output)
    try:
        title = Path(manifest).stem if manifest else paths.folder.name
        writer = ResultsWriter(store, title=title, manifest=manifest, sandbox=sandbox)
        step = NextStep()
        if last_run is not None:
            step = next_step(records, last_run.argv, last_run.stop_reason, batch_usd=last_run.batch_usd)
        if not await writer.finish(records, next_command=str(step), money=money):
            raise StoreError(f"{paths.output} cannot be written")
    finally:
        await store.aclose()
    click.echo(f"{paths.output_path(CSV_NAME)}\n{paths.output_path(REPORT_NAME)}")
    return int(ExitCode.DONE)
