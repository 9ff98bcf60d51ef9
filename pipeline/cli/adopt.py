"""`veobatch adopt`: a generation that was made elsewhere becomes a row's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import clocks
from pipeline.batch.paths import batch_paths
from pipeline.cli.options import ledger_options
from pipeline.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from pipeline.batch.paths import BatchPaths, LedgerChoice
    from pipeline.model import Record


@click.command("adopt", context_settings={"ignore_unknown_options": True})
@click.argument("manifest", type=click.Path(path_type=Path))
@click.argument("job", required=False)
@click.argument("generation_id", required=False)
@click.option(
    "--from",
    "table",
    metavar="RESULTS.CSV",
    type=click.Path(path_type=Path),
    help="Make a lost ledger again from this table and the vendor's log.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Also in place of a generation that the vendor does not know; what that has cost stays counted.",
)
@click.option("--base-url", metavar="URL", help="The API's address, for --from.")
@click.option("--output", metavar="DIR|URL", help="Where videos go.  [default: output/<manifest's name>]")
@ledger_options
def command(
    manifest: Path,
    job: str | None,
    generation_id: str | None,
    output: str | None,
    ledger_choice: LedgerChoice,
    table: Path | None,
    base_url: str | None,
    *,
    replace: bool,
) -> int:
    """Take over GENERATION_ID as the generation of the row JOB (its id) of MANIFEST.

    The next run fetches it and does not pay for the row. Only a row that is pending, failed or in doubt
    can adopt, and with --replace one that is generating. With --from, every row of a batch that lost its
    ledger is taken over.
    """
    import anyio

    paths = batch_paths(manifest, output, ledger_choice)
    if table is not None and job is None:
        from pipeline.cli.rebuild import rebuild_ledger

        return anyio.run(rebuild_ledger, manifest, table, paths, base_url)
    if table is not None or job is None or generation_id is None:
        raise click.UsageError("give either JOB and GENERATION_ID, or --from RESULTS.CSV")
    return anyio.run(_adopt, manifest, job, generation_id, paths, replace)


async def _adopt(manifest: Path, job: str, generation_id: str, paths: BatchPaths, replace: bool) -> int:
    from pipeline.batch.ledger_access import open_exclusive_ledger
    from pipeline.batch.ownership import check_folder, claim_folder
    from pipeline.batch.record_plan import plan_batch
    from pipeline.manifest import load
    from pipeline.model import State
    from pipeline.plan import RetrySelection

    checked = load(manifest)
    if not any(candidate.id == job for candidate in checked.jobs):
        raise UsageError(f"{manifest} has no row with the id {job!r}")
    check_folder(paths, manifest, sandbox=False)
    async with open_exclusive_ledger(paths, what=f"veobatch adopt {manifest}") as ledger:
        sandbox = await ledger.meta_get("vendor") == "sandbox"
        await claim_folder(ledger, paths, manifest, sandbox=sandbox)
        name = checked.run.get("name", "{id}")
        plan = await plan_batch(ledger, checked, name, RetrySelection())
        record = _find_adopting_record(plan.records, job, generation_id, replace=replace)
        if record.state is State.GENERATING:
            record = await ledger.commit(record, _given_up(record))
        await ledger.commit(record, _with_generation(record, generation_id))
    click.echo(f"{job} has taken over {generation_id}; run the manifest to fetch it")
    return int(ExitCode.DONE)


def _find_adopting_record(
    records: tuple[Record, ...], job: str, generation_id: str, *, replace: bool
) -> Record:
    """Return the row that may adopt; raises `UsageError` when it or another has a generation already."""
    from pipeline.model import PAID_STATES, State

    owner = next((record for record in records if record.generation_id == generation_id), None)
    if owner is not None:
        raise UsageError(f"{generation_id} is the generation of {owner.id} already")
    record = next(record for record in records if record.id == job and record.position >= 0)
    is_generating = record.state is State.GENERATING
    if record.state in PAID_STATES and not (replace and is_generating):
        hint = "; --replace gives it up" if is_generating else ""
        raise UsageError(f"{job} has a generation of its own ({record.generation_id}, {record.state}){hint}")
    return record


def _given_up(record: Record) -> Record:
    """Return a row whose generation, which may be paid, is given up for another one."""
    from pipeline.model import Failure, State
    from pipeline.plan import GENERATION_UNKNOWN

    failure = Failure(GENERATION_UNKNOWN, f"{record.generation_id} was given up for another generation")
    return record.evolve(State.FAILED, failure=failure, finished_at=clocks.wall())


def _with_generation(record: Record, generation_id: str) -> Record:
    from pipeline.model import State

    now = clocks.wall()
    return record.evolve(
        State.GENERATING,
        correlation_id="",
        generation_id=generation_id,
        submitted_at=record.submitted_at or now,
        accepted_at=now,
        failure=None,
        finished_at=None,
        completed_at=None,
        reserved_usd=None,
        earlier_usd=record.usd_spent or 0.0,
    )
