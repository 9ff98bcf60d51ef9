"""`veobatch review`: the report's page, served, so that picks go to the ledger at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.batch.paths import existing_batch_paths
from pipeline.cli.options import ledger_options
from pipeline.errors import ExitCode

if TYPE_CHECKING:
    from pipeline.batch.paths import BatchPaths, LedgerChoice
    from pipeline.ledger import Ledger
    from pipeline.results.live import BindAddress
    from pipeline.storage import OutputStore


@click.command("review")
@click.argument("target", metavar="MANIFEST|DIR")
@click.option(
    "--serve",
    metavar="[HOST:]PORT",
    default="0",
    help="Where to serve the page; 0: any free port of this machine.  [default: 0]",
)
@click.option(
    "--output", metavar="DIR|URL", help="Where the batch lives, when not in output/<manifest's name>."
)
@ledger_options
def command(target: str, serve: str, output: str | None, ledger_choice: LedgerChoice) -> int:
    """Serve the page of a batch to choose among its takes; Ctrl-C ends it.

    What a reviewer picks is in the ledger at once, and every other page that is open shows it. While a run is
    going on, `run --serve` does the same.
    """
    import anyio

    from pipeline.results.live import parse_bind

    paths = existing_batch_paths(target, output, ledger_choice)
    return anyio.run(_review, paths, parse_bind(serve))


async def _review(paths: BatchPaths, bind: BindAddress) -> int:
    import anyio

    from pipeline.batch.ledger_access import open_shared_ledger
    from pipeline.cli import signals
    from pipeline.cli.report import write_results
    from pipeline.storage import open_store

    guard = signals.current()
    guard.enter_loop()
    store = open_store(paths.output)
    try:
        async with await open_shared_ledger(paths) as ledger:
            with anyio.CancelScope() as scope, guard.cancelling(scope):
                await _serve(paths, bind, ledger, store)
            await write_results(paths, ledger, store)
    finally:
        await store.aclose()
    return int(ExitCode.DONE)


async def _serve(paths: BatchPaths, bind: BindAddress, ledger: Ledger, store: OutputStore) -> None:
    """Serve until cancelled."""
    import anyio

    from pipeline.batch.ledger_access import made_by_sandbox
    from pipeline.results.live import ChangeFeed, LivePage, Reviews

    manifest = json.loads(await ledger.meta_get("manifest") or '""')
    feed = ChangeFeed(await ledger.load())
    reviews = Reviews(ledger, store, feed, notify=lambda note: click.echo(f"note: {note}", err=True))
    page = LivePage(
        feed,
        bind,
        title=Path(manifest).stem if manifest else paths.folder.name,
        manifest=manifest,
        store=store,
        sandbox=await made_by_sandbox(ledger),
        reviews=reviews,
    )
    async with page:
        click.echo(f"review: {page.url}  (Ctrl-C ends it)", err=True)
        try:
            await reviews.keep_up()
        finally:
            with anyio.CancelScope(shield=True):
                await reviews.update_folder()
