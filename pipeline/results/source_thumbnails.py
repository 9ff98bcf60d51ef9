"""Small copies of the pictures that rows name as files, for the page: beside the posters, named by content.

The page lies in the output, may be served, moved or published, and shows nothing from outside of it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import anyio
from anyio import to_thread

from pipeline.errors import StoreError
from pipeline.manifest.fields import MediaKind
from pipeline.manifest.local_files import image_sha256
from pipeline.model import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.events import Event
    from pipeline.manifest.local_files import LocalFile
    from pipeline.model import Record
    from pipeline.storage import OutputStore

WRITE_INTERVAL_S: Final = 0.5
SIDE_PX: Final = 480


def thumbnail_path(sha256: str) -> str:
    """Return where the thumbnail of a picture lies in the output."""
    return f"posters/{sha256[:32]}.source.jpg"


class ThumbnailWriter:
    """An observer that notices which pictures were sent, and the task that writes their thumbnails.

    One that cannot be made is left out: the page does without it.
    """

    def __init__(self, store: OutputStore, files: Mapping[str, LocalFile]) -> None:
        self._store = store
        self._files = {sha256: file for sha256, file in files.items() if file.kind is MediaKind.IMAGE}
        self._seen: set[str] = set()
        self._due: list[LocalFile] = []

    def on_transition(self, before: Record, after: Record) -> None:
        if after.state in (State.GENERATING, State.FAILED):
            self._note(after)

    def on_event(self, event: Event) -> None:
        """Events change no thumbnail."""

    async def keep_current(self) -> None:
        """Write the thumbnails of what was sent, until cancelled."""
        while True:
            await self._write_due()
            await anyio.sleep(WRITE_INTERVAL_S)

    async def finish(self, records: Iterable[Record]) -> None:
        """Write the thumbnails that are missing of rows that are not pending."""
        for record in records:
            if record.state is not State.PENDING:
                self._note(record)
        await self._write_due()

    def _note(self, record: Record) -> None:
        sha256 = image_sha256(record.body)
        if sha256 in self._files and sha256 not in self._seen:
            self._seen.add(sha256)
            self._due.append(self._files[sha256])

    async def _write_due(self) -> None:
        """One after the other: the pictures that rows wait for come first."""
        while self._due:
            file = self._due.pop(0)
            path = thumbnail_path(file.sha256)
            with contextlib.suppress(StoreError):
                if await self._store.stamp(path) is None and (data := await to_thread.run_sync(_make, file)):
                    with anyio.CancelScope(shield=True):
                        await self._store.write_bytes(path, data, durable=False)


def _make(file: LocalFile) -> bytes:
    """Return the thumbnail, b"" of a picture that cannot be read any more. Blocking."""
    try:
        from pipeline.images.normalize import thumbnail

        return thumbnail(file, SIDE_PX)
    except Exception:  # whatever a picture does to its decoder, the run and its page go on
        return b""
