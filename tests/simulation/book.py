"""The invariants, and what they are checked against: what the ledger committed, what the vendor took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import Conflict
from pipeline.ledger import rows
from pipeline.model import LEGAL_TRANSITIONS, State
from tests.simulation import scheduler
from tests.simulation.vendor import PRICE_USD, clip_bytes

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from pipeline.ledger.rows import PreparedUpdate
    from pipeline.model import Record
    from tests.simulation.vendor import Generation
    from tests.simulation.world import World

ROOT = "/batch"


class Book:
    """What is true of the batch, kept apart from the package."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.records: dict[str, Record] = {}
        self.key_of: dict[str, str] = {}
        self.generations_of: dict[str, list[Generation]] = {}
        self.by_url_name: dict[str, Generation] = {}
        self.known_generations: dict[str, None] = {}
        self.completed: dict[str, None] = {}
        self.given_up: dict[str, None] = {}
        self.intended_at: dict[str, float] = {}
        self.sent: dict[str, None] = {}
        self.moved_away: dict[str, None] = {}
        self.commits = 0

    def reload_from(self, database: sqlite3.Connection, load_statement: str) -> None:
        """Take over what the ledger holds: a process died around a commit, or a backup was put back."""
        found = database.execute(load_statement, ("default",)).fetchall()
        self.records = {record.key: record for record in rows.to_records(found)}
        for record in self.records.values():
            if record.correlation_id:
                self.key_of[record.correlation_id] = record.key
                self.intended_at.setdefault(record.correlation_id, self.world.now)
            if record.generation_id:
                self.known_generations[record.generation_id] = None

    def on_added(self, records: Sequence[Record]) -> None:
        for record in records:
            self.records.setdefault(record.key, record)

    def on_commit(self, updates: Sequence[PreparedUpdate], outcomes: Sequence[object]) -> None:
        """Check each step that the ledger took against the one before it."""
        for update, outcome in zip(updates, outcomes, strict=True):
            if not isinstance(outcome, Conflict):
                self.commits += 1
                self._check_step(self.records.get(update.after.key), update.after)
                self.records[update.after.key] = update.after

    def _check_step(self, before: Record | None, after: Record) -> None:
        self.world.tell("COMMIT", after.id, before and before.state.value, after.state.value, after.version)
        if before is None or after.version != before.version + 1:
            self.world.violated("a step was made from a version that is not the last", after.key)
        elif after.state is not before.state and after.state not in LEGAL_TRANSITIONS[before.state]:
            self.world.violated("an illegal transition", f"{before.state} -> {after.state}")
        if after.state is State.SUBMITTING:
            self.key_of[after.correlation_id] = after.key
            self.intended_at.setdefault(after.correlation_id, self.world.now)
        if after.generation_id:
            self.known_generations[after.generation_id] = None
        scheduler.running().committed_at = self.world.now
        if after.completed_at is not None:
            self.completed[after.generation_id] = None
        if after.state is State.DONE and (before is None or before.state is not State.DONE):
            self._check_saved(after)

    def _check_saved(self, record: Record) -> None:
        """A row is done only once its clip is whole and survives a power cut."""
        artifact, generation = record.artifact, self.world.vendor.generations.get(record.generation_id)
        if artifact is None or generation is None:
            self.world.violated("done without a clip", record.key)
            return
        spoiled = any(fault.point == "cdn" for fault in self.world.chance.struck)
        if len(artifact.extra) + 1 != generation.clips and not spoiled:
            self.world.violated("done without all of its clips", record.key)
        disk = self.world.machine.disk
        for number, path in enumerate([artifact.path, *(extra.path for extra in artifact.extra)]):
            inode = disk.names.get(f"{ROOT}/{path}")
            if inode is None or not is_as_delivered(bytes(inode.data), generation, number):
                if not (inode is None and record.artifact and f"{ROOT}/{path}" in self.moved_away):
                    self.world.violated("done with a clip that is not whole", f"{record.key}: {path}")
            elif not disk.is_durable(f"{ROOT}/{path}"):
                self.world.violated("done with a clip that a power cut would take", f"{record.key}: {path}")

    def on_sent(self, correlation: str) -> None:
        """The intent of a create is on the disk before its first byte leaves, and no id is used twice."""
        key = self.key_of.get(correlation)
        record = self.records.get(key or "")
        # A second process in the same folder takes what the first has in flight for interrupted: it waits for
        # the log to show that intent, or to prove that it never left.
        states = {State.SUBMITTING, State.IN_DOUBT} if self.has_rivals() else {State.SUBMITTING}
        if record is None or record.correlation_id != correlation or record.state not in states:
            state = record.state if record else "unknown"
            self.world.violated("a create left without its intent on the disk", f"{correlation}: {state}")
        if correlation in self.sent:
            self.world.violated("a correlation id was sent twice", correlation)
        self.sent[correlation] = None

    def has_rivals(self) -> bool:
        """Say whether processes of two runs may be at work at once."""
        return self.world.lock_was_lost

    def on_accepted(self, generation: Generation) -> None:
        """Check the money as it is spent."""
        key = self.key_of.get(generation.correlation, "")
        earlier = [g for g in self.generations_of.get(key, []) if self._still_counts(g)]
        if earlier and key not in self.given_up:
            self.world.violated("a row was bought twice", f"{key}: {earlier[0].id} and {generation.id}")
        self.generations_of.setdefault(key, []).append(generation)
        self.by_url_name[generation.id.replace(":", "_").replace("/", "_")] = generation
        options = self.world.options
        excused = self.world.forgetful or self.given_up or self.world.lock_was_lost
        if self.world.vendor.in_progress() > options.concurrency and not excused:
            self.world.violated("more in progress than allowed", str(self.world.vendor.in_progress()))
        # Two processes that know nothing of each other have a budget each.
        budget = None if self.world.lock_was_lost else options.max_cost
        if budget is not None and self._spent() > budget + 1e-9:
            self.world.violated("the budget was exceeded", f"{self._spent():.2f} of {budget:.2f}")

    def _spent(self) -> float:
        """Return what the accepted generations cost or will cost."""
        return PRICE_USD * sum(self._still_counts(g) for g in self.world.vendor.generations.values())

    def _still_counts(self, generation: Generation) -> bool:
        """Whether a generation is, or will be, paid; before its end nobody can know that it fails."""
        return generation.is_paid or not generation.is_over(self.world.now)

    def check_end(self, loaded: Sequence[Record], reported: Sequence[Record]) -> None:
        """At the end of a run: what was reported, what the ledger holds, and what was seen are one."""
        stored = {record.key: record for record in loaded}
        # What another process does meanwhile, which the folder's lock keeps out, is not followed.
        for record in () if self.world.lock_was_lost else reported:
            other = stored.get(record.key)
            if other is None or (other.state, other.version) != (record.state, record.version):
                self.world.violated("the results are not the ledger's", record.key)
        for key, record in stored.items():
            seen = self.records.get(key)
            if seen is None or (seen.state, seen.version) != (record.state, record.version):
                self.world.violated("the ledger lost or invented a step", key)

    def check_table(self) -> None:
        """However a process ended, its table is a whole one; only a power cut may tear what is not synced."""
        inode = self.world.machine.disk.names.get(f"{ROOT}/results.csv")
        if self.world.power_was_cut or inode is None:
            return
        if not (inode.data.endswith(b"\n") and b"\n" in inode.data[3:]):
            self.world.violated("results.csv is not whole", f"{len(inode.data)} bytes")

    def check_files(self) -> None:
        """After a crash: every clip that the ledger calls done is there, whole."""
        disk = self.world.machine.disk
        for record in self.records.values():
            if record.state is State.DONE and record.artifact is not None:
                inode = disk.names.get(path := f"{ROOT}/{record.artifact.path}")
                generation = self.world.vendor.generations[record.generation_id]
                whole = inode is not None and is_as_delivered(bytes(inode.data), generation, 0)
                if path not in self.moved_away and not whole:
                    self.world.violated("a clip that was done is not there after a crash", record.key)

    def check_nothing_left(self) -> None:
        """At the very end: everything that was paid for is saved, and nobody else's file was touched."""
        saved = {r.generation_id for r in self.records.values() if r.state is State.DONE}
        for key, generations in self.generations_of.items():
            for generation in generations:
                lost = self.records[key].state if key in self.records else None
                excused = key in self.given_up or self._is_the_users_to_settle(self.records.get(key))
                if generation.is_paid and generation.id not in saved and not excused:
                    self.world.violated("a paid clip was left behind", f"{key} ({lost}): {generation.id}")
        self._check_users_files()

    def _is_the_users_to_settle(self, record: Record | None) -> bool:
        """Whether nobody but the user can find out what became of a row's money."""
        forgetful, readable = self.world.forgetful, self.world.vendor.pace.log_allowed
        if record is None:  # it left the manifest, and an older copy of the ledger forgot it
            return forgetful
        return not readable and (forgetful or record.state is State.IN_DOUBT)

    def _check_users_files(self) -> None:
        # In the place of a clip of ours, a user's file may be put aside under another name, with a note.
        found = {bytes(inode.data) for inode in self.world.machine.disk.names.values()}
        for path, data in self.world.users_files.items():
            if data not in found:
                self.world.violated("a file of the user's was lost", path)


def is_as_delivered(data: bytes, generation: Generation, number: int) -> bool:
    """Whether a file is the clip, or what the CDN made of its rest after the beginning had arrived whole.

    Without a decoder (`--no-media`, as here) nobody can tell such bytes from the vendor's own.
    """
    whole = clip_bytes(generation.id, number)
    start = generation.damaged.get(number, len(whole))
    return data[:start] == whole[:start] and len(data) == len(whole)
