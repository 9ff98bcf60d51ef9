"""How a run starts: the stand-in if wanted, the checked manifest, the plan made durable, and what is said.

Everything here happens before the first create may leave.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import click

from pipeline.cli.manifest_loading import check_manifest_images, check_with_catalogue
from pipeline.errors import UsageError
from pipeline.events import Event, Level, Topic
from pipeline.model import State, Transition
from pipeline.plan import BatchPlan, RetrySelection, make_plan

if TYPE_CHECKING:
    from contextlib import AsyncExitStack
    from pathlib import Path

    from pipeline.cli.cost_prompt import CostEstimate
    from pipeline.cli.manifest_loading import LoadedManifest
    from pipeline.cli.request import RunConfig
    from pipeline.client.catalog import Catalog
    from pipeline.events import Observer
    from pipeline.ledger import Ledger
    from pipeline.manifest import Manifest

SANDBOX_VENDOR: Final = "sandbox"


async def start_sandbox(stack: AsyncExitStack, config: RunConfig) -> str:
    """Start the stand-in inside this process, where an earlier run's left off; return its URL."""
    from pipeline.sandbox import Sandbox, SandboxOptions

    options = SandboxOptions(
        speed=config.options.sandbox_speed,
        balance_usd=1_000_000.0,  # for all runs of the batch: the journal remembers what they were charged
        journal=config.paths.folder / "sandbox.jsonl",
    )
    sandbox = await stack.enter_async_context(Sandbox(options))
    for note in sandbox.journal_warnings:
        click.echo(note, err=True)
    return str(sandbox.url)


async def load_checked_manifest(config: RunConfig, catalogue: Catalog) -> LoadedManifest:
    """Check the manifest's other models by the catalogue, and its images when asked to."""
    loaded = await check_with_catalogue(config.parsed, catalogue)
    if config.settings.check_images:
        loaded = await check_manifest_images(loaded, config.settings.allow_private_images)
    return loaded


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


def absolute_path(manifest: Path) -> str:
    return str(manifest.absolute())


async def other_manifest_warning(ledger: Ledger, manifest: Path) -> str:
    """Return words of warning when the batch was begun from another file, else nothing.

    Two manifests of one name share a folder unless `--output` says otherwise; a moved one keeps it.
    """
    stored = json.loads(await ledger.meta_get("manifest") or '""')
    current = absolute_path(manifest)
    if stored in ("", current):
        return ""
    return f"this batch was begun from {stored}: its rows that are not in {current} count as removed"


async def plan_batch(
    ledger: Ledger, manifest: Manifest, name: str, retry: RetrySelection, *, resubmit_in_doubt: bool = False
) -> BatchPlan:
    """Compare manifest and ledger, and make what follows from it durable. `name` is the files' template."""
    plan = make_plan(
        manifest.jobs,
        await ledger.load(),
        name_template=name,
        retry=retry,
        resubmit_in_doubt=resubmit_in_doubt,
    )
    if plan.added:
        await ledger.add(plan.added)
    if plan.positions:
        positions = {key: position for key, (position, _) in plan.positions.items()}
        await ledger.set_positions(positions, {key: line for key, (_, line) in plan.positions.items()})
    await ledger.commit_many([Transition(before, after) for before, after in plan.steps])
    await ledger.meta_set("manifest", json.dumps(absolute_path(manifest.path)))
    return plan


def report_start(
    plan: BatchPlan, loaded: LoadedManifest, cost_estimate: CostEstimate, observer: Observer, *notes: str
) -> None:
    """Say what this start is about to do, and what is unusual about it: warnings, edits, doubts."""
    for message in filter(None, (*notes, *map(str, loaded.manifest.warnings), *loaded.notes)):
        observer.on_event(Event(Topic.NOTE, message, Level.WARNING))
    if cost_estimate.rows:
        observer.on_event(Event(Topic.PLANNED, cost_estimate.to_text(), Level.WARNING))
    for old, new in plan.edited:
        kept = " (its video is kept)" if old.artifact else ""
        message = f"line {new.line}: {new.id} was edited: it is a new job; the old one stays as it is{kept}"
        observer.on_event(Event(Topic.NOTE, message, Level.WARNING, new.key))
    edited = {old.key for old, _ in plan.edited}
    removed = [record for record in plan.removed if record.key not in edited]
    if removed:
        message = (
            f"{len(removed)} row(s) are no longer in the manifest but were paid for: they are kept and listed"
        )
        observer.on_event(Event(Topic.NOTE, message, Level.WARNING))
    in_doubt = sum(record.state is State.IN_DOUBT for record in plan.records)
    if in_doubt:
        message = f"{in_doubt} row(s) are in doubt: the vendor's log is asked about them"
        observer.on_event(Event(Topic.IN_DOUBT, message, Level.WARNING))
