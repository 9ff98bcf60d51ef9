"""A journal of what this machine submits, kept outside of the batch's folder, which a backup restores whole.

One file a ledger, an entry a submission, written before its create leaves. So a ledger that was put back from
a backup meets each submission that it has forgotten here, and the row is in doubt until the log settles it.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

import anyio
from anyio import to_thread

from pipeline import clocks
from pipeline.errors import StopRun

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from pipeline.events import Event
    from pipeline.ledger import Ledger
    from pipeline.model import Record

NOTED_META: Final = "noted"
MARK_INTERVAL_S: Final = 30.0
MARK_BYTES: Final = 65_536
"""How many bytes are read again at each start rather than marked as known: some 300 entries."""


def journal_path(identity: str) -> Path:
    from platformdirs import user_state_path

    return user_state_path("veobatch") / "ledgers" / f"{identity}.submissions.jsonl"


def open_journal(path: Path) -> BinaryIO:
    """Open the file for reading. Raises `OSError`."""
    return path.open("rb")


def begin_journal(path: Path, name: str) -> int:
    """Make the file, whose first line is its name; return its size. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.write_bytes(name.encode("ascii"))


def append_to_journal(path: Path, lines: Sequence[bytes]) -> int:
    """Append to the file, which has to be there; return its size. Raises `OSError`."""
    with open(path, "ab", buffering=0, opener=_open_existing) as file:
        # Each begins with the newline: what a crash tore stays a line of its own.
        data = b"".join(b"\n" + line for line in lines)
        while data:
            data = data[file.write(data) :]
        return file.tell()


def _open_existing(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_CREAT)


class JournalEntry(NamedTuple):
    """One line: a submission as it was about to leave, or once the vendor called it completed.

    Times are epoch seconds, as in `Record`.
    """

    correlation_id: str
    key_id: str
    api_url: str
    submitted_at: float | None
    vendor_sent_at: float | None
    reserved_usd: float | None
    completed_at: float | None = None

    @property
    def number(self) -> int:
        """Which submission of its row it is, 0 when its correlation id does not say."""
        return submission_number(self.correlation_id)

    @property
    def row_digest(self) -> str:
        return submitted_row_digest(self.correlation_id)


def submitted_row_digest(correlation_id: str) -> str:
    """Return the digest of the row that a correlation id names, "" when it does not say."""
    return "".join(correlation_id.split(".")[3:4])


def submission_number(correlation_id: str) -> int:
    """Return which submission of its row a correlation id names, 0 when it does not say."""
    number = correlation_id.split(".")[4:5]
    return int(number[0]) if number and number[0].isdecimal() else 0


def last_by_row(noted: Iterable[JournalEntry]) -> dict[str, JournalEntry]:
    """Return each row's last submission: the next one leaves only when the one before is settled."""
    last: dict[str, JournalEntry] = {}
    for note in noted:
        digest = note.row_digest
        if digest not in last or last[digest].number <= note.number:
            last[digest] = note
    return last


class SubmissionJournal:
    """The journal of one ledger, and an observer of its run.

    With `on_cluster` it has what workers on other machines submit, too, once it is told of that.
    """

    def __init__(self, identity: str, *, on_cluster: bool = False) -> None:
        self._path = journal_path(identity)
        self._on_cluster = on_cluster
        self._unwritten: list[bytes] = []
        self._size = 0
        self._marked = 0
        self.name = ""
        """When this file was begun, and after how many submissions: no other machine's file is named so.

        "" when none can be read."""
        self.of_unknown_rows = False
        """Whether there are entries that the ledger did not take, of rows it lacks: they are read again."""

    def append(self, record: Record) -> None:
        """Write down a submission that is about to leave. What cannot be written is written with a later one.

        Where nobody has begun the file, as on a machine that only works on a batch, nothing is written.
        """
        self._unwritten.append(encode_entry(record))
        try:
            self._size = append_to_journal(self._path, self._unwritten)
        except FileNotFoundError:
            pass
        except OSError:
            return
        self._unwritten.clear()

    def on_transition(self, before: Record, after: Record) -> None:
        """Write down what is completed, which is never bought again."""
        is_new = self._on_cluster and after.submission_no > before.submission_no
        if is_new or (after.completed_at is not None and before.completed_at is None):
            self.append(after)

    def on_event(self, event: Event) -> None:
        """Events tell nothing of submissions."""

    def unknown_from(self, mark: str | None) -> int:
        """Return the byte from which a ledger with this `mark` may not know the entries."""
        name, _, known_bytes = (mark or "").partition(" ")
        with suppress(OSError), open_journal(self._path) as file:
            self.name = file.readline().decode("ascii", "replace").strip()
            self._size = file.seek(0, 2)
        # A file that lost its end, or another machine's mark, says nothing of how much is known.
        start = int(known_bytes) if name == self.name and known_bytes.isdecimal() else 0
        self._marked = start if start <= self._size else 0
        return self._marked

    def began_after(self, records: Iterable[Record]) -> bool:
        """Return whether the ledger knew of more submissions than these rows when the file was begun."""
        before = self.name.partition("+")[2]
        return before.isdecimal() and sum(record.submission_no for record in records) < int(before)

    async def read(self, start: int) -> list[JournalEntry]:
        """Return the entries from byte `start` on, oldest first."""
        if self._size - start < MARK_BYTES:
            return self._read(start)
        return await to_thread.run_sync(self._read, start)

    def _read(self, start: int) -> list[JournalEntry]:
        try:
            with open_journal(self._path) as file:
                file.seek(start)
                return [entry for line in file if (entry := _decode(line)) is not None]
        except OSError:
            return []

    async def take_over(self, ledger: Ledger, records: Iterable[Record]) -> str:
        """Let the ledger know that it knows every entry so far; begin the file where there is none.

        Return a warning when the file cannot be written, else "".
        """
        try:
            if self.name:
                append_to_journal(self._path, ())
            else:
                name = f"{clocks.wall()}+{sum(record.submission_no for record in records)}"
                self._size = begin_journal(self._path, name)
                self.name = name
        except OSError as error:
            return (
                f"what this run submits cannot be noted in {self._path.parent} ({error.strerror or error}): "
                "without these notes each run has to read the vendor's log before it may submit. "
                "Let XDG_STATE_HOME name a folder that can be written and is kept"
            )
        await self.mark(ledger)
        return ""

    async def mark(self, ledger: Ledger) -> None:
        """Write down in the ledger how far it knows the entries, once reading them again would take a while.

        Each was committed there before it was written here.
        """
        if self._size - self._marked >= MARK_BYTES and not self.of_unknown_rows:
            await ledger.meta_set(NOTED_META, f"{self.name} {self._size}")
            self._marked = self._size

    async def keep_marked(self, ledger: Ledger) -> None:
        """Mark again and again until cancelled, so that a run after a kill reads little."""
        while True:
            await anyio.sleep(MARK_INTERVAL_S)
            with suppress(StopRun):  # the run itself reports a ledger that is gone
                await self.mark(ledger)


def encode_entry(record: Record) -> bytes:
    entry = JournalEntry(
        record.correlation_id,
        record.key_id,
        record.api_url,
        record.submitted_at,
        record.vendor_sent_at,
        record.reserved_usd,
        record.completed_at,
    )
    return json.dumps(entry).encode("ascii")


def _decode(line: bytes) -> JournalEntry | None:
    """Return the entry in a line, None for one that is none: the first, an empty one, a torn one."""
    with suppress(ValueError, TypeError):
        return JournalEntry(*json.loads(line))
    return None
