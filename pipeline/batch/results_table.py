"""A results.csv read back: its rows as the texts that they were made of, and the records they stand for.

What cannot be read is an error that names the row: a number that is guessed would be money that is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeVar

from pipeline import clocks
from pipeline.batch.own_files import is_bought, is_our_csv, table_rows
from pipeline.errors import UsageError
from pipeline.manifest.identity import canonical_text, has_one_spelling
from pipeline.manifest.local_files import image_sha256
from pipeline.model import Artifact, Failure, Media, State
from pipeline.reconcile.request_log import parse_time
from pipeline.results.csv_rows import csv_text, csv_value
from pipeline.row_keys import canonical_id
from pipeline.submit.create import row_digest
from pipeline.submit.submission_journal import submission_number, submitted_row_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from pipeline.model import Record

_T = TypeVar("_T")

Row = Mapping[str, str]
"""A row of the table by its columns' names, each cell as the text that it was made of."""

_TEXTS: Final = ("id", "prompt", "image_url")
"""The columns that show the texts of which a row's key is made."""


def read_table(path: Path) -> list[Row]:
    """Return the rows of a results.csv with the texts as they were. Raises `UsageError` for another file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"--from {path} cannot be read: {error.strerror}") from error
    if not is_our_csv(data):
        raise UsageError(f"--from {path} is not a results.csv of veobatch")
    return [
        {name: csv_value(cell or "") for name, cell in row.items() if name and not isinstance(cell, list)}
        for row in table_rows(data)
    ]


def identities_in(rows: Iterable[Row]) -> frozenset[str]:
    """Return the identities of the ledgers that sent the rows' submissions."""
    parts = (row.get("correlation_id", "").split(".") for row in rows)
    return frozenset(part[1] for part in parts if len(part) > 2 and part[0] == "vb")


def submission_times(rows: Iterable[Row]) -> list[float]:
    """Return when the rows were submitted, in epoch seconds; rows that were not are missing."""
    times = (_time(row, "submitted_at") for row in rows)
    return [at for at in times if at is not None]


def bought_models(rows: Iterable[Row]) -> frozenset[str]:
    """Return the models of the rows that were submitted."""
    return frozenset(row["model"] for row in rows if is_bought(row) and row.get("model"))


def has_content_of(row: Row, record: Record) -> bool:
    """Return whether a row of the table has a record's content.

    The digest in its correlation id says so exactly, unless the row was sent under the key of an earlier
    version: then, and in tables without that column, it is judged by what the table shows.
    """
    digest = submitted_row_digest(row.get("correlation_id", ""))
    if digest == row_digest(record):
        return True
    if digest and has_one_spelling(record) and all(_has_one_spelling(row.get(name, "")) for name in _TEXTS):
        return False
    before, now = row.get("image_sha256", ""), image_sha256(record.body)
    is_same_image = (
        before == now if before and now else _is_same(row.get("image_url", ""), record.manifest_image)
    )
    texts = ((row.get("prompt", ""), record.prompt), (row.get("model", ""), record.model))
    return is_same_image and all(_is_same(*pair) for pair in texts)


def _has_one_spelling(text: str) -> bool:
    return text == canonical_text(text)


def _is_same(read: str, text: str) -> bool:
    # Characters that the table cannot hold are replaced in it.
    written = csv_value(csv_text(text))
    # A text that begins as a guarded cell does had no guard of its own in earlier versions' tables.
    candidates = {canonical_text(written), canonical_text(written.removeprefix("'"))}
    return canonical_text(read) in candidates


def artifact_of(row: Row) -> Artifact | None:
    """Return the saved clip that a row names. Raises `UsageError` for a cell that is no number."""
    if row.get("status") != "done" or not row.get("video_path") or not row.get("sha256"):
        return None
    media = None
    if row.get("width"):
        media = Media(
            duration_s=_number(row, "duration_s") or 0.0,
            width=_whole_number(row, "width"),
            height=_whole_number(row, "height"),
            fps=_number(row, "fps") or 0.0,
            has_audio=row.get("has_audio") == "true",
        )
    size = _whole_number(row, "bytes")
    return Artifact(row["video_path"], size, row["sha256"], media, row.get("poster_path", ""))


def record_of(record: Record, row: Row, artifact: Artifact | None) -> Record:
    """Return a pending record as the table says that it stands; `artifact` is its clip, if that is whole.

    Raises `UsageError` for a cell that is no number or no time.
    """
    for state in _states(record, row, artifact):
        record = state
    return record


def _states(record: Record, row: Row, artifact: Artifact | None) -> Iterator[Record]:
    """Yield the records that lead from a pending row to what the table says of it."""
    status, sent_at = row.get("status", ""), _time(row, "submitted_at")
    failure = Failure(row.get("error_code") or "unknown", row.get("error_message", ""))
    correlation = row.get("correlation_id", "")
    submissions = submission_number(correlation)
    if row.get("generation_id"):
        yield from _bought_states(record, row, artifact)
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


def _bought_states(record: Record, row: Row, artifact: Artifact | None) -> Iterator[Record]:
    status, correlation = row.get("status", ""), row.get("correlation_id", "")
    sent_at, finished_at = _time(row, "submitted_at"), _time(row, "finished_at")
    was_completed = status in ("ready", "done")
    record = record.evolve(
        State.GENERATING,
        generation_id=row["generation_id"],
        correlation_id=correlation,
        submitted_at=sent_at or clocks.wall(),
        accepted_at=sent_at or clocks.wall(),
        submission_no=submission_number(correlation) or 1,
        attempts=_whole_number(row, "attempts", 1),
        polls=_whole_number(row, "polls", 0),
        usd_spent=_number(row, "usd_spent"),
        credits_used=_number(row, "credits_used"),
        completed_at=(finished_at or clocks.wall()) if was_completed else None,
    )
    yield record
    if status == "failed":
        failure = Failure(row.get("error_code") or "unknown", row.get("error_message", ""))
        yield record.evolve(State.FAILED, failure=failure)
    elif status == "done" and artifact is not None:
        record = record.evolve(State.READY, finished_at=finished_at)
        yield record
        yield record.evolve(State.DONE, artifact=artifact, downloaded_at=_time(row, "downloaded_at"))


def _time(row: Row, column: str) -> float | None:
    return _parsed(row, column, parse_time, "time (ISO 8601)") if row.get(column) else None


def _number(row: Row, column: str) -> float | None:
    return _parsed(row, column, _finite, "number") if row.get(column) else None


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _whole_number(row: Row, column: str, default: int | None = None) -> int:
    if default is not None and not row.get(column):
        return default
    return _parsed(row, column, _whole, "whole number")


def _whole(text: str) -> int | None:
    """Read a whole number, also as a spreadsheet saves it: `64.0`."""
    whole, _, decimals = text.strip().partition(".")
    return None if decimals.strip("0") else int(whole)


def _parsed(row: Row, column: str, parse: Callable[[str], _T | None], kind: str) -> _T:
    text = row.get(column, "")
    try:
        value = parse(text)
    except ValueError:
        value = None
    if value is None:
        name = row.get("id", "")
        raise UsageError(
            f"the table's row {name!r} has {text!r} in the column {column}, which is no {kind}: mend the "
            "cell, and give the command again. Nothing was submitted"
        )
    return value


def choose_rows(rows: Sequence[Row], records: Mapping[str, Record]) -> tuple[dict[str, Row], list[Row]]:
    """Return the table's row of each record by its key, and the bought rows that are no record's.

    `records` are the manifest's, by id. An edited row has bought nothing, and no two rows share a generation.
    """
    by_id = {canonical_id(row_id): record for row_id, record in records.items()}
    chosen: dict[str, Row] = {}
    left_out: list[Row] = []
    owners: set[str] = set()
    for row in sorted(rows, key=lambda row: not row.get("generation_id")):  # what was bought comes first
        record = by_id.get(canonical_id(row.get("id", "")))
        generation = row.get("generation_id", "")
        if record is None or record.key in chosen or generation in owners or not has_content_of(row, record):
            if is_bought(row):
                left_out.append(row)
            continue
        chosen[record.key] = row
        owners |= {generation} - {""}
    return chosen, left_out
