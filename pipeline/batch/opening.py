"""Opening a manifest's batch: its folder locked, its ledger open, its plan made durable."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pipeline.batch.ledger_access import SANDBOX_VENDOR, ReconnectNotifier, open_exclusive_ledger
from pipeline.batch.other_batches import (
    begun_from_manifest,
    reject_batch_of_another_manifest,
    reject_rows_paid_elsewhere,
    remember_folder,
)
from pipeline.batch.ownership import FolderClaim, check_remote_output, claim_folder, set_aside_lost_batch
from pipeline.batch.paths import LEDGER_NAME
from pipeline.batch.takes import with_retakes
from pipeline.errors import UsageError
from pipeline.model import Transition
from pipeline.plan import BatchPlan, RetrySelection, make_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AsyncExitStack
    from pathlib import Path

    from pipeline.batch.paths import BatchPaths
    from pipeline.cli.setup import RunConfig
    from pipeline.ledger import Ledger
    from pipeline.manifest import Manifest


async def check_vendor(ledger: Ledger, *, sandbox: bool, folder: Path) -> None:
    """Keep free clips and paid ones apart: a ledger belongs to the sandbox or to the API for good."""
    stored = await ledger.meta_get("vendor")
    current = SANDBOX_VENDOR if sandbox else "api"
    if stored is None:
        await ledger.meta_set("vendor", current)
    elif stored != current:
        made_by = "by the sandbox" if stored == SANDBOX_VENDOR else "by the real API"
        raise UsageError(
            f"{folder} holds clips made {made_by}: give another --output, or move that folder away"
        )


async def open_batch(
    stack: AsyncExitStack, config: RunConfig, manifest: Manifest, notifier: ReconnectNotifier, *, lost: bool
) -> tuple[Ledger, FolderClaim]:
    """Lock the folder, open its ledger on `stack` and make the folder its own; return it, with warnings.

    `lost` moves the files of a batch without its ledger out of the way first. Raises `UsageError` when the
    folder, or rows that are paid for, belong to another batch.
    """
    options, paths = config.options, config.paths
    sandbox, begin_anew = options.sandbox, options.begin_anew
    if not (sandbox or begin_anew or options.output or paths.external_ledger or _has_ledger(paths)):
        await reject_rows_paid_elsewhere(manifest, paths)
    open_ledger = open_exclusive_ledger(
        paths,
        what=f"veobatch run {options.manifest}",
        notifier=notifier,
        before_open=partial(set_aside_lost_batch, paths, sandbox=sandbox) if lost else None,
    )
    ledger = await stack.enter_async_context(open_ledger)
    await check_vendor(ledger, sandbox=sandbox, folder=paths.folder)
    await check_remote_output(config.store, ledger, paths, options.manifest, begin_anew=begin_anew)
    if not (options.output or options.ledger_choice.batch or begin_anew):
        await reject_batch_of_another_manifest(ledger, manifest, paths)
    claim = await claim_folder(ledger, paths, options.manifest, sandbox=sandbox, begin_anew=begin_anew)
    if not sandbox:
        remember_folder(paths.folder)
    notes = (*claim.notes, *await other_manifest_warnings(ledger, options.manifest))
    return ledger, replace(claim, notes=notes)


def _has_ledger(paths: BatchPaths) -> bool:
    return (paths.folder / LEDGER_NAME).exists()


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
    ledger: Ledger,
    manifest: Manifest,
    name: str,
    retry: RetrySelection,
    *,
    resubmit_in_doubt: bool = False,
    check: Callable[[BatchPlan], None] = lambda _: None,
) -> BatchPlan:
    """Compare manifest and ledger, and make what follows from it durable. `name` is the files' template.

    `check` sees the plan before anything is written, and may raise.
    """
    plan = make_plan(
        (await with_retakes(ledger, manifest)).jobs,
        await ledger.load(),
        name_template=name,
        retry=retry,
        resubmit_in_doubt=resubmit_in_doubt,
    )
    check(plan)
    if plan.added:
        await ledger.add(plan.added)
    if plan.positions:
        positions = {key: position for key, (position, _) in plan.positions.items()}
        await ledger.set_positions(positions, {key: line for key, (_, line) in plan.positions.items()})
    await ledger.commit_many([Transition(before, after) for before, after in plan.transitions])
    await ledger.meta_set("manifest", json.dumps(absolute_path(manifest.path)))
    return plan
