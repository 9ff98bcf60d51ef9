"""The reel and the contact sheet of a batch: the chosen clips, or all, in the manifest's order."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio
from anyio import to_thread

from pipeline.errors import UsageError
from pipeline.media.contact_sheet import Cell, contact_sheets, slate
from pipeline.media.reel import ReelClip, Shape, find_shape, join_clips
from pipeline.media.typesetting import Typesetter
from pipeline.model import Record, State
from pipeline.results.picks import chosen_clips

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.ledger import Ledger
    from pipeline.storage import OutputStore

REEL_NAME: Final = "reel.mp4"
SHEET_NAME: Final = "contact-sheet.png"
FILES_NAME: Final = "reel_files"
"""The ledger's fact of the files that were made here: by name, the path, size and sha256 of the last one."""

_CHUNK_BYTES: Final = 1024 * 1024


def reel_clips(records: Sequence[Record], *, everything: bool) -> list[Record]:
    """Return the takes to show: the picks, or every clip. Raises `UsageError` when there is none."""
    if everything:
        found = [record for record in records if record.state is State.DONE and record.artifact is not None]
        found.sort(key=lambda record: (record.position < 0, record.position))
    else:
        found = list(chosen_clips(records).values())
    if not found:
        nothing = "no clip is saved yet" if everything else "nothing is picked: pick, or give --all"
        raise UsageError(nothing)
    return found


class Made(NamedTuple):
    """What was written: the files' paths, what the reel is like, and what no font of this machine has."""

    paths: tuple[str, ...]
    shape: Shape
    missing_glyphs: tuple[str, ...]


async def make_reel(ledger: Ledger, store: OutputStore, records: Sequence[Record], *, slates: bool) -> Made:
    """Write the reel and the contact sheets of `records`.

    Files of those names that are not ours stay. Raises `UsageError` for a clip that is gone or cannot be
    read, and `StoreError`.
    """
    with tempfile.TemporaryDirectory(prefix="veobatch-reel-") as name:
        folder = Path(name)
        clips = [await _fetch(store, record, folder, n) for n, record in enumerate(records)]
        posters = [await _fetch_poster(store, record, folder, n) for n, record in enumerate(records)]
        setter = await to_thread.run_sync(Typesetter)
        shape, sheets = await to_thread.run_sync(_make_files, records, clips, posters, folder, slates, setter)
        known = json.loads(await ledger.meta_get(FILES_NAME) or "{}")
        made = {REEL_NAME: folder / REEL_NAME}
        made |= {_sheet_name(number): sheet for number, sheet in enumerate(sheets, 1)}
        for target, path in made.items():
            await _remove_earlier(store, known.get(target))
            known[target] = await _publish(store, path, target)
            await ledger.meta_set(FILES_NAME, json.dumps(known))
    return Made(tuple(known[target][0] for target in made), shape, tuple(sorted(setter.missing)))


async def _fetch_poster(store: OutputStore, record: Record, folder: Path, number: int) -> Path | None:
    """Return a copy of a clip's poster: a thousand of them are too many for the memory."""
    path = record.artifact.poster_path if record.artifact else ""
    data = await store.read_bytes(path) if path else None
    if data is None:
        return None
    copy = folder / f"poster-{number}"
    await to_thread.run_sync(copy.write_bytes, data)
    return copy


def _sheet_name(number: int) -> str:
    return SHEET_NAME if number == 1 else SHEET_NAME.replace(".", f".{number}.")


async def _fetch(store: OutputStore, record: Record, folder: Path, number: int) -> Path:
    """Return a clip as a file of this machine: its own, or a copy of an object."""
    path = record.artifact.path if record.artifact else ""
    local = Path(store.location) / path
    if "://" not in store.location and await to_thread.run_sync(local.is_file):
        return local
    stamp = await store.stamp(path)
    if stamp is None:
        raise UsageError(f"{record.id}: {path} was moved away: put it back, or pick another take")
    copy = folder / f"{number}.{path.rpartition('.')[2]}"
    async with await anyio.open_file(copy, "wb") as file:
        for start in range(0, stamp.size_bytes, _CHUNK_BYTES):
            end = min(stamp.size_bytes, start + _CHUNK_BYTES)
            await file.write(await store.read_range(path, stamp, start, end))
    return copy


def _make_files(
    records: Sequence[Record],
    files: Sequence[Path],
    posters: Sequence[Path | None],
    folder: Path,
    slates: bool,
    setter: Typesetter,
) -> tuple[Shape, list[Path]]:
    import av

    cells = [Cell(record.id, record.prompt, poster) for record, poster in zip(records, posters, strict=True)]
    sheets = []
    for number, sheet in enumerate(contact_sheets(cells, setter), 1):
        sheets.append(folder / _sheet_name(number))
        sheet.save(sheets[-1])
    clips = [ReelClip(path) for path in files]
    try:
        if slates:
            shape = find_shape(clips)
            size = (shape.width, shape.height)
            clips = [
                ReelClip(path, partial(slate, record.id, record.prompt, size, setter))
                for path, record in zip(files, records, strict=True)
            ]
        return join_clips(clips, folder / REEL_NAME), sheets
    except (av.FFmpegError, ValueError) as error:
        raise UsageError(f"a clip cannot be read ({error}): `veobatch verify` finds out which") from error


async def _remove_earlier(store: OutputStore, known: tuple[str, int, str] | None) -> None:
    """Remove the file that was made here before, unless somebody has changed or replaced it since."""
    if known is None:
        return
    path, size_bytes, sha256 = known
    if await store.fingerprint(path, size_bytes) == sha256:
        await store.remove(path)


async def _publish(store: OutputStore, path: Path, target: str) -> tuple[str, int, str]:
    """Put a file into the output, beside whatever has its name; return its path, size and sha256."""
    async with store.stage(target.rpartition(".")[0]) as staged:
        await staged.restart("made here")
        async with await anyio.open_file(path, "rb") as file:
            while chunk := await file.read(_CHUNK_BYTES):
                await staged.write([chunk])
        published = await staged.publish(target, replaces=False)
    return published.path, published.size_bytes, published.sha256
