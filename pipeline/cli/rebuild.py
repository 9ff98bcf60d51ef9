"""`veobatch adopt MANIFEST --from results.csv`: a lost ledger made again from the table and the vendor's log.

What a row of the table says was bought becomes the manifest row's own again. The new ledger takes over the
old one's identity where that is known, so that the vendor's log still names its submissions.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final

import click

from pipeline import clocks
from pipeline.batch.ledger_access import open_exclusive_ledger
from pipeline.batch.own_files import is_our_csv, read_marker
from pipeline.batch.ownership import check_folder, claim_folder, set_aside_journals
from pipeline.batch.record_plan import plan_batch
from pipeline.client import Api
from pipeline.errors import ExitCode, UsageError
from pipeline.manifest import load
from pipeline.model import Artifact, Failure, Media, State, Transition
from pipeline.plan import RetrySelection
from pipeline.reconcile.request_log import fetch_whole_log
from pipeline.results.csv_rows import csv_value
from pipeline.runner.credentials import find_base_url, find_key
from pipeline.storage import open_store
from pipeline.submit.submission_journal import submission_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.batch.paths import BatchPaths
    from pipeline.client import LogRow
    from pipeline.ledger import Ledger
    from pipeline.model import Record
    from pipeline.storage import OutputStore

    Row = Mapping[str, str]

_COMPARED: Final = {"prompt": "prompt", "image_url": "manifest_image", "model": "model"}
"""The table's columns that name a row's content, and the record's fields of the same."""
_DIGEST_CHARS: Final = 16


async def rebuild_ledger(manifest: Path, table: Path, paths: BatchPaths, base_url: str | None) -> int:
    """Make the batch's ledger from `table`; return the exit code.

    Raises `UsageError` for a table that veobatch did not write and for a batch that has its ledger.
    """
    checked, rows = load(manifest), read_table(table)
    check_folder(paths, manifest, sandbox=False, begin_anew=True)
    identity = _former_identity(paths.folder, rows)
    what = f"veobatch adopt {manifest} --from {table}"
    store = open_store(paths.output)
    before = partial(set_aside_journals, paths.folder)
    async with open_exclusive_ledger(paths, what=what, identity=identity, before_open=before) as ledger:
        if await ledger.load():
            raise UsageError(f"{paths.folder} has its ledger: run the manifest to go on")
        plan = await plan_batch(ledger, checked, checked.run.get("name", "{id}"), RetrySelection())
        records = {record.id: record for record in plan.records if record.position >= 0}
        matched = {record.id: row for row in rows if (record := _match(row, records)) is not None}
        for name, row in matched.items():
            await _take_over(ledger, records[name], row, store)
        found, note = await _adopt_from_log(ledger, rows, base_url)
        await ledger.meta_set("vendor", _vendor_of(rows))
        sandbox = _vendor_of(rows) == "sandbox"
        await claim_folder(ledger, paths, manifest, sandbox=sandbox, begin_anew=True)
        counts = Counter(record.state.value for record in await ledger.load())
    await store.aclose()
    _report(counts, len(rows) - len(matched), found, note)
    return int(ExitCode.DONE)


def read_table(path: Path) -> list[Row]:
    """Return the rows of a results.csv with the texts as they were. Raises `UsageError` for another file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"--from {path} cannot be read: {error.strerror}") from error
    if not is_our_csv(data):
        raise UsageError(f"--from {path} is not a results.csv of veobatch")
    lines = data.decode("utf-8-sig", "replace").splitlines(keepends=True)
    return [
        {name: csv_value(cell or "") for name, cell in row.items() if name} for row in csv.DictReader(lines)
    ]


def _former_identity(folder: Path, rows: Sequence[Row]) -> str | None:
    marker = read_marker(folder)
    if marker is not None:
        return marker.identity
    parts = (row.get("correlation_id", "").split(".") for row in rows)
    return next((part[1] for part in parts if len(part) > 2 and part[0] == "vb"), None)


def _vendor_of(rows: Sequence[Row]) -> str:
    return "sandbox" if any(row.get("sandbox") == "true" for row in rows) else "api"


def _match(row: Row, records: Mapping[str, Record]) -> Record | None:
    """Return the manifest's row of the same id and content; an edited one has bought nothing."""
    record = records.get(row.get("id", ""))
    if record is None or record.state is not State.PENDING:
        return None
    same = all(
        getattr(record, field).strip() == row.get(column, "").strip() for column, field in _COMPARED.items()
    )
    return record if same else None


async def _take_over(ledger: Ledger, record: Record, row: Row, store: OutputStore) -> None:
    artifact = _artifact(row)
    if (
        artifact is not None
        and await store.fingerprint(artifact.path, artifact.size_bytes) != artifact.sha256
    ):
        artifact = None  # it was moved or changed: the next run fetches it again
    states = list(_states(record, row, artifact))
    chain = [Transition(before, after) for before, after in zip([record, *states], states, strict=False)]
    await ledger.commit_many(chain)


def _states(record: Record, row: Row, artifact: Artifact | None) -> Iterator[Record]:
    """Yield the records that lead from a pending row to what the table says of it."""
    status, sent_at = row.get("status", ""), _time(row.get("submitted_at"))
    failure = Failure(row.get("error_code") or "unknown", row.get("error_message", ""))
    correlation = row.get("correlation_id", "")
    submissions = submission_number(correlation)
    if row.get("generation_id"):
        record = record.evolve(
            State.GENERATING,
            generation_id=row["generation_id"],
            correlation_id=correlation,
            submitted_at=sent_at or clocks.wall(),
            accepted_at=sent_at or clocks.wall(),
            submission_no=submissions or 1,
            attempts=_whole_number(row.get("attempts")) or 1,
            polls=_whole_number(row.get("polls")) or 0,
            usd_spent=_number(row.get("usd_spent")),
            credits_used=_number(row.get("credits_used")),
        )
        yield record
        if status == "failed":
            yield record.evolve(State.FAILED, failure=failure)
        elif status == "done" and artifact is not None:
            finished = _time(row.get("finished_at"))
            record = record.evolve(State.READY, finished_at=finished, completed_at=finished or clocks.wall())
            yield record
            yield record.evolve(State.DONE, artifact=artifact, downloaded_at=_time(row.get("downloaded_at")))
    elif status == "in_doubt":
        record = record.evolve(
            State.SUBMITTING,
            correlation_id=correlation,
            submitted_at=sent_at or clocks.wall(),
            submission_no=submissions or 1,
        )
        yield record
        yield record.evolve(State.IN_DOUBT, doubted_at=sent_at or clocks.wall(), failure=failure)
    elif status == "failed":
        yield record.evolve(State.FAILED, failure=failure, submission_no=submissions)


def _artifact(row: Row) -> Artifact | None:
    size_bytes = _whole_number(row.get("bytes"))
    if (
        row.get("status") != "done"
        or size_bytes is None
        or not row.get("video_path")
        or not row.get("sha256")
    ):
        return None
    media = None
    width, height = _whole_number(row.get("width")), _whole_number(row.get("height"))
    if width and height:
        media = Media(
            duration_s=_number(row.get("duration_s")) or 0.0,
            width=width,
            height=height,
            fps=_number(row.get("fps")) or 0.0,
            has_audio=row.get("has_audio") == "true",
        )
    return Artifact(row["video_path"], size_bytes, row["sha256"], media, row.get("poster_path", ""))


async def _adopt_from_log(ledger: Ledger, rows: Sequence[Row], base_url: str | None) -> tuple[int, str]:
    """Adopt generations that only the vendor's log knows; return how many, and a warning if need be."""
    key = find_key(os.environ)
    if key is None:
        return 0, "the vendor's log was not asked, for want of a key: later submissions are not known"
    sent = [at for row in rows if (at := _time(row.get("submitted_at"))) is not None]
    if not sent:
        return 0, ""
    async with Api(find_base_url(base_url, os.environ), key) as api:
        log = await fetch_whole_log(api, min(sent), clocks.wall())
    known = {row.get("generation_id") for row in rows}
    records = {_digest(record): record for record in await ledger.load()}
    found = 0
    for entry in log.rows:
        record = _record_of(entry, ledger.identity, records)
        if record is None or entry.inference_id in known or entry.succeeded is False:
            continue
        adopted = _adopted(record, entry)
        await ledger.commit(record, adopted)
        records[_digest(record)] = adopted
        known.add(entry.inference_id)
        found += 1
    return found, f"the vendor's log could not be read to its end: {log.error}" if log.error else ""


def _record_of(entry: LogRow, identity: str, records: Mapping[str, Record]) -> Record | None:
    if not entry.client_request_id.startswith(f"vb.{identity}.") or not entry.inference_id:
        return None
    parts = entry.client_request_id.split(".")
    record = next((records[part] for part in parts if part in records), None)
    open_states = (State.PENDING, State.IN_DOUBT)
    return record if record is not None and record.state in open_states else None


def _adopted(record: Record, entry: LogRow) -> Record:
    sent_at = _time(entry.created) or clocks.wall()
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


def _digest(record: Record) -> str:
    return hashlib.sha256(record.key.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARS]


def _time(text: str | None) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except (ValueError, OverflowError):  # or a time before the first one that clocks know
        return None


def _whole_number(text: str | None) -> int | None:
    """Return a cell's number, None for none; a spreadsheet may have saved 1920 as 1920.0."""
    number = _number(text)
    return int(number) if number is not None and number.is_integer() else None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _report(counts: Counter[str], unmatched: int, found: int, note: str) -> None:
    states = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in sorted(counts.items()))
    click.echo(f"the ledger is made again: {states}")
    if found:
        click.echo(f"{found} of them come from the vendor's log alone")
    if unmatched:
        click.echo(f"{unmatched} rows of the table are not in the manifest as they were: they are left out")
    if note:
        click.echo(f"warning: {note}", err=True)
    click.echo("Next: run the manifest; what was bought is fetched and not paid for again")
