"""`veobatch adopt MANIFEST --from results.csv`: a lost ledger made again from the table and the vendor's log.

What a row of the table says was bought becomes the manifest row's own again. The new ledger takes over the
old one's identity where that is known, so that the vendor's log still names its submissions.

All is read and compared before the first row is written, and all rows are written at once: a ledger in which
some are missing would buy those again. Until then the ledger says `REBUILDING`, which no run goes on with.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import click
from anyio import to_thread

from pipeline import clocks
from pipeline.batch.ledger_access import open_exclusive_ledger
from pipeline.batch.own_files import is_bought, read_marker
from pipeline.batch.ownership import check_folder, claim_folder, set_aside_journals
from pipeline.batch.record_plan import REBUILDING, absolute_path
from pipeline.batch.results_table import (
    artifact_of,
    bought_models,
    choose_rows,
    identities_in,
    read_table,
    record_of,
    submission_times,
)
from pipeline.batch.retakes import Retakes
from pipeline.client import Api
from pipeline.errors import ExitCode, UsageError
from pipeline.manifest.jobs import with_extra_takes
from pipeline.model import State
from pipeline.plan import make_plan
from pipeline.reconcile.request_log import fetch_whole_log, parse_time
from pipeline.row_keys import canonical_id, row_id
from pipeline.runner.credentials import find_base_url, find_key
from pipeline.runner.manifest_loading import load_by_catalogue
from pipeline.storage import open_store
from pipeline.submit.create import row_digest
from pipeline.submit.submission_journal import submission_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pipeline.batch.paths import BatchPaths
    from pipeline.batch.results_table import Row
    from pipeline.client import LogRow
    from pipeline.ledger import Ledger
    from pipeline.manifest import Manifest
    from pipeline.model import Record
    from pipeline.runner.manifest_loading import ManifestChoice
    from pipeline.storage import OutputStore


@dataclass(frozen=True, slots=True)
class _Rebuilt:
    """All rows of the batch as they will be written; `extra_takes` are those beyond the manifest's own.

    `left_out` are bought rows of the table that the manifest does not have, `found` counts the rows that only
    the vendor's log knows, and `note` says why the log was not read, or not to its end.
    """

    records: tuple[Record, ...]
    extra_takes: Mapping[str, list[int]]
    left_out: tuple[Row, ...] = ()
    found: int = 0
    note: str = ""


async def rebuild_ledger(choice: ManifestChoice, table: Path, paths: BatchPaths) -> int:
    """Make the batch's ledger from `table`; return the exit code. What fails changes nothing.

    Raises `UsageError` for a table that veobatch did not write or that cannot be read, and for a batch that
    has its ledger; `StoreError` when the saved clips cannot be read.
    """
    rows = await to_thread.run_sync(read_table, table)
    checked = await load_by_catalogue(choice)
    check_folder(paths, choice.path, sandbox=False, begin_anew=True)
    identity = _former_identity(paths.folder, rows)
    what = f"veobatch adopt {choice.path} --from {table}"
    before = partial(set_aside_journals, paths.folder)
    store = open_store(paths.output)
    try:
        async with open_exclusive_ledger(paths, what=what, identity=identity, before_open=before) as ledger:
            await _begin(ledger, paths)
            rebuilt = await _rebuild(ledger, checked, rows, store, choice.base_url)
            await _write(ledger, rebuilt, choice.path, paths, rows)
            counts = Counter(record.state.value for record in await ledger.load())
    finally:
        await store.aclose()
    _report(counts, rebuilt)
    return int(ExitCode.DONE)


def _former_identity(folder: Path, rows: Sequence[Row]) -> str | None:
    """Return the lost ledger's identity. Raises `UsageError` for the table of another folder's batch."""
    marker, found = read_marker(folder), identities_in(rows)
    if marker is not None and found and marker.identity not in found:
        raise UsageError(
            f"{folder} belongs to another batch than the table, the one that was begun from "
            f"{marker.manifest}: give this one a folder of its own with --output"
        )
    return marker.identity if marker is not None else min(found, default=None)


async def _begin(ledger: Ledger, paths: BatchPaths) -> None:
    """Note that the ledger is being made. Raises `UsageError` for one that is whole."""
    if await ledger.meta_get("vendor") == REBUILDING:
        return
    if await ledger.load():
        raise UsageError(f"{paths.folder} has its ledger: run the manifest to go on")
    await ledger.meta_set("vendor", REBUILDING)


async def _rebuild(
    ledger: Ledger, checked: Manifest, rows: Sequence[Row], store: OutputStore, base_url: str | None
) -> _Rebuilt:
    """Read and compare everything; return the rows to write, and write none."""
    extra = _extra_takes(checked, rows)
    jobs = with_extra_takes(checked.jobs, extra)
    planned = make_plan(jobs, (), name_template=checked.run.get("name", "{id}")).records
    chosen, left_out = choose_rows(rows, {record.id: record for record in planned})
    _refuse_other_model(checked, left_out, is_whole=len(chosen) == len(planned))
    records = {}
    for record in planned:
        row = chosen.get(record.key)
        records[record.key] = record if row is None else await _taken_over(record, row, store)
    found, note = await _add_from_log(records, rows, ledger.identity, base_url)
    return _Rebuilt(tuple(records.values()), extra, tuple(left_out), found, note)


def _extra_takes(checked: Manifest, rows: Iterable[Row]) -> Mapping[str, list[int]]:
    """Return the bought takes that the manifest does not have by itself, by the key of the row's first."""
    jobs = {canonical_id(job.id): job for job in checked.jobs}
    extra: dict[str, list[int]] = {}
    for row in rows:
        name, take = canonical_id(row.get("id", "")), row.get("take", "")
        first = jobs.get(row_id(name, int(take))) if take.isdecimal() and int(take) > 1 else None
        if first is not None and name not in jobs and is_bought(row):
            extra.setdefault(first.key, []).append(int(take))
    return extra


def _refuse_other_model(checked: Manifest, left_out: Sequence[Row], *, is_whole: bool) -> None:
    """Raise `UsageError` for rows that were bought with a model that a run was given beside the manifest."""
    others = bought_models(left_out) - {job.model for job in checked.jobs}
    if others and not is_whole:
        names = ", ".join(sorted(others))
        raise UsageError(
            f"{len(left_out)} paid rows of the table are of the model {names}, which the manifest does not "
            f"name: give --model {min(others)} here, if that is how the batch was run, and with every run; "
            "else put the manifest back as it was. Nothing was changed"
        )


async def _taken_over(record: Record, row: Row, store: OutputStore) -> Record:
    artifact = artifact_of(row)
    if artifact is not None:
        record_of(record, row, artifact)  # a cell that cannot be read is said before a long file is
        if await store.fingerprint(artifact.path, artifact.size_bytes) != artifact.sha256:
            artifact = None  # it was moved or changed: the next run fetches it again
    return record_of(record, row, artifact)


async def _add_from_log(
    records: dict[str, Record], rows: Sequence[Row], identity: str, base_url: str | None
) -> tuple[int, str]:
    """Give rows the generations that only the vendor's log knows; return how many, and a warning if need be.

    A generation of the table is known only if its row was taken over.
    """
    key = find_key(os.environ)
    if key is None:
        return 0, "the vendor's log was not asked, for want of a key: later submissions are not known"
    sent = submission_times(rows)
    if not sent:
        return 0, ""
    async with Api(find_base_url(base_url, os.environ), key) as api:
        log = await fetch_whole_log(api, min(sent), clocks.wall())
    known = {record.generation_id for record in records.values()}
    by_digest = {row_digest(record): record.key for record in records.values()}
    found = 0
    for entry in log.rows:
        name = _key_of(entry, identity, by_digest)
        record = records.get(name)
        if record is None or record.state not in (State.PENDING, State.IN_DOUBT):
            continue
        if entry.inference_id in known or entry.succeeded is False:
            continue
        records[name] = _adopted(record, entry)
        known.add(entry.inference_id)
        found += 1
    return found, f"the vendor's log could not be read to its end: {log.error}" if log.error else ""


def _key_of(entry: LogRow, identity: str, by_digest: Mapping[str, str]) -> str:
    """Return the key of the row whose submission the log shows here, "" for a request of others."""
    if not entry.client_request_id.startswith(f"vb.{identity}.") or not entry.inference_id:
        return ""
    parts = entry.client_request_id.split(".")
    return next((by_digest[part] for part in parts if part in by_digest), "")


def _adopted(record: Record, entry: LogRow) -> Record:
    sent_at = parse_time(entry.created) or clocks.wall()
    return record.evolve(
        State.GENERATING,
        generation_id=entry.inference_id,
        correlation_id=entry.client_request_id,
        submission_no=submission_number(entry.client_request_id) or record.submission_no + 1,
        submitted_at=record.submitted_at or sent_at,
        accepted_at=sent_at,
        completed_at=sent_at if entry.is_charged else None,
        failure=None,
    )


async def _write(
    ledger: Ledger, rebuilt: _Rebuilt, manifest: Path, paths: BatchPaths, rows: Iterable[Row]
) -> None:
    """Write all rows in one transaction; what a kill has left of this is written again."""
    is_sandbox = any(row.get("sandbox") == "true" for row in rows)
    if rebuilt.extra_takes:
        retakes = await Retakes.load(ledger)
        await replace(retakes, extra=dict(rebuilt.extra_takes)).save(ledger)
    await ledger.meta_set("manifest", json.dumps(absolute_path(manifest)))
    if not await ledger.load():
        await ledger.add(rebuilt.records)
    await claim_folder(ledger, paths, manifest, sandbox=is_sandbox, begin_anew=True)
    # Last, since it ends `REBUILDING`: from here on a run may buy what is pending.
    await ledger.meta_set("vendor", "sandbox" if is_sandbox else "api")


def _report(counts: Counter[str], rebuilt: _Rebuilt) -> None:
    states = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in sorted(counts.items()))
    click.echo(f"the ledger is made again: {states}")
    if rebuilt.found:
        click.echo(f"{rebuilt.found} of them come from the vendor's log alone")
    if rebuilt.left_out:
        ids = ", ".join(row.get("id", "") for row in rebuilt.left_out[:5])
        click.echo(
            f"{len(rebuilt.left_out)} paid rows of the table are left out, since the manifest does not have "
            f"them as they were, or another row has their generation: {ids}"
        )
    if rebuilt.note:
        click.echo(f"warning: {rebuilt.note}", err=True)
    click.echo("Next: run the manifest; what was bought is fetched and not paid for again")
