"""The plan of a run, made durable but for what its user has asked for this once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.batch.one_time_requests import note_vanished, vanished_before
from pipeline.batch.record_plan import record_plan
from pipeline.client import key_id
from pipeline.errors import UsageError
from pipeline.model import State
from pipeline.plan import make_plan, requeued
from pipeline.reconcile.restored_ledger import HistoryUnknown, recall_forgotten
from pipeline.reconcile.uncertain_history import open_question

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.batch_plan import BatchPlan
    from pipeline.client import Api
    from pipeline.errors import StopRun
    from pipeline.manifest import Manifest
    from pipeline.model import Record
    from pipeline.plan import RetrySelection
    from pipeline.runner.config import RunConfig
    from pipeline.runner.open_batch import OpenedBatch


def rewritten_message(plan: BatchPlan) -> str:
    """Return why a manifest seems to have been rewritten throughout."""
    return (
        f"{plan.new} rows of the manifest are new, and {plan.vanished} that are paid for have "
        f"vanished from it: an editor or an export may have changed every text"
    )


def refuse_rewritten(plan: BatchPlan) -> None:
    """Raise `UsageError`: a manifest that seems rewritten is not paid for again unasked."""
    message = rewritten_message(plan)
    raise UsageError(f"{message}. To pay for them as new rows, add --as-new; else restore the old texts")


async def plan_run(
    api: Api,
    batch: OpenedBatch,
    manifest: Manifest,
    config: RunConfig,
    on_rewritten: Callable[[BatchPlan], None],
) -> tuple[BatchPlan, tuple[str, ...], StopRun | None]:
    """Make the plan durable, with what the ledger may have forgotten.

    Return it, what to say of that, and the stop when nothing may be submitted. Its requeues are left to the
    run that begins: the user may still say No.
    """
    request, ledger = config.request, batch.ledger
    plan = make_plan(
        manifest.jobs,
        await ledger.load(),
        name_template=config.settings.name,
        retry=request.retry,
        resubmit_in_doubt=request.resubmit_in_doubt,
    )
    plan = replace(plan, vanished_before=await vanished_before(ledger))
    # Before anything is written: a plan that is refused leaves the ledger as it was.
    if plan.seems_rewritten and not request.as_new:
        on_rewritten(plan)
    await note_vanished(ledger, plan)
    await record_plan(ledger, plan, manifest.path)
    return await _recall(api, batch, plan, config)


async def _recall(
    api: Api, batch: OpenedBatch, plan: BatchPlan, config: RunConfig
) -> tuple[BatchPlan, tuple[str, ...], StopRun | None]:
    """Give rows that the ledger has forgotten their generations back, before a create may leave.

    They go on with these, whatever was asked for them.
    """
    ledger, journal, retry = batch.ledger, batch.journal, config.request.retry
    try:
        recalled, message = await recall_forgotten(
            api,
            ledger,
            plan.records,
            journal,
            uncertain=await open_question(ledger),
            key_id=key_id(config.key.secret, ledger.identity),
            wait_s=config.settings.reconcile_after,
        )
    except HistoryUnknown as error:
        # The journal is not taken over: this ledger may lack some of what was submitted.
        return _with_unknown_history(_with_recalled(plan, error.recalled, retry), error, config)
    plan = _with_recalled(plan, recalled, retry)
    return plan, (message, await journal.take_over(ledger, plan.records)), None


def _with_unknown_history(
    plan: BatchPlan, error: HistoryUnknown, config: RunConfig
) -> tuple[BatchPlan, tuple[str, ...], StopRun | None]:
    """Return the plan, what to say, and the stop unless the user has rows submitted, or none is left."""
    if error.consent and config.request.resubmit_in_doubt:
        return plan, (error.note, error.consent), None
    records = plan.begun().records
    may_submit = any(r.position >= 0 and r.state in (State.PENDING, State.IN_DOUBT) for r in records)
    return (plan, (error.note,), error) if may_submit else (plan, (error.note, str(error)), None)


def _with_recalled(plan: BatchPlan, recalled: Mapping[str, Record], retry: RetrySelection) -> BatchPlan:
    """Return the plan with what rows are known by now to be; of them only failed ones are requeued."""
    # They were completed, and so paid: tried again, they are fetched.
    failed = [row for row in recalled.values() if row.state is State.FAILED]
    again = [(row, after) for row in failed if (after := requeued(row, retry)) is not None]
    plan = plan.with_current(recalled)
    return replace(plan, requeues=(*plan.requeues, *again))
