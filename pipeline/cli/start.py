"""How a run starts: the stand-in if wanted, the checked manifest, the plan made durable, and what is said.

Everything here happens before the first create may leave.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import click

from pipeline.cli.manifest_loading import second_look, with_images
from pipeline.errors import UsageError
from pipeline.events import Event, Level, Topic
from pipeline.model import State, Transition
from pipeline.plan import Plan, Retry, make_plan

if TYPE_CHECKING:
    from contextlib import AsyncExitStack
    from pathlib import Path

    from pipeline.cli.cost_prompt import Estimate
    from pipeline.cli.manifest_loading import Loaded
    from pipeline.cli.request import Batch
    from pipeline.client.catalog import Catalogue
    from pipeline.events import Observer
    from pipeline.ledger import Ledger
    from pipeline.manifest import Manifest

SANDBOX: Final = "sandbox"


async def start_sandbox(stack: AsyncExitStack, batch: Batch) -> str:
    """Start the stand-in inside this process, where an earlier run's left off; return its URL."""
    from pipeline.sandbox import Sandbox, SandboxOptions

    options = SandboxOptions(
        speed=batch.request.sandbox_speed,
        balance_usd=1_000_000.0,  # for all runs of the batch: the journal remembers what they were charged
        journal=batch.place.home / "sandbox.jsonl",
    )
    box = await stack.enter_async_context(Sandbox(options))
    for note in box.notes:
        click.echo(note, err=True)
    return str(box.url)


async def load_batch(batch: Batch, catalogue: Catalogue) -> Loaded:
    """Check the manifest's other models by the catalogue, and its images when asked to."""
    loaded = await second_look(batch.first, catalogue)
    if batch.settings.check_images:
        loaded = await with_images(loaded, batch.settings.allow_private_images)
    return loaded


async def same_vendor(ledger: Ledger, *, sandbox: bool, home: Path) -> None:
    """Keep free clips and paid ones apart: a ledger belongs to the sandbox or to the API for good."""
    was = await ledger.meta_get("vendor")
    now = SANDBOX if sandbox else "api"
    if was is None:
        await ledger.meta_set("vendor", now)
    elif was != now:
        made = "by the sandbox" if was == SANDBOX else "by the real API"
        raise UsageError(f"{home} holds clips made {made}: give another --output, or move that folder away")


def whole_path(manifest: Path) -> str:
    return str(manifest.absolute())


async def other_manifest(ledger: Ledger, manifest: Path) -> str:
    """Return words of warning when the batch was begun from another file, else nothing.

    Two manifests of one name share a folder unless `--output` says otherwise; a moved one keeps it.
    """
    was = json.loads(await ledger.meta_get("manifest") or '""')
    now = whole_path(manifest)
    if was in ("", now):
        return ""
    return f"this batch was begun from {was}: its rows that are not in {now} count as removed"


async def plan_batch(
    ledger: Ledger, manifest: Manifest, name: str, retry: Retry, *, resubmit_in_doubt: bool = False
) -> Plan:
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
    if plan.places:
        positions = {key: position for key, (position, _) in plan.places.items()}
        await ledger.place(positions, {key: line for key, (_, line) in plan.places.items()})
    await ledger.commit_many([Transition(before, after) for before, after in plan.steps])
    await ledger.meta_set("manifest", json.dumps(whole_path(manifest.path)))
    return plan


def tell_start(plan: Plan, loaded: Loaded, cost: Estimate, observer: Observer, *notes: str) -> None:
    """Say what this start is about to do, and what is unusual about it: warnings, edits, doubts."""
    for words in filter(None, (*notes, *map(str, loaded.manifest.warnings), *loaded.notes)):
        observer.said(Event(Topic.NOTE, words, Level.WARNING))
    if cost.rows:
        observer.said(Event(Topic.PLANNED, cost.words(), Level.WARNING))
    for old, new in plan.edited:
        kept = " (its video is kept)" if old.artifact else ""
        words = f"line {new.line}: {new.id} was edited: it is a new job; the old one stays as it is{kept}"
        observer.said(Event(Topic.NOTE, words, Level.WARNING, new.key))
    edited = {old.key for old, _ in plan.edited}
    gone = [record for record in plan.removed if record.key not in edited]
    if gone:
        words = (
            f"{len(gone)} row(s) are no longer in the manifest but were paid for: they are kept and listed"
        )
        observer.said(Event(Topic.NOTE, words, Level.WARNING))
    doubts = sum(record.state is State.IN_DOUBT for record in plan.records)
    if doubts:
        words = f"{doubts} row(s) are in doubt: the vendor's log is asked about them"
        observer.said(Event(Topic.IN_DOUBT, words, Level.WARNING))
