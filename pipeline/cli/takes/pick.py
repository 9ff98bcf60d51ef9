"""`veobatch pick`: choose among the takes of a row, from the terminal or from what a page exported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.batch.paths import existing_batch_paths
from pipeline.cli.options import ledger_options
from pipeline.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.batch.paths import BatchPaths, LedgerChoice
    from pipeline.ledger import Ledger
    from pipeline.model import Pick, Record


@click.command("pick")
@click.argument("target", metavar="MANIFEST|DIR")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--reject", is_flag=True, help="Reject the takes instead.")
@click.option("--clear", is_flag=True, help="Take back what was said of them.")
@click.option("--note", metavar="TEXT", help="A note on them; without it the one that is there stays.")
@click.option(
    "--from",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Take over the picks that the report's page exported.",
)
@click.option(
    "--output", metavar="DIR|URL", help="Where the batch lives, when not in output/<manifest's name>."
)
@ledger_options
def command(
    target: str,
    ids: tuple[str, ...],
    reject: bool,
    clear: bool,
    note: str | None,
    file: Path | None,
    output: str | None,
    ledger_choice: LedgerChoice,
) -> int:
    """Pick the takes ID (a row's first take has the row's id, the others `<id>.2`, `<id>.3`, ...).

    A row has one pick: picking a take takes it from the others. The chosen clips are in picks/ of the output.
    Without an ID it lists the picks. A run that is going on is not disturbed.
    """
    import anyio

    from pipeline.model import PICKED, REJECTED

    if (reject and clear) or (file is not None and (ids or reject or clear or note is not None)):
        raise click.UsageError("give takes with --reject or --clear, or --from FILE")
    if not ids and (reject or clear or note is not None):
        raise click.UsageError("which takes? Give their ids")
    paths = existing_batch_paths(target, output, ledger_choice)
    pick = "" if clear else REJECTED if reject else PICKED
    return anyio.run(_pick, paths, ids, pick, note, file)


async def _pick(paths: BatchPaths, ids: Sequence[str], pick: str, note: str | None, file: Path | None) -> int:
    import anyio

    from pipeline.batch.ledger_access import open_shared_ledger
    from pipeline.model import Pick
    from pipeline.results.picks import find_takes, parse_picks

    wishes: Mapping[str, Pick] = {}
    if file is not None:
        wishes = parse_picks(await anyio.Path(file).read_bytes())
    async with await open_shared_ledger(paths) as ledger:
        records = await ledger.load()
        if file is None:
            takes = find_takes(records, ids)
            wishes = {take.key: Pick(pick, take.pick_note if note is None else note) for take in takes}
        if not wishes and file is None:
            _print_picks(records)
            return int(ExitCode.DONE)
        await _apply(paths, ledger, records, wishes)
    return int(ExitCode.DONE)


async def _apply(
    paths: BatchPaths, ledger: Ledger, records: Sequence[Record], wishes: Mapping[str, Pick]
) -> None:
    from pipeline.cli.report import write_results
    from pipeline.manifest.problems import escape_unprintable
    from pipeline.results.picks import PICKS_FOLDER, PicksFolder, resolve_picks
    from pipeline.storage import open_store

    changes = resolve_picks(records, wishes)
    await ledger.set_picks(changes)
    store = open_store(paths.output)
    try:
        notes = await PicksFolder(ledger, store).update()
        await write_results(paths, ledger, store)
    finally:
        await store.aclose()
    for message in notes:
        click.echo(f"note: {message}", err=True)
    by_key = {record.key: record for record in records}
    for key, (pick, note) in changes.items():
        said = f"{pick or 'neither picked nor rejected'}{f' ({note})' if note else ''}"
        click.echo(escape_unprintable(f"{by_key[key].id}: {said}"))
    if not changes:
        click.echo("nothing changed")
    click.echo(f"The chosen clips are in {paths.output_path(PICKS_FOLDER)}", err=True)


def _print_picks(records: Sequence[Record]) -> None:
    from pipeline.manifest.problems import escape_unprintable

    for record in records:
        if record.pick or record.pick_note:
            click.echo(
                escape_unprintable(f"{record.pick or 'neither':>8}  {record.id}  {record.pick_note}".rstrip())
            )
