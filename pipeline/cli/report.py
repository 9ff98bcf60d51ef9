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
    from pipeline.ledger import Ledger
    from pipeline.storage import OutputStore


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

    Raises `StoreError` when the output cannot be written, `UsageError` when nothing was picked.
    """
    from pipeline.batch.ledger_access import made_by_sandbox
    from pipeline.results import CSV_NAME, REPORT_NAME
    from pipeline.results.csv_writer import ResultsWriter
    from pipeline.results.next_step import RUN_FACTS_NAME, NextStep, RunFacts, next_step
    from pipeline.results.picks import load_placed

    records = await ledger.load()
    manifest = json.loads(await ledger.meta_get("manifest") or '""')
    title = Path(manifest).stem if manifest else paths.folder.name
    sandbox = await made_by_sandbox(ledger)
    writer = ResultsWriter(store, title=title, manifest=manifest, sandbox=sandbox, batch=ledger.identity)
    if only_picks:
        return (await writer.write_picks_page(records, await load_placed(ledger)),)
    last_run = RunFacts.from_json(await ledger.meta_get(RUN_FACTS_NAME))
    step = NextStep()
    if last_run is not None:
        step = next_step(records, last_run.argv, last_run.stop_reason, batch_usd=last_run.batch_usd)
    money = await ledger.totals()
    if not await writer.finish(records, next_command=str(step), money=money):
        raise StoreError(f"{paths.output} cannot be written")
    return CSV_NAME, REPORT_NAME
