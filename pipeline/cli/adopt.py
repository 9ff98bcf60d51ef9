"""`veobatch adopt`: a generation that was made elsewhere becomes a row's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import clocks
from pipeline.batch.paths import batch_paths
from pipeline.cli.options import ledger_options, model_option, takes_option
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
@click.option("--base-url", metavar="URL", help="The API's address, for its log and its models.")
@click.option("--output", metavar="DIR|URL", help="Where videos go.  [default: output/<manifest's name>]")
@model_option
@takes_option
@ledger_options
def command(
    manifest: Path,
    job: str | None,
    generation_id: str | None,
    output: str | None,
    ledger_choice: LedgerChoice,
    table: Path | None,
    base_url: str | None,
    model: str | None,
    takes: int | None,
) -> int:
    """Take over GENERATION_ID as the generation of the row JOB (its id) of MANIFEST.

    The next run fetches it and does not pay for the row. Only a row that is pending, failed or in doubt
    can adopt. With --from, every row of a batch that lost its ledger is taken over; when that fails, nothing
    is changed, and the same command again finishes it. Give --model and --takes as they are given to run.
    """
    import anyio

    from pipeline.runner.manifest_loading import ManifestChoice

    paths = batch_paths(manifest, output, ledger_choice)
    choice = ManifestChoice(manifest, model, takes, base_url)
    if table is not None and job is None:
        from pipeline.cli.rebuild import rebuild_ledger

        return anyio.run(rebuild_ledger, choice, table, paths)
    if table is not None or job is None or generation_id is None:
        raise click.UsageError("give either JOB and GENERATION_ID, or --from RESULTS.CSV")
    return anyio.run(_adopt, manifest, job, generation_id, paths)


async def _adopt(manifest: Path, job: str, generation_id: str, paths: BatchPaths) -> int:
    from pipeline.batch.ledger_access import open_exclusive_ledger
    from pipeline.batch.ownership import check_folder, claim_folder
    from pipeline.batch.record_plan import plan_batch, reject_half_rebuilt
    from pipeline.manifest import load
    from pipeline.plan import RetrySelection

    checked = load(manifest)
    if not any(candidate.id == job for candidate in checked.jobs):
        raise UsageError(f"{manifest} has no row with the id {job!r}")
    check_folder(paths, manifest, sandbox=False)
    async with open_exclusive_ledger(paths, what=f"veobatch adopt {manifest}") as ledger:
        vendor = await ledger.meta_get("vendor")
        reject_half_rebuilt(vendor, paths.folder)
        sandbox = vendor == "sandbox"
        await claim_folder(ledger, paths, manifest, sandbox=sandbox)
        name = checked.run.get("name", "{id}")
        plan = await plan_batch(ledger, checked, name, RetrySelection())
        record = _find_adopting_record(plan.records, job, generation_id)
        await ledger.commit(record, _with_generation(record, generation_id))
    click.echo(f"{job} has taken over {generation_id}; run the manifest to fetch it")
    return int(ExitCode.DONE)


def _find_adopting_record(records: tuple[Record, ...], job: str, generation_id: str) -> Record:
    """Return the row that may adopt; raises `UsageError` when it or another has a generation already."""
    from pipeline.model import PAID_STATES

    owner = next((record for record in records if record.generation_id == generation_id), None)
    if owner is not None:
        raise UsageError(f"{generation_id} is the generation of {owner.id} already")
    record = next(record for record in records if record.id == job and record.position >= 0)
    if record.state in PAID_STATES:
        raise UsageError(f"{job} has a generation of its own ({record.generation_id}, {record.state})")
    return record


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
