"""What to do with each row: a manifest and the ledger's records in, a `Plan` out. Pure.

Nothing paid is judged by new rules here: a record beyond `pending` keeps the body it was sent with. An
edited row is a new job, since its key holds its content; the old one's record stays where it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Final, assert_never

from pipeline.batch_plan import BatchPlan
from pipeline.filenames import assign_stems, file_stem, image_stem, safe_stem
from pipeline.manifest.fields import BUILT_IN_MODEL, VEO_RULES
from pipeline.manifest.identity import rekeyed
from pipeline.manifest.local_files import image_sha256
from pipeline.model import MAYBE_PAID_STATES, Failure, Job, Record, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

NOT_A_VIDEO: Final = "not_a_video"
NO_VIDEO: Final = "no_video"
GENERATION_UNKNOWN: Final = "generation_unknown"
PAID_FAILURES: Final = frozenset({NOT_A_VIDEO, NO_VIDEO})
"""Failures after the vendor called the generation completed: it may be charged, so a retry fetches that
generation again and never buys another."""

_place_of: Final = attrgetter("position", "key")


@dataclass(frozen=True, slots=True)
class RetrySelection:
    """The user's wish to try failed rows again: all that are selected by id, or those with one of `codes`.

    `is_selected` counts for rows in doubt, too.
    """

    enabled: bool = False
    codes: frozenset[str] = frozenset()
    is_selected: Callable[[str], bool] = lambda _: True

    def covers(self, record: Record) -> bool:
        if not self.enabled or not self.is_selected(record.id):
            return False
        failure = record.failure
        return not self.codes or (failure is not None and failure.code in self.codes)


def make_plan(
    jobs: Sequence[Job],
    existing: Iterable[Record],
    *,
    name_template: str = "{id}",
    retry: RetrySelection | None = None,
    resubmit_in_doubt: bool = False,
) -> BatchPlan:
    """Compare the manifest with the ledger. `existing` is every record of the batch."""
    retry = retry or RetrySelection()
    records = {record.key: record for record in existing}
    present = _as_first_written({job.key: job for job in jobs}, records)
    positions: dict[str, tuple[int, int]] = {}
    for key, record in records.items():
        job = present.get(key)
        # A row that has left the manifest keeps its record, at -1: it may be paid for.
        position, line = (job.index, job.line) if job else (-1, record.line)
        if position != record.position or line != record.line:
            positions[key] = position, line
            records[key] = replace(record, position=position, line=line)
    added = _new_records([job for key, job in present.items() if key not in records], records, name_template)
    transitions = _transitions(records.values(), present)
    records.update((after.key, after) for _, after in transitions)
    requeues = [
        (record, again)
        for record in records.values()
        if (again := requeued(record, retry, resubmit_in_doubt=resubmit_in_doubt)) is not None
    ]
    all_records = sorted((*records.values(), *added), key=_place_of)
    gone = [record for record in all_records if record.position < 0]
    removed = tuple(record for record in gone if has_money_in_it(record))
    return BatchPlan(
        (*all_records[len(gone) :], *gone),
        tuple(added),
        transitions,
        positions,
        _edited_pairs(added, records),
        removed,
        tuple(requeues),
    )


def _transitions(records: Iterable[Record], present: Mapping[str, Job]) -> tuple[tuple[Record, Record], ...]:
    """Return what becomes of records by what the last run left of them, and by their pictures' new names."""
    transitions = []
    for record in records:
        after = mark_interrupted(record) if record.state is State.SUBMITTING else None
        if (job := present.get(record.key)) is not None and _was_renamed(record, job):
            after = replace(after or record.evolve(record.state), manifest_image=job.manifest_image)
        if after is not None:
            transitions.append((record, after))
    return tuple(transitions)


def _as_first_written(jobs: Mapping[str, Job], records: Mapping[str, Record]) -> Mapping[str, Job]:
    """Return the jobs by key, those that the ledger knows in another spelling as they are known there."""
    found = rekeyed(jobs, records)
    if not found:
        return jobs
    known = {
        key: (record.key, replace(jobs[key], id=record.id, fingerprint=record.fingerprint))
        for key, record in found.items()
    }
    return dict(known.get(key, (key, job)) for key, job in jobs.items())


def _new_records(jobs: Sequence[Job], known: Mapping[str, Record], template: str) -> list[Record]:
    taken = {key: record.file_stem for key, record in known.items() if record.file_stem}
    wanted = [(job.key, wanted_stem(template, job)) for job in jobs]
    stems = assign_stems(wanted, taken)
    records, previous_line = [], -1
    for job in jobs:
        # Most are as in `to_records`, which shares them: a row a line, and named after its id.
        position = previous_line if job.index == previous_line else job.index
        stem = job.id if stems[job.key] == job.id else stems[job.key]
        records.append(new_record(job, stem, position))
        previous_line = job.line
    return records


def wanted_stem(template: str, job: Job) -> str:
    """Return the stem of a job's files: that of its row, with the number of the take behind it.

    Raises `UsageError` when the template uses a field that the row does not have.
    """
    body = VEO_RULES.with_defaults(job.body) if job.model == BUILT_IN_MODEL else job.body
    stem = file_stem(
        template,
        id=job.row_id,
        index=job.index,
        fingerprint=job.fingerprint,
        model=job.model,
        prompt=job.prompt,
        image=image_stem(job.manifest_image),
        fields=body,
    )
    return stem if job.take == 1 else safe_stem(f"{stem}.{job.take}")


def new_record(job: Job, stem: str, position: int | None = None) -> Record:
    """Return the pending record of a job that the ledger does not know yet; `position` is the job's index."""
    return Record(
        key=job.key,
        id=job.id,
        fingerprint=job.fingerprint,
        position=job.index if position is None else position,
        line=job.line,
        model=job.model,
        body=json.dumps(job.body, ensure_ascii=False, separators=(",", ":")),
        manifest_image=job.manifest_image,
        prompt=job.prompt,
        file_stem=stem,
        take=job.take,
    )


def requeued(record: Record, retry: RetrySelection, *, resubmit_in_doubt: bool = False) -> Record | None:
    """Return what a record becomes by what its user asks for this once, or None when it stays."""
    match record.state:
        case State.DONE | State.READY | State.GENERATING | State.PENDING:  # nearly all, so they come first
            return None
        case State.SUBMITTING | State.IN_DOUBT:
            resubmits = resubmit_in_doubt and record.position >= 0 and retry.is_selected(record.id)
            return mark_resubmitted(record) if resubmits else None
        case State.FAILED:
            # What was paid is fetched from wherever it is; a row that left the manifest buys nothing.
            retried = record.position >= 0 or is_fetched_again(record)
            return mark_retried(record) if retried and retry.covers(record) else None
        case unreachable:
            assert_never(unreachable)


def _was_renamed(record: Record, job: Job) -> bool:
    """Return whether a row's picture is a file that has another name now: its content is what it was."""
    return record.manifest_image != job.manifest_image and bool(image_sha256(record.body))


def mark_interrupted(record: Record) -> Record:
    """Return a record whose run died between the create's intent and its answer."""
    message = "the run ended before the answer came"
    return record.evolve(State.IN_DOUBT, doubted_at=record.submitted_at, failure=Failure("in_doubt", message))


def mark_resubmitted(record: Record) -> Record:
    """Return a record in doubt that its user wants submitted again, whatever became of the first submission.

    Without its correlation id it has nothing to do with that submission any more. Its entry goes on
    counting what it may have cost.
    """
    return record.evolve(
        State.PENDING, correlation_id="", failure=None, reserved_usd=None, doubted_at=None, absent_since=None
    )


def mark_retried(record: Record) -> Record:
    """Return a failed record on its way once more: fetched again when paid, else generated again."""
    if is_fetched_again(record):
        return record.evolve(State.GENERATING, failure=None, finished_at=None)
    return record.evolve(
        State.PENDING, failure=None, generation_id="", video_url="", video_urls="", finished_at=None, faults=0
    )


def is_fetched_again(record: Record) -> bool:
    """Return whether another try of a failed record fetches its generation, which is or may be paid."""
    failure = record.failure
    never_proven = failure is not None and failure.code == GENERATION_UNKNOWN and not failure.retryable
    return (was_completed(record) or never_proven) and bool(record.generation_id)


def was_completed(record: Record) -> bool:
    """Return whether the vendor ever called the generation completed: then it is fetched, never bought again.

    An answer of the vendor's that says otherwise later takes nothing back of what it has charged.
    """
    paid_failure = record.failure is not None and record.failure.code in PAID_FAILURES
    return record.completed_at is not None or paid_failure


def clip_urls(record: Record) -> list[str]:
    """Return the URLs of a generation's clips, the row's own first; "" for one that has none yet."""
    # JSON from our own ledger.
    urls: list[str] = json.loads(record.video_urls) if record.video_urls else []
    return urls if len(urls) > 1 else [record.video_url]


def lacks_clips(record: Record) -> bool:
    """Return whether a saved row has fewer files than its generation has clips, each of which is paid for."""
    artifact = record.artifact
    if artifact is None or not record.video_urls:  # nearly all: one clip
        return False
    return len(clip_urls(record)) > 1 + len(artifact.extra)


def has_money_in_it(record: Record) -> bool:
    """Return whether money is, or may be, owed for the row, or was spent on it."""
    return record.state in MAYBE_PAID_STATES or was_completed(record) or bool(record.usd_spent)


def _edited_pairs(added: Sequence[Record], known: Mapping[str, Record]) -> tuple[tuple[Record, Record], ...]:
    old = {record.id: record for record in known.values() if record.position < 0}
    return tuple((old[record.id], record) for record in added if record.id in old)
