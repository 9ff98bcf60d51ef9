"""Takes beyond the manifest's own: those that `--retake` has asked for, kept in the ledger.

One that a run has begun to buy stays the row's, whatever later commands say, and the same command after a
crash asks for no other: otherwise a kill would buy a take twice.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final

from pipeline.errors import UsageError
from pipeline.manifest.jobs import with_extra_takes
from pipeline.model import REJECTED, State
from pipeline.row_keys import canonical_id, row_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipeline.ledger import Ledger
    from pipeline.model import Job, Record

RETAKES_NAME: Final = "retakes"
"""The ledger's fact that holds a `Retakes`."""

REJECTED_ROWS: Final = "rejected"
"""The word that stands for every row whose takes are all rejected."""


@dataclass(slots=True)
class Retakes:
    """Extra takes by the key of the row's first take; `asked` are those by id that no finished run has made.

    `made` are rows whose takes were made while others of `asked`, left out by `--limit` or `--select`, wait.
    """

    extra: dict[str, list[int]] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)

    @classmethod
    async def load(cls, ledger: Ledger) -> Retakes:
        stored = json.loads(await ledger.meta_get(RETAKES_NAME) or "{}")
        # An earlier version kept more.
        return cls(stored.get("extra", {}), stored.get("asked", {}), stored.get("made", []))

    async def save(self, ledger: Ledger) -> None:
        await ledger.meta_set(RETAKES_NAME, json.dumps(asdict(self)))


async def extra_takes(ledger: Ledger, own: Sequence[Job]) -> Mapping[str, Sequence[int]]:
    """Return the takes beyond the manifest's `own` jobs that runs have begun to buy, by the rows' keys."""
    return (await plan_retakes(ledger, own)).extra


async def plan_retakes(ledger: Ledger, own: Sequence[Job], wanted: Sequence[str] = ()) -> Retakes:
    """Return the takes beyond the manifest's `own` jobs, with one more for each row `wanted`.

    `wanted` holds ids and `rejected`. Nothing is saved: that is for a run that begins. Raises `UsageError`
    for an id that the manifest does not have.
    """
    retakes = await Retakes.load(ledger)
    jobs = with_extra_takes(own, retakes.extra)
    if wanted:
        records = await ledger.load()
        by_id = {row.key: take for row, take in retakes_by_id(jobs, records, wanted)}
        # A command that names a row whose take still waits is the one that asked for it, given again.
        known = {*retakes.asked, *(retakes.made if by_id.keys() & retakes.asked.keys() else ())}
        new = {key: take for key, take in by_id.items() if key not in known}
        retakes.asked |= new
        if REJECTED_ROWS in wanted:
            new |= {row.key: take for row, take in retakes_of_rejected(jobs, records) if row.key not in by_id}
        for key, take in new.items():
            retakes.extra.setdefault(key, []).append(take)
        jobs = with_extra_takes(own, retakes.extra)
    if jobs is not own:
        _refuse_same_ids(jobs)
    return retakes


def _refuse_same_ids(jobs: Sequence[Job]) -> None:
    """Raise `UsageError` when a row was given the id of another row's extra take."""
    extra = {canonical_id(job.id): job.row_id for job in jobs if job.take > 1}
    for job in jobs:
        if job.take == 1 and (row := extra.get(canonical_id(job.id))) is not None:
            raise UsageError(
                f"id {job.id} of line {job.line} is taken: a take of {row} that --retake asked for "
                "has it; choose another id"
            )


async def end_retakes(ledger: Ledger) -> None:
    """Let the next `--retake ID` ask for another take of each row whose last one a run has made.

    For a run that is through. A take that `--limit` or `--select` left out still waits, and stays asked for.
    """
    retakes = await Retakes.load(ledger)
    if not retakes.asked:
        return
    pending = {record.key for record in await ledger.load() if record.state is State.PENDING}
    waiting = {key: take for key, take in retakes.asked.items() if _take_key(key, take) in pending}
    made = {*retakes.made, *retakes.asked} - waiting.keys()
    retakes.asked, retakes.made = waiting, sorted(made) if waiting else []
    await retakes.save(ledger)


def _take_key(first: str, take: int) -> str:
    """Return the key of a row's take, given that of its first."""
    name, _, fingerprint = first.rpartition("@")
    return row_key(f"{name}.{take}", take, fingerprint)


def retakes_by_id(
    jobs: Sequence[Job], records: Iterable[Record], wanted: Sequence[str]
) -> list[tuple[Job, int]]:
    """Return the rows of the ids in `wanted`, of any of their takes, and the number of each next take."""
    by_id = {canonical_id(job.id): job for job in jobs}
    rows: dict[str, Job] = {}
    for name in wanted:
        if (job := by_id.get(canonical_id(name))) is not None:
            rows[_row_of(job)] = by_id[_row_of(job)]
        elif name != REJECTED_ROWS:
            raise UsageError(
                f"--retake {name}: the manifest has no row of that id; `veobatch status` lists them"
            )
    numbers = _next_takes(jobs, records)
    return [(row, numbers[row_id]) for row_id, row in rows.items()]


def retakes_of_rejected(jobs: Sequence[Job], records: Iterable[Record]) -> list[tuple[Job, int]]:
    """Return the rows whose takes are all rejected, and the number of each one's next take.

    A take that failed is no take: nobody can look at it.
    """
    records = tuple(records)
    present = {job.key for job in jobs}
    takes: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.key in present or record.artifact is not None:
            takes[_row_of(record)].append(record)
    judged = {
        row_id: [record.pick for record in found if record.state is not State.FAILED]
        for row_id, found in _of_present_rows(jobs, takes).items()
    }
    numbers = _next_takes(jobs, records)
    return [
        (job, numbers[row])
        for job in jobs
        if job.take == 1 and judged.get(row := _row_of(job)) and set(judged[row]) == {REJECTED}
    ]


def _of_present_rows(jobs: Sequence[Job], takes: Mapping[str, list[Record]]) -> dict[str, list[Record]]:
    """Leave out the takes of a row as it was before it was edited: they say nothing of the new one."""
    contents: dict[str, set[str]] = defaultdict(set)
    for job in jobs:
        contents[_row_of(job)].add(job.fingerprint)
    return {
        row_id: [record for record in takes[row_id] if record.fingerprint in fingerprints]
        for row_id, fingerprints in contents.items()
        if row_id in takes
    }


def _next_takes(jobs: Iterable[Job], records: Iterable[Record]) -> dict[str, int]:
    """Return, by the row's id, the first number beyond every take of the manifest's or that was submitted.

    A number whose id is another row's own is passed over.
    """
    jobs = tuple(jobs)
    own_ids = {canonical_id(job.id) for job in jobs if job.take == 1}
    highest: dict[str, int] = defaultdict(int)
    for job in jobs:
        highest[_row_of(job)] = max(highest[_row_of(job)], job.take)
    for record in records:
        if record.submission_no or (record.position >= 0 and record.state is not State.PENDING):
            highest[_row_of(record)] = max(highest[_row_of(record)], record.take)
    return {
        row_id: next(number for number in count(take + 1) if f"{row_id}.{number}" not in own_ids)
        for row_id, take in highest.items()
    }


def _row_of(one: Job | Record) -> str:
    """Return the id of the row, the same for all of its takes however they are written."""
    return canonical_id(one.row_id)
