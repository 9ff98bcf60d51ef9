"""Are the saved files still what was saved? By size and time alone where that is enough.

A file that its user moved away stays done: the rule says what to note, never to fetch or buy anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

import anyio

from pipeline.circuit_breaker import CircuitBreaker
from pipeline.errors import StoreError
from pipeline.model import MOVED_MTIME_NS, State, Transition
from pipeline.plan import lacks_clips

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pipeline.model import Artifact, Record
    from pipeline.storage import FileStamp, OutputStore

MAX_READERS: Final = 4
"""Files that are hashed at once: as many as saturate a disk, and few enough to leave the run its threads."""


class FileCondition(Enum):
    """What has become of a saved file."""

    UNTOUCHED = auto()
    RESTAMPED = auto()
    """The same bytes with another time, as after a copy or a restored backup."""
    MOVED = auto()
    ALTERED = auto()
    UNREAD = auto()
    """Size and time do not settle it: the file has to be read."""
    UNREADABLE = auto()
    """It is there and cannot be read: nothing is known of it, so the row stays as it is."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One row's finding, with the stamp that its file has now, and why it could not be read."""

    record: Record
    condition: FileCondition
    stamp: FileStamp | None = None
    error: str = ""

    @property
    def is_missing(self) -> bool:
        """Return whether a file was moved away, or a clip of the generation was never saved."""
        if self.condition is FileCondition.MOVED:
            return True
        return self.condition is not FileCondition.UNREADABLE and lacks_clips(self.record)

    def next_record(self, *, fetch_missing: bool) -> Record | None:
        """Return what the record becomes after this finding, None when it stays. Pure.

        An altered file, and with `fetch_missing` a missing one, is fetched again: the row is ready, and keeps
        everything known of the old file until there is a better one.
        """
        record, artifact, stamp = self.record, self.record.artifact, self.stamp
        if artifact is None:
            return None
        if self.condition is FileCondition.ALTERED or (self.is_missing and fetch_missing):
            return record.evolve(State.READY)
        if self.condition is FileCondition.MOVED and not artifact.moved:
            return record.evolve(artifact=replace(artifact, mtime_ns=MOVED_MTIME_NS, etag=""))
        if self.condition is FileCondition.RESTAMPED and stamp is not None:
            return record.evolve(artifact=replace(artifact, mtime_ns=stamp.mtime_ns, etag=stamp.etag))
        return None


def compare(artifact: Artifact, stamp: FileStamp | None) -> FileCondition:
    """Compare a file's stamp with the ledger's. Pure.

    An artifact without a stamp was saved by an earlier version: its file is read once.
    """
    if stamp is None:
        return FileCondition.MOVED
    if stamp.error:
        return FileCondition.UNREADABLE
    if stamp.size_bytes != artifact.size_bytes:
        return FileCondition.ALTERED
    # Earlier versions noted an ETag as it came, in quotes or not.
    known = (artifact.mtime_ns, artifact.etag.strip('"'))
    # No read where size and time agree: a finished batch of 10,000 clips is checked in seconds.
    if known != (None, "") and known == (stamp.mtime_ns, stamp.etag.strip('"')):
        return FileCondition.UNTOUCHED
    return FileCondition.UNREAD


def describe_findings(found: Sequence[Checked], *, fetch_missing: bool) -> list[str]:
    """Return one message for each altered or unreadable file, one for all newly found moved away."""
    messages = [
        f"{checked.record.id}: {checked.record.artifact.path} was altered: fetching it again"
        for checked in found
        if checked.condition is FileCondition.ALTERED and checked.record.artifact
    ]
    messages += [
        f"{checked.record.id}: the saved video could not be checked: {checked.error}"
        for checked in found
        if checked.condition is FileCondition.UNREADABLE
    ]
    moved = [
        checked.record
        for checked in found
        if checked.condition is FileCondition.MOVED
        and checked.record.artifact
        and not checked.record.artifact.moved
    ]
    if fetch_missing:
        altered = FileCondition.ALTERED
        missing = sum(checked.is_missing and checked.condition is not altered for checked in found)
        if missing:
            messages.append(f"{missing} saved video(s) are missing: fetching them again")
    elif moved:
        first = ", ".join(record.id for record in moved[:3]) + (", ..." if len(moved) > 3 else "")
        messages.append(
            f"{len(moved)} saved video(s) are no longer in their place ({first}): they count as moved away "
            "and stay done; --fetch-missing downloads them again"
        )
    return messages


def transitions_for(found: Sequence[Checked], *, fetch_missing: bool) -> list[Transition]:
    """Return the ledger's transitions that follow from the findings."""
    after = ((checked.record, checked.next_record(fetch_missing=fetch_missing)) for checked in found)
    return [Transition(record, changed) for record, changed in after if changed is not None]


def unreadable_rows(found: Sequence[Checked]) -> dict[str, str]:
    """Return why files could not be read, by the key of their row: the run is not through with those."""
    return {
        checked.record.key: f"the saved video could not be checked: {checked.error}"
        for checked in found
        if checked.condition is FileCondition.UNREADABLE
    }


async def check_saved(
    store: OutputStore,
    records: Sequence[Record],
    *,
    read_all: bool = False,
    on_checked: Callable[[Checked], None] | None = None,
) -> list[Checked]:
    """Check the files of `records`, which are done. Returns those that are not untouched, in their order.

    Without `read_all` only files whose size or time differs are read. `on_checked` is called for each
    record. A row of which a clip was never saved is returned, too. A file that cannot be looked at or read
    is its row's; raises `StoreError` when most cannot be read, or when a folder cannot be looked into.
    """
    saved = [record for record in records if record.artifact is not None]
    stamps = await store.stamps([path for record in saved for path in _paths(record)])
    found: dict[str, Checked] = {}

    def report(checked: Checked) -> None:
        if checked.condition is not FileCondition.UNTOUCHED or checked.is_missing:
            found[checked.record.key] = checked
        if on_checked is not None:
            on_checked(checked)

    to_read, untouched = [], FileCondition.UNTOUCHED
    for record in saved:
        condition = _compare_all(record, stamps)
        if condition is FileCondition.UNREAD or (read_all and condition is untouched):
            to_read.append(record)
        elif condition is not untouched or on_checked is not None or lacks_clips(record):
            report(Checked(record, condition, error=_stamp_error(record, stamps)))
    await _read_files(store, to_read, stamps, report)
    return [found[record.key] for record in saved if record.key in found] if found else []


def _paths(record: Record) -> list[str]:
    artifact = record.artifact
    return [] if artifact is None else [artifact.path, *(extra.path for extra in artifact.extra)]


def _stamp_error(record: Record, stamps: dict[str, FileStamp]) -> str:
    found = (stamps[path].error for path in _paths(record) if path in stamps)
    return next(filter(None, found), "")


def _compare_all(record: Record, stamps: dict[str, FileStamp]) -> FileCondition:
    """Compare a row's files; a further clip has no stamp in the ledger, so its size has to do."""
    artifact = record.artifact
    if artifact is None:
        return FileCondition.UNTOUCHED
    condition = compare(artifact, stamps.get(artifact.path))
    if artifact.extra and condition in (FileCondition.UNTOUCHED, FileCondition.UNREAD):
        for extra in artifact.extra:
            stamp = stamps.get(extra.path)
            if stamp is None:
                return FileCondition.MOVED
            if stamp.error:
                return FileCondition.UNREADABLE
            if stamp.size_bytes != extra.size_bytes:
                return FileCondition.ALTERED
    return condition


async def _read_files(
    store: OutputStore,
    records: Sequence[Record],
    stamps: dict[str, FileStamp],
    report: Callable[[Checked], None],
) -> None:
    """Hash the files of `records`, several at once. Raises `StoreError` when most cannot be read."""
    queue, errors, breaker = iter(records), [], CircuitBreaker()

    async def read(shared: Iterable[Record]) -> None:
        for record in shared:
            try:
                report(await _read_record(store, record, stamps))
                breaker.on_success()
            except StoreError as error:
                report(Checked(record, FileCondition.UNREADABLE, error=str(error)))
                if breaker.on_crash(record.key):
                    errors.append(error)
            if errors:
                return

    async with anyio.create_task_group() as tasks:
        for _ in range(min(MAX_READERS, len(records))):
            tasks.start_soon(read, queue)
    if errors:
        raise errors[0]


async def _read_record(store: OutputStore, record: Record, stamps: dict[str, FileStamp]) -> Checked:
    artifact = record.artifact
    if artifact is None:
        return Checked(record, FileCondition.UNTOUCHED)
    for path, size_bytes, sha256 in (
        (artifact.path, artifact.size_bytes, artifact.sha256),
        *artifact.extra,
    ):
        if await store.fingerprint(path, size_bytes) != sha256:
            # Its user may have moved it since it was listed: what is gone is not altered.
            there = path in await store.stamps([path])
            return Checked(record, FileCondition.ALTERED if there else FileCondition.MOVED)
    stamp = stamps[artifact.path]
    if (stamp.mtime_ns, stamp.etag) == (artifact.mtime_ns, artifact.etag):
        return Checked(record, FileCondition.UNTOUCHED, stamp)
    return Checked(record, FileCondition.RESTAMPED, stamp)
