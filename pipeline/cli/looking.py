"""What the small commands do: look at a batch, project it again, take over a generation."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import anyio
import click

from pipeline.cli.ledger_access import open_exclusive_ledger, open_read_only_ledger
from pipeline.cli.paths import (
    DEFAULT_LEDGER_CHOICE,
    BatchPaths,
    LedgerChoice,
    batch_paths,
    existing_batch_paths,
)
from pipeline.cli.start import plan_batch
from pipeline.errors import ExitCode, StoreError, UsageError
from pipeline.manifest import load
from pipeline.model import PAID, State
from pipeline.plan import RetrySelection
from pipeline.results import CSV_NAME, REPORT_NAME
from pipeline.results.writer import ResultsWriter
from pipeline.storage import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.model import Record

WATCH_INTERVAL_S = 1.0
OPEN_STATES = frozenset(State) - {State.DONE, State.FAILED}


def show_status(
    target: str,
    output: str | None,
    ledger_choice: LedgerChoice = DEFAULT_LEDGER_CHOICE,
    *,
    as_json: bool,
    watch: bool,
) -> int:
    """Print counts by state; while `watch`, again whenever they change, until no row is open."""
    return anyio.run(_show_status, existing_batch_paths(target, output, ledger_choice), as_json, watch)


async def _show_status(paths: BatchPaths, as_json: bool, watch: bool) -> int:
    last: Mapping[State, int] | None = None
    while True:
        counts = await _load_counts(paths)
        if counts != last:
            click.echo(_format_counts(paths, counts, as_json=as_json))
            sys.stdout.flush()
        last = counts
        if not watch or not any(counts.get(state, 0) for state in OPEN_STATES):
            return int(ExitCode.DONE)
        await anyio.sleep(WATCH_INTERVAL_S)


async def _load_counts(paths: BatchPaths) -> Mapping[State, int]:
    async with await open_read_only_ledger(paths) as ledger:
        return await ledger.counts()


def _format_counts(paths: BatchPaths, counts: Mapping[State, int], *, as_json: bool) -> str:
    by_name = {state.value: counts.get(state, 0) for state in State}
    by_name["in_doubt"] += by_name.pop("submitting")
    if as_json:
        return json.dumps({"total": sum(by_name.values()), "counts": by_name, "home": str(paths.folder)})
    parts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in by_name.items() if count)
    return f"{sum(by_name.values())} rows: {parts or 'none'}"


def write_report(target: str, output: str | None, ledger_choice: LedgerChoice = DEFAULT_LEDGER_CHOICE) -> int:
    """Write CSV and report from the ledger as it is; a run that is going on is not disturbed."""
    return anyio.run(_write_report, existing_batch_paths(target, output, ledger_choice))


async def _write_report(paths: BatchPaths) -> int:
    async with await open_read_only_ledger(paths) as ledger:
        records = await ledger.load()
        manifest = json.loads(await ledger.meta_get("manifest") or '""')
    store = open_store(paths.output)
    try:
        writer = ResultsWriter(store, title=paths.folder.name, manifest=manifest)
        if not await writer.finish(records):
            raise StoreError(f"{paths.output} cannot be written")
    finally:
        await store.aclose()
    click.echo(f"{paths.output_path(CSV_NAME)}\n{paths.output_path(REPORT_NAME)}")
    return int(ExitCode.DONE)


def adopt(
    manifest: Path,
    job: str,
    generation_id: str,
    output: str | None,
    ledger_choice: LedgerChoice = DEFAULT_LEDGER_CHOICE,
) -> int:
    """Make `generation_id` the generation of the row with the id `job`.

    Raises `UsageError` when there is no such row, when it has a generation of its own, or when another
    row has this one already.
    """
    if not generation_id.strip():
        raise UsageError("the generation id is empty")
    return anyio.run(_adopt, manifest, job, generation_id, batch_paths(manifest, output, ledger_choice))


async def _adopt(manifest: Path, job: str, generation_id: str, paths: BatchPaths) -> int:
    checked = load(manifest)
    if not any(candidate.id == job for candidate in checked.jobs):
        raise UsageError(f"{manifest} has no row with the id {job!r}")
    async with open_exclusive_ledger(paths, what=f"veobatch adopt {manifest}") as ledger:
        name = checked.run.get("name", "{id}")
        plan = await plan_batch(ledger, checked, name, RetrySelection())
        record = _find_adopting_record(plan.records, job, generation_id)
        await ledger.commit(record, _with_generation(record, generation_id))
    click.echo(f"{job} has taken over {generation_id}; run the manifest to fetch it")
    return int(ExitCode.DONE)


def _find_adopting_record(records: tuple[Record, ...], job: str, generation_id: str) -> Record:
    owner = next((record for record in records if record.generation_id == generation_id), None)
    if owner is not None:
        raise UsageError(f"{generation_id} is the generation of {owner.id} already")
    record = next(record for record in records if record.id == job and record.position >= 0)
    if record.state in PAID:
        raise UsageError(f"{job} has a generation of its own ({record.generation_id}, {record.state})")
    return record


def _with_generation(record: Record, generation_id: str) -> Record:
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
