"""A manifest's plan made durable in its ledger, and whether the ledger is the right one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from pipeline.batch.ledger_access import SANDBOX_VENDOR
from pipeline.batch.one_time_requests import OneTimeRequests
from pipeline.batch.other_batches import begun_from_manifest
from pipeline.batch.retakes import extra_takes
from pipeline.errors import UsageError
from pipeline.manifest.jobs import with_extra_takes
from pipeline.model import Transition
from pipeline.plan import RetrySelection, make_plan

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.batch_plan import BatchPlan
    from pipeline.ledger import Ledger
    from pipeline.manifest import Manifest


REBUILDING: Final = "rebuilding"
"""The ledger's fact `vendor` while `adopt --from` makes it again: what is paid for is not known yet."""


async def check_vendor(ledger: Ledger, *, sandbox: bool, folder: Path) -> None:
    """Keep free clips and paid ones apart: a ledger belongs to the sandbox or to the API for good.

    Raises `UsageError` for one of the other kind, and for one that is not made to its end.
    """
    stored = await ledger.meta_get("vendor")
    current = SANDBOX_VENDOR if sandbox else "api"
    reject_half_rebuilt(stored, folder)
    if stored is None:
        await ledger.meta_set("vendor", current)
    elif stored != current:
        made_by = "by the sandbox" if stored == SANDBOX_VENDOR else "by the real API"
        raise UsageError(
            f"{folder} holds clips made {made_by}: give another --output, or move that folder away"
        )


def reject_half_rebuilt(vendor: str | None, folder: Path) -> None:
    """Raise `UsageError` when the ledger's fact `vendor` says that `adopt --from` has not finished it."""
    if vendor == REBUILDING:
        raise UsageError(
            f"{folder} has a ledger that veobatch adopt --from has not finished: what is paid for is not "
            "known yet, and a run would pay again. Nothing was submitted. Give that command again, which "
            "finishes it; or move the ledger away"
        )


def absolute_path(manifest: Path) -> str:
    return str(manifest.absolute())


async def other_manifest_warnings(ledger: Ledger, manifest: Path) -> tuple[str, ...]:
    """Return a warning when the batch was begun from another file, else nothing.

    Two manifests of one name share a folder unless `--output` says otherwise; a moved one keeps it.
    """
    stored = await begun_from_manifest(ledger)
    current = absolute_path(manifest)
    if stored in ("", current):
        return ()
    return (f"this batch was begun from {stored}: its rows that are not in {current} count as removed",)


async def plan_batch(
    ledger: Ledger, manifest: Manifest, name: str, retry: RetrySelection, *, resubmit_in_doubt: bool = False
) -> BatchPlan:
    """Compare manifest and ledger, and make what follows from it durable, as for a run that begins.

    `name` is the files' template.
    """
    plan = make_plan(
        with_extra_takes(manifest.jobs, await extra_takes(ledger, manifest.jobs)),
        await ledger.load(),
        name_template=name,
        retry=retry,
        resubmit_in_doubt=resubmit_in_doubt,
    )
    await record_plan(ledger, plan, manifest.path)
    return plan.with_current(await OneTimeRequests(plan.requeues).commit(ledger))


async def record_plan(ledger: Ledger, plan: BatchPlan, manifest: Path) -> None:
    """Make a plan durable, all but its requeues: new rows, their places, what became of the old ones."""
    if plan.added:
        await ledger.add(plan.added)
    if plan.positions:
        positions = {key: position for key, (position, _) in plan.positions.items()}
        await ledger.set_positions(positions, {key: line for key, (_, line) in plan.positions.items()})
    await ledger.commit_many([Transition(before, after) for before, after in plan.transitions])
    await ledger.meta_set("manifest", json.dumps(absolute_path(manifest)))
