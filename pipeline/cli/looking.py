"""What the small commands do: look at a batch, project it again, take over a generation."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import anyio
import click

from pipeline.cli.ledger_access import held_ledger, looked_at
from pipeline.cli.paths import (
    DEFAULT_LEDGER,
    LedgerChoice,
    Place,
    existing_place,
    place_of,
)
from pipeline.cli.start import plan_batch
from pipeline.errors import ExitCode, StoreTrouble, UsageError
from pipeline.manifest import load
from pipeline.model import PAID, State
from pipeline.plan import Retry
from pipeline.results import CSV_NAME, REPORT_NAME
from pipeline.results.writer import Projector
from pipeline.storage import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.model import Record

WATCH_S = 1.0
OPEN = frozenset(State) - {State.DONE, State.FAILED}


def show_status(
    target: str, output: str | None, where: LedgerChoice = DEFAULT_LEDGER, *, as_json: bool, watch: bool
) -> int:
    """Print counts by state; while `watch`, again whenever they change, until no row is open."""
    return anyio.run(_show_status, existing_place(target, output, where), as_json, watch)


async def _show_status(place: Place, as_json: bool, watch: bool) -> int:
    last: Mapping[State, int] | None = None
    while True:
        counts = await _counts(place)
        if counts != last:
            click.echo(_counted(place, counts, as_json=as_json))
            sys.stdout.flush()
        last = counts
        if not watch or not any(counts.get(state, 0) for state in OPEN):
            return int(ExitCode.DONE)
        await anyio.sleep(WATCH_S)


async def _counts(place: Place) -> Mapping[State, int]:
    async with await looked_at(place) as ledger:
        return await ledger.counts()


def _counted(place: Place, counts: Mapping[State, int], *, as_json: bool) -> str:
    named = {state.value: counts.get(state, 0) for state in State}
    named["in_doubt"] += named.pop("submitting")
    if as_json:
        return json.dumps({"total": sum(named.values()), "counts": named, "home": str(place.home)})
    told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in named.items() if count)
    return f"{sum(named.values())} rows: {told or 'none'}"


def write_report(target: str, output: str | None, where: LedgerChoice = DEFAULT_LEDGER) -> int:
    """Write CSV and report from the ledger as it is; a run that is going on is not disturbed."""
    return anyio.run(_write_report, existing_place(target, output, where))


async def _write_report(place: Place) -> int:
    async with await looked_at(place) as ledger:
        records = await ledger.load()
        manifest = json.loads(await ledger.meta_get("manifest") or '""')
    store = open_store(place.output)
    try:
        projector = Projector(store, title=place.home.name, manifest=manifest)
        if not await projector.finish(records):
            raise StoreTrouble(f"{place.output} cannot be written")
    finally:
        await store.aclose()
    click.echo(f"{place.show(CSV_NAME)}\n{place.show(REPORT_NAME)}")
    return int(ExitCode.DONE)


def adopt(
    manifest: Path, job: str, generation_id: str, output: str | None, where: LedgerChoice = DEFAULT_LEDGER
) -> int:
    """Make `generation_id` the generation of the row with the id `job`.

    Raises `UsageError` when there is no such row, when it has a generation of its own, or when another
    row has this one already.
    """
    if not generation_id.strip():
        raise UsageError("the generation id is empty")
    return anyio.run(_adopt, manifest, job, generation_id, place_of(manifest, output, where))


async def _adopt(manifest: Path, job: str, generation_id: str, place: Place) -> int:
    checked = load(manifest)
    if not any(candidate.id == job for candidate in checked.jobs):
        raise UsageError(f"{manifest} has no row with the id {job!r}")
    async with held_ledger(place, what=f"veobatch adopt {manifest}") as ledger:
        name = checked.run.get("name", "{id}")
        plan = await plan_batch(ledger, checked, name, Retry())
        record = _adopter(plan.records, job, generation_id)
        await ledger.commit(record, _adopted(record, generation_id))
    click.echo(f"{job} has taken over {generation_id}; run the manifest to fetch it")
    return int(ExitCode.DONE)


def _adopter(records: tuple[Record, ...], job: str, generation_id: str) -> Record:
    taken = next((record for record in records if record.generation_id == generation_id), None)
    if taken is not None:
        raise UsageError(f"{generation_id} is the generation of {taken.id} already")
    record = next(record for record in records if record.id == job and record.position >= 0)
    if record.state in PAID:
        raise UsageError(f"{job} has a generation of its own ({record.generation_id}, {record.state})")
    return record


def _adopted(record: Record, generation_id: str) -> Record:
    now = time.time()
    return record.evolve(
        State.GENERATING,
        generation_id=generation_id,
        submitted_at=record.submitted_at or now,
        accepted_at=now,
        failure=None,
        finished_at=None,
        reserved_usd=None,
    )
