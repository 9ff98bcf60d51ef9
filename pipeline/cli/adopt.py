"""`veobatch adopt`: a generation that was made elsewhere becomes a row's own."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import clocks
from pipeline.batch.paths import batch_paths, has_batch
from pipeline.cli.options import ledger_options, model_option, takes_option
from pipeline.errors import ExitCode, UsageError
from pipeline.row_keys import canonical_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from pipeline.batch.paths import BatchPaths, LedgerChoice
    from pipeline.batch_plan import BatchPlan
    from pipeline.ledger import Ledger
    from pipeline.manifest import Manifest
    from pipeline.model import Record
    from pipeline.runner.manifest_loading import ManifestChoice


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
    "gives_up",
    is_flag=True,
    help="Also in place of a generation that the vendor does not know; what that has cost stays counted.",
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
    *,
    gives_up: bool,
) -> int:
    """Take over GENERATION_ID as the generation of the row JOB (its id) of MANIFEST.

    The next run fetches it and does not pay for the row. Only a row that is pending, failed or in doubt
    can adopt, and with --replace one that is generating. With --from, every row of a batch that lost its
    ledger is taken over; when that fails, nothing is changed, and the same command again finishes it. Give
    --model and --takes as they are given to run.
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
    is_chosen = bool(output or ledger_choice.batch)
    adopt = partial(_adopt, gives_up=gives_up, is_chosen=is_chosen)
    return anyio.run(adopt, choice, job, generation_id, paths)


async def _adopt(
    choice: ManifestChoice,
    job: str,
    generation_id: str,
    paths: BatchPaths,
    *,
    gives_up: bool,
    is_chosen: bool,
) -> int:
    from pipeline.batch.ownership import check_folder, claim_folder
    from pipeline.batch.record_plan import reject_half_rebuilt
    from pipeline.model import State
    from pipeline.plan import mark_interrupted
    from pipeline.runner.manifest_loading import load_by_catalogue

    checked = await load_by_catalogue(choice)
    check_folder(paths, choice.path, sandbox=False)
    async with _open_ledger(paths, checked, is_chosen=is_chosen) as ledger:
        vendor = await ledger.meta_get("vendor")
        reject_half_rebuilt(vendor, paths.folder)
        await claim_folder(ledger, paths, choice.path, sandbox=vendor == "sandbox")
        plan, is_new = await _compare(ledger, checked)
        record = _find_row(plan, job, checked)
        _reject_second_generation(plan.records, record, generation_id, gives_up=gives_up)
        await _add_new_rows(ledger, plan, record, choice.path, is_new=is_new)
        if record.state is State.SUBMITTING:  # its run was killed in the middle of the create
            record = await ledger.commit(record, mark_interrupted(record))
        elif record.state is State.GENERATING:
            record = await ledger.commit(record, _given_up(record))
        await ledger.commit(record, _with_generation(record, generation_id))
    click.echo(f"{job} has taken over {generation_id}; run the manifest to fetch it")
    return int(ExitCode.DONE)


@asynccontextmanager
async def _open_ledger(paths: BatchPaths, checked: Manifest, *, is_chosen: bool) -> AsyncIterator[Ledger]:
    """Open the ledger as a run does, which is to be refused what would have rows paid for again.

    With `is_chosen` the user says where the batch is.
    """
    from pipeline.batch import other_batches
    from pipeline.batch.ledger_access import open_exclusive_ledger

    is_new = not has_batch(paths)
    if is_new and not is_chosen:
        await other_batches.reject_rows_paid_elsewhere(checked, paths, adopts=True)
    async with open_exclusive_ledger(paths, what=f"veobatch adopt {checked.path}") as ledger:
        if not is_chosen:
            if not is_new and not await other_batches.run_has_begun(ledger):
                await other_batches.reject_rows_paid_elsewhere(checked, paths, adopts=True)
            await other_batches.reject_batch_of_another_manifest(ledger, checked, paths)
        other_batches.remember_folder(paths.folder)
        yield ledger


async def _compare(ledger: Ledger, checked: Manifest) -> tuple[BatchPlan, bool]:
    """Return what a run would plan, of which nothing is made durable, and whether the ledger has no rows."""
    from pipeline.batch.retakes import extra_takes
    from pipeline.plan import make_plan

    records = await ledger.load()
    manifest = checked.with_takes(await extra_takes(ledger, checked.jobs))
    plan = make_plan(manifest.jobs, records, name_template=checked.run.get("name", "{id}"))
    # What a run would change of rows that it has already is the run's own business.
    stored = {record.key: record for record in records}
    return replace(plan, records=tuple(stored.get(one.key, one) for one in plan.records)), not records


def _find_row(plan: BatchPlan, job: str, checked: Manifest) -> Record:
    """Return the manifest's row of the id `job`, as the ledger has it.

    Raises `UsageError` when there is none, and when the ledger's row of that id is another job: the
    generation would belong to a row that the next run does not have, and that run would buy its own.
    """
    named = [record for record in plan.records if canonical_id(record.id) == canonical_id(job)]
    places = {record.key: plan.positions.get(record.key, (record.position, 0))[0] for record in named}
    here = next((record for record in named if places[record.key] >= 0), None)
    replaced = next((record for record in named if record.position >= 0 > places[record.key]), None)
    if replaced is not None:
        raise _other_job_error(replaced, here, checked)
    if here is None:
        raise UsageError(f"{checked.path} has no row with the id {job!r}")
    return here


def _other_job_error(before: Record, here: Record | None, checked: Manifest) -> UsageError:
    """Return the error for a row that the manifest has otherwise than the ledger, or not at all."""
    if here is None and before.take > 1:
        way = f"the manifest has no take {before.take} of it: give --takes, as it is given to run"
    elif all(before.model != job.model for job in checked.jobs):
        way = f"there its model is {before.model}: give --model {before.model}, if that is given to run"
    elif here is None:
        way = "the manifest does not have it any more: put the row back as it was"
    else:
        way = "it was edited since: put the row back as it was, or give the new one an id of its own"
    name = f"{before.id} of {checked.path}"
    return UsageError(f"{name} is another row in the ledger than in the manifest; {way}. Nothing was changed")


def _reject_second_generation(
    records: Sequence[Record], record: Record, generation_id: str, *, gives_up: bool
) -> None:
    """Raise `UsageError` when another row has it, or this one has its own and does not give it up."""
    from pipeline.model import PAID_STATES, State

    owner = next((one for one in records if one.generation_id == generation_id), None)
    if owner is not None:
        raise UsageError(f"{generation_id} is the generation of {owner.id} already")
    is_generating = record.state is State.GENERATING
    if record.state in PAID_STATES and not (gives_up and is_generating):
        hint = "; --replace gives it up" if is_generating else ""
        own = f"{record.generation_id}, {record.state}"
        raise UsageError(f"{record.id} has a generation of its own ({own}){hint}")


async def _add_new_rows(
    ledger: Ledger, plan: BatchPlan, record: Record, manifest: Path, *, is_new: bool
) -> None:
    """Add the row if the ledger lacks it; a batch that has not been run gets all of its rows."""
    from pipeline.batch.record_plan import absolute_path

    added = [one for one in plan.added if is_new or one.key == record.key]
    if added:
        await ledger.add(added)
    if is_new:
        await ledger.meta_set("manifest", json.dumps(absolute_path(manifest)))


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
        video_url="",
        video_urls="",
        failure=None,
        finished_at=None,
        completed_at=None,
        reserved_usd=None,
        earlier_usd=record.usd_spent or 0.0,
    )
