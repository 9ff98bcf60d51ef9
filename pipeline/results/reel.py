"""The reel and the contact sheet of a batch: the chosen clips, or all, in the manifest's order."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyio import to_thread

from pipeline.errors import UsageError
from pipeline.media.contact_sheet import Cell, contact_sheets, slate
from pipeline.media.reel import Clip, find_shape, join_clips
from pipeline.model import Record, State
from pipeline.results.picks import chosen_clips

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.ledger import Ledger
    from pipeline.media.reel import Shape
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


async def make_reel(
    ledger: Ledger, store: OutputStore, records: Sequence[Record], *, slates: bool
) -> tuple[tuple[str, ...], Shape]:
    """Write the reel and the contact sheets of `records`; return their paths, and what the reel is like.

    Files of those names that are not ours stay. Raises `UsageError` for a clip that is gone or cannot be
    read, and `StoreError`.
    """
    with tempfile.TemporaryDirectory(prefix="veobatch-reel-") as name:
        folder = Path(name)
        clips = [Clip(await _fetch(store, record, folder)) for record in records]
        posters = [await _read_poster(store, record) for record in records]
        shape, sheets = await to_thread.run_sync(_make_files, records, clips, posters, folder, slates)
        known = json.loads(await ledger.meta_get(FILES_NAME) or "{}")
        made = {REEL_NAME: folder / REEL_NAME}
        made |= {_sheet_name(number): sheet for number, sheet in enumerate(sheets, 1)}
        for target, path in made.items():
            await _remove_earlier(store, known.get(target))
            known[target] = await _publish(store, path, target)
            await ledger.meta_set(FILES_NAME, json.dumps(known))
    return tuple(known[target][0] for target in made), shape


async def _read_poster(store: OutputStore, record: Record) -> bytes | None:
    path = record.artifact.poster_path if record.artifact else ""
    return await store.read_bytes(path) if path else None


def _sheet_name(number: int) -> str:
    return SHEET_NAME if number == 1 else SHEET_NAME.replace(".", f".{number}.")


async def _fetch(store: OutputStore, record: Record, folder: Path) -> Path:
    """Return a clip as a file of this machine: its own, or a copy of an object."""
    path = record.artifact.path if record.artifact else ""
    local = Path(store.location) / path
    if "://" not in store.location and await to_thread.run_sync(local.is_file):
        return local
    data = await store.read_bytes(path)
    if data is None:
        raise UsageError(f"{record.id}: {path} was moved away: put it back, or pick another take")
    copy = folder / f"{record.file_stem}.{path.rpartition('.')[2]}"
    await to_thread.run_sync(copy.write_bytes, data)
    return copy


def _make_files(
    records: Sequence[Record],
    clips: Sequence[Clip],
    posters: Sequence[bytes | None],
    folder: Path,
    slates: bool,
) -> tuple[Shape, list[Path]]:
    import av
    from PIL import Image

    cells = [
        Cell(record.id, record.prompt, Image.open(io.BytesIO(poster)) if poster else None)
        for record, poster in zip(records, posters, strict=True)
    ]
    sheets = []
    for number, sheet in enumerate(contact_sheets(cells), 1):
        sheets.append(folder / _sheet_name(number))
        sheet.save(sheets[-1])
    try:
        if slates:
            size = find_shape(clips)
            clips = [
                Clip(clip.path, slate(record.id, record.prompt, size.width, size.height))
                for clip, record in zip(clips, records, strict=True)
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
        for chunk in await to_thread.run_sync(_chunks, path):
            await staged.write([chunk])
        published = await staged.publish(target, replaces=False)
    return published.path, published.size_bytes, published.sha256


def _chunks(path: Path) -> Iterable[bytes]:
    data = path.read_bytes()
    return [data[n : n + _CHUNK_BYTES] for n in range(0, len(data), _CHUNK_BYTES)]
