"""Picks: which take of a row was chosen, and the folder `picks/` that holds the chosen clips.

A row has one pick at most: picking a take takes the pick from its sisters. The folder is a projection of the
ledger, brought up to date after every change; what it did not put there it neither replaces nor removes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pipeline.compact_rows import column
from pipeline.errors import UsageError
from pipeline.model import PICKED, REJECTED, Pick, Record, State
from pipeline.storage.base import FileGone, FileStamp, UnreadableFile, candidate_names

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from pipeline.ledger import Ledger
    from pipeline.model import Artifact
    from pipeline.storage import OutputStore

PICKS_FOLDER: Final = "picks"
PLACED_NAME: Final = "picks"
"""The ledger's fact that holds the files in the folder: path, size and sha256 by the row's id."""

MAX_NOTE_CHARS: Final = 2000
_NO_PICK: Final = Pick()
_picks_of: Final = column(Record, "pick")
_notes_of: Final = column(Record, "pick_note")
PICKS_VERSION: Final = 1


class PlacedFile(NamedTuple):
    """A clip that was put into the folder, and what its file is known by without reading it."""

    path: str
    size_bytes: int
    sha256: str
    mtime_ns: int | None = None
    etag: str = ""

    def is_file(self, stamp: FileStamp) -> bool:
        known = self.mtime_ns is not None or self.etag
        mine = FileStamp(self.size_bytes, self.mtime_ns, self.etag.strip('"'))
        return bool(known) and replace(stamp, etag=stamp.etag.strip('"')) == mine


def with_picks(records: Iterable[Record], picks: Mapping[str, Pick]) -> list[Record]:
    """Return the records with what reviewers say of them now; a run's own may be older than that."""
    found = list(records)
    if not picks and not any(_picks_of(found)) and not any(_notes_of(found)):
        return found  # as most batches, which have no picks at all
    for index, record in enumerate(found):
        pick, note = picks.get(record.key, _NO_PICK)
        if (record.pick, record.pick_note) != (pick, note):
            found[index] = replace(record, pick=pick, pick_note=note)
    return found


def resolve_picks(records: Sequence[Record], wishes: Mapping[str, Pick]) -> dict[str, Pick]:
    """Return what changes when reviewers want `wishes` (by key), the sisters of what is picked included.

    Raises `UsageError` for a key that is unknown, for a take without a clip that is picked, and for two picks
    of one row.
    """
    by_key = {record.key: record for record in records}
    changes: dict[str, Pick] = {}
    picked_rows: dict[str, str] = {}
    for key, wish in wishes.items():
        record = by_key.get(key)
        if record is None:
            raise UsageError(f"this batch has no take {key}")
        if wish.pick not in ("", PICKED, REJECTED):
            raise UsageError(f"{record.id}: a take is picked, rejected or neither, not {wish.pick!r}")
        if wish.pick == PICKED:
            if record.artifact is None:
                raise UsageError(f"{record.id} has no clip yet: it cannot be picked")
            if (other := picked_rows.setdefault(record.row_id, key)) != key:
                raise UsageError(f"{by_key[other].id} and {record.id} are takes of one row: pick one of them")
        if len(wish.note) > MAX_NOTE_CHARS:
            raise UsageError(
                f"{record.id}: a note has at most {MAX_NOTE_CHARS:,} characters, not {len(wish.note):,}"
            )
        changes[key] = wish
    for record in records:
        if record.pick == PICKED and picked_rows.get(record.row_id, record.key) != record.key:
            changes.setdefault(record.key, Pick("", record.pick_note))
    return {key: pick for key, pick in changes.items() if pick != _pick_of(by_key[key])}


def _pick_of(record: Record) -> Pick:
    return Pick(record.pick, record.pick_note)


def chosen_clips(records: Iterable[Record]) -> dict[str, Record]:
    """Return the picked takes that have a clip, by their row's id, in the manifest's order."""
    records = list(records)
    chosen = [r for r in records if r.pick == PICKED and r.artifact is not None and r.state is State.DONE]
    if not chosen:
        return {}
    places = {record.id: record.position for record in records if record.position >= 0 and record.take == 1}
    chosen.sort(key=lambda record: places.get(record.row_id, len(records)))
    return {record.row_id: record for record in chosen}


def pick_paths(records: Sequence[Record], chosen: Mapping[str, Record]) -> dict[str, str]:
    """Return where in the output each chosen clip belongs: under the row's name, which take 1 has."""
    names: dict[str, str] = {}
    for record in records if chosen else ():
        if record.take == 1 and record.file_stem:
            shorter = min(record.file_stem, names.get(record.id, record.file_stem), key=len)
            names[record.id] = shorter  # an edited row's file has a hash behind the name
    paths = {}
    for row_id, record in chosen.items():
        suffix = record.artifact.path.rpartition(".")[2] if record.artifact else "mp4"
        paths[row_id] = f"{PICKS_FOLDER}/{names.get(row_id, record.file_stem)}.{suffix}"
    return paths


def client_record(record: Record, path: str) -> Record:
    """Return a chosen clip as a client sees it: no money, no ids of ours, and its place in the folder."""
    artifact = record.artifact
    return Record(
        key=record.row_id,
        id=record.row_id,
        fingerprint="",
        position=max(0, record.position),
        model="",
        body="{}",
        manifest_image="",
        prompt=record.prompt,
        state=State.DONE,
        artifact=artifact and replace(artifact, path=path),
    )


class PicksFolder:
    """The folder `picks/` of a batch. Use it from one task at a time."""

    def __init__(self, ledger: Ledger, store: OutputStore) -> None:
        self._ledger = ledger
        self._store = store
        self._placed: dict[str, PlacedFile] = {}
        self._present: dict[str, FileStamp] = {}

    async def update(self, records: Sequence[Record] | None = None) -> tuple[str, ...]:
        """Make the folder hold the chosen clips and no other of ours; return notes on what could not be done.

        What is chosen is asked of the ledger. Raises `StoreError` and `LedgerError`.
        """
        records = await self._ledger.load() if records is None else records
        return await self.place(with_picks(records, await self._ledger.picks()))

    async def place(self, records: Sequence[Record]) -> tuple[str, ...]:
        """Do as `update` does, for records whose picks were asked of the ledger just now."""
        chosen = chosen_clips(records)
        paths = pick_paths(records, chosen)
        self._placed = await load_placed(self._ledger)
        sources = [record.artifact.path for record in chosen.values() if record.artifact]
        ours = [placed.path for placed in self._placed.values()]
        self._present = await self._store.stamps([*ours, *paths.values(), *sources])
        await self._remove_others(chosen)
        missing = {
            row_id: path
            for row_id, path in paths.items()
            if row_id not in self._placed or self._placed[row_id].path not in self._present
        }
        return tuple([note async for note in self._place(missing, chosen)])

    async def _remove_others(self, chosen: Mapping[str, Record]) -> None:
        """Remove clips of ours that are chosen no more; a file that somebody has put in a place stays."""
        gone: dict[str, PlacedFile | None] = {}
        for row_id, placed in self._placed.items():
            record = chosen.get(row_id)
            if record is None or record.artifact is None or record.artifact.sha256 != placed.sha256:
                stamp = self._present.get(placed.path)
                if stamp is not None and await self._is_ours(placed, stamp):
                    await self._store.remove(placed.path)
                    del self._present[placed.path]
                gone[row_id] = None
        await self._save(gone)

    async def _is_ours(self, placed: PlacedFile, stamp: FileStamp) -> bool:
        if stamp.error or placed.is_file(stamp):
            return not stamp.error
        try:
            return await self._store.fingerprint(placed.path, placed.size_bytes) == placed.sha256
        except UnreadableFile:
            return False

    async def _place(self, paths: Mapping[str, str], chosen: Mapping[str, Record]) -> AsyncIterator[str]:
        """Put clips under their rows' names, or beside files there that are not ours; yield notes."""
        found: dict[str, PlacedFile | None] = {}
        taken = {placed.path for row_id, placed in self._placed.items() if row_id not in paths}
        for row_id, path in paths.items():
            artifact = chosen[row_id].artifact
            source = None if artifact is None else self._present.get(artifact.path)
            if artifact is None or source is None:
                yield _moved_away(chosen[row_id])
                continue
            if source.error:
                yield f"{chosen[row_id].id}: it is not in {PICKS_FOLDER}/: {source.error}"
                continue
            found[row_id] = placed = await self._free_place(path, artifact, taken)
            taken.add(placed.path)
            if placed.path != path:
                yield f"{path} is not ours: {chosen[row_id].id} is {placed.path}"
        # Recorded as ours before they are written: a kill in between leaves no file that is never removed.
        await self._save(found)
        for row_id, claimed in found.items():
            artifact = chosen[row_id].artifact
            if artifact is not None and claimed is not None and claimed.path not in self._present:
                found[row_id] = await self._copy(artifact, claimed)
                if found[row_id] is None:
                    yield _moved_away(chosen[row_id])
        await self._save(found)

    async def _copy(self, artifact: Artifact, placed: PlacedFile) -> PlacedFile | None:
        """Put a clip into its place; None when its user has moved it since it was seen."""
        try:
            await self._store.copy(artifact.path, placed.path)
        except FileGone:
            return None
        return _stamped(placed, await self._store.stamp(placed.path))

    async def _free_place(self, path: str, artifact: Artifact, taken: set[str]) -> PlacedFile:
        """Return the first name that is free, or has these very bytes already; never another row's."""
        for name in filter(lambda name: name not in taken, candidate_names(path)):
            placed = PlacedFile(name, artifact.size_bytes, artifact.sha256)
            stamp = self._present.get(name) or await self._stamp(name)
            if stamp is None:
                return placed
            self._present[name] = stamp
            if await self._is_ours(placed, stamp):
                return _stamped(placed, stamp)
        raise AssertionError("there is always another name")

    async def _stamp(self, path: str) -> FileStamp | None:
        try:
            return await self._store.stamp(path)
        except UnreadableFile as error:
            return FileStamp(0, error=str(error))

    async def _save(self, changes: Mapping[str, PlacedFile | None]) -> None:
        """Keep rows' files on record; those of other rows stay as another process may have left them."""
        if not changes:
            return
        merged = {**await load_placed(self._ledger), **changes}
        self._placed = {row_id: placed for row_id, placed in merged.items() if placed is not None}
        await self._ledger.meta_set(PLACED_NAME, json.dumps(self._placed))


async def load_placed(ledger: Ledger) -> dict[str, PlacedFile]:
    """Return the files that the folder is to hold, by their rows' ids."""
    stored: dict[str, Any] = json.loads(await ledger.meta_get(PLACED_NAME) or "{}")
    return {row_id: PlacedFile(*values) for row_id, values in stored.items()}


def _moved_away(record: Record) -> str:
    return f"{record.id}: its clip was moved away, so it is not in {PICKS_FOLDER}/"


def _stamped(placed: PlacedFile, stamp: FileStamp | None) -> PlacedFile:
    return placed if stamp is None else placed._replace(mtime_ns=stamp.mtime_ns, etag=stamp.etag)


def parse_picks(data: bytes) -> dict[str, Pick]:
    """Read what a page exported: the wishes by key. Raises `UsageError` for any other file."""
    try:
        document = json.loads(data)
        wishes = {str(item["key"]): Pick(str(item["pick"]), str(item["note"])) for item in document["picks"]}
        ours = (document["veobatch"], document["version"]) == ("picks", PICKS_VERSION)
    except (ValueError, TypeError, LookupError, RecursionError):
        ours = False
    if not ours:
        raise UsageError("this is no file of picks: export one on the report's page")
    return wishes


def find_takes(records: Iterable[Record], ids: Sequence[str]) -> list[Record]:
    """Return the takes of these ids; that of a row as it was before an edit goes by its key, `id@...`.

    Raises `UsageError` for one that there is not.
    """
    by_name: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_name[record.key].append(record)
        by_name[record.id].append(record)
    found = []
    for name in ids:
        if name not in by_name:
            raise UsageError(f"there is no take {name!r}: `id` in results.csv has them")
        found.append(
            max(by_name[name], key=lambda record: (record.position >= 0, record.artifact is not None))
        )
    return found
