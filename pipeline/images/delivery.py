"""How pictures that are files reach the vendor: in the request, by a link into a bucket, or where they lie.

It turns a record's body, in which files stand by their content, into the body that is sent. Pictures are
prepared in worker threads, ahead of the rows that need them; each is prepared and uploaded once.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import deque
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard

import anyio
from anyio import to_thread

from pipeline.images.lookahead import Lookahead
from pipeline.images.prepared import (
    Fit,
    PictureError,
    PictureFault,
    Prepared,
    changed_meanwhile,
    unreadable,
)
from pipeline.images.published import find_published, with_places
from pipeline.manifest.local_files import PREFIX, image_sha256, is_reference, referenced

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    import aiohttp

    from pipeline.images.image_store import ImageStore
    from pipeline.manifest.local_files import LocalFile, LocalFiles
    from pipeline.model import Record
    from pipeline.settings import Settings

PREPARERS: Final = 4
"""How many pictures are prepared, checked or uploaded at once, ahead of the rows that need them."""

MIN_ROWS_AHEAD: Final = 128
MAX_ROWS_AHEAD: Final = 1024
MAX_KEPT_BYTES: Final = 1_000_000_000
"""Converted pictures of later rows are kept on the disk up to this; beyond it they are converted again."""

_MAX_SPARE: Final = 64
"""Pictures kept although no row waits for them: as many as there are submitters, since a create that is
rate limited comes back."""

_THREADS: Final = 1
"""Pictures decoded at once: one thread makes nine of 12 megapixels a second; a second took 50 MB more."""
_MAX_LARGE_BODIES: Final = 4
"""Bodies with pictures in them that are in memory at once; each is up to 11 MB."""

_LINK_MARGIN_S: Final = 3600.0


class Way(StrEnum):
    VALUE = "value"
    LINK = "link"
    PLACE = "place"


@dataclass(frozen=True, slots=True)
class PictureDelivery:
    """Where the pictures are and how each may travel. It can be pickled, and holds no secret.

    `any_by_value`: every model takes `data:` URIs, as the sandbox does.
    """

    files: Mapping[str, LocalFile]
    by_value: frozenset[tuple[str, str]]
    settings: Settings
    any_by_value: bool = False

    @classmethod
    def of(cls, files: LocalFiles, settings: Settings, *, any_by_value: bool = False) -> PictureDelivery:
        return cls(with_places(files.files), frozenset(files.by_value), settings, any_by_value)

    def way(self, model: str, field: str) -> Way | None:
        """Return how a field's file travels, None when no way is given. What the user names comes first."""
        if self.settings.image_base_url:
            return Way.PLACE
        if self.settings.image_store:
            return Way.LINK
        return Way.VALUE if self.any_by_value or (model, field) in self.by_value else None

    def fit(self, body: Mapping[str, Any]) -> Fit | None:
        ratio = body.get("aspect_ratio")
        how = self.settings.fit
        return Fit(how, ratio) if how is not None and isinstance(ratio, str) else None


_Key: TypeAlias = "tuple[str, Way, Fit | None]"
_Ready: TypeAlias = "Prepared | str"
"""A prepared file, or the link to it, or its object's name in the bucket."""


class Pictures:
    """Makes bodies for creates. `folder` is for converted pictures: it is emptied when they are sent."""

    def __init__(self, delivery: PictureDelivery, folder: Path, session: aiohttp.ClientSession) -> None:
        """Raises `UsageError` for an image store that will not do."""
        self._delivery, self._folder, self._session = delivery, folder, session
        self._store = _open_store(delivery.settings)
        self._ready: dict[_Key, _Ready | PictureError] = {}
        self._locks: dict[_Key, anyio.Lock] = {}
        slots = delivery.settings.concurrency
        self._ahead = Lookahead(max(MIN_ROWS_AHEAD, min(slots, MAX_ROWS_AHEAD)))
        self._moved = anyio.Event()
        self._spare: deque[_Key] = deque()
        self._threads = anyio.CapacityLimiter(_THREADS)
        self._large_bodies = anyio.CapacityLimiter(_MAX_LARGE_BODIES)

    def expect(self, records: Iterable[Record]) -> None:
        """Take in rows, in the order in which they will be submitted."""
        self._ahead.expect(records)
        self._wake_preparers()

    async def prepare_ahead(self) -> None:
        """Prepare the pictures of the rows that are submitted next, for ever; any number may do so."""
        while True:
            if not await self.prepare_next():
                await self._moved.wait()

    async def prepare_next(self) -> bool:
        """Prepare the next row's pictures; return False when enough rows are prepared for."""
        record = self._ahead.next()
        if record is None:
            return False
        with suppress(Exception):  # whatever it is: for the row itself to meet
            for key in self._keys(json.loads(record.body)):
                # A picture that another preparer has is not waited for: the next row's may differ.
                if key not in self._locks or not self._locks[key].locked():
                    await self._prepared(key)
        return True

    def _wake_preparers(self) -> None:
        self._moved.set()
        self._moved = anyio.Event()

    @asynccontextmanager
    async def body(self, record: Record) -> AsyncIterator[str]:
        """Yield the body to send for `record`, for as long as it takes to send it.

        Raises `PictureError` when its picture cannot be sent.
        """
        body = json.loads(record.body) if PREFIX in record.body else {}
        if not referenced(body):
            yield record.body
            return
        self._ahead.begin(record)
        self._wake_preparers()
        keys = self._keys(body)
        for key in keys:
            await self._prepared(key)
        by_value = any(way is Way.VALUE for _, way, _ in keys)
        async with self._large_bodies if by_value else nullcontext():
            # Nothing but the text is kept while it is sent: it may be 11 MB.
            yield await self._filled_text(body)
        unneeded = self._ahead.finish(record)
        for key in keys:
            if key[0] in unneeded:
                await self._retire(key)

    def _keys(self, body: dict[str, Any]) -> list[_Key]:
        model, fit = str(body.get("model")), self._delivery.fit(body)
        keys = []
        for field, value in body.items():
            for sha256 in referenced(value):
                way = self._delivery.way(model, field)
                if way is None:
                    raise PictureError(f"{model} takes no {field} by value, and no other way is given")
                if sha256 not in self._delivery.files:
                    raise PictureError("the manifest names it no more", PictureFault.TRANSIENT)
                keys.append((sha256, way, None if way is Way.PLACE else fit))
        return keys

    async def _filled_text(self, body: dict[str, Any]) -> str:
        filled = {name: await self._filled(body, name, value) for name, value in body.items()}
        return json.dumps(filled, ensure_ascii=False, separators=(",", ":"))

    async def _filled(self, body: dict[str, Any], field: str, value: Any) -> Any:
        if isinstance(value, list):
            return [await self._filled(body, field, item) for item in value]
        if isinstance(value, dict):
            return {name: await self._filled(body, field, item) for name, item in value.items()}
        if not is_reference(value):
            return value
        sha256 = value.removeprefix(PREFIX)
        way = self._delivery.way(str(body.get("model")), field)
        fit = None if way is Way.PLACE else self._delivery.fit(body)
        key = (sha256, way or Way.VALUE, fit)
        ready = await self._prepared(key)
        if isinstance(ready, Prepared):
            try:
                return await to_thread.run_sync(_data_uri, ready)
            except FileNotFoundError:  # removed meanwhile: no row seemed to need it, or the disk had no room
                self._ready.pop(key, None)
                return await self._filled(body, field, value)
            except OSError as error:
                raise unreadable(error) from error
        return self._store.link(ready) if way is Way.LINK and self._store is not None else ready

    async def _prepared(self, key: _Key) -> _Ready:
        async with self._locks.setdefault(key, anyio.Lock()):
            found = self._ready.get(key)
            if found is None:
                try:
                    found = await self._prepare(key)
                except PictureError as error:
                    found = error
                if not isinstance(found, PictureError) or found.kind is PictureFault.PICTURE:
                    self._ready[key] = found
            if isinstance(found, PictureError):
                raise found
            return found

    async def _prepare(self, key: _Key) -> _Ready:
        sha256, way, fit = key
        file = self._delivery.files[sha256]
        if way is Way.PLACE:
            return await find_published(self._session, self._delivery.settings.image_base_url or "", file)
        from pipeline.images.normalize import prepare

        prepared = await to_thread.run_sync(prepare, file, self._folder, fit, limiter=self._threads)
        if self._store is None:
            await self._make_room()
            return prepared
        try:
            return await self._store.upload(prepared, self._folder)
        finally:
            await self._remove(prepared)

    async def _retire(self, key: _Key) -> None:
        """Remove a picture that no row waits for, once others have become spare after it."""
        self._spare.append(key)
        if len(self._spare) > _MAX_SPARE:
            oldest = self._spare.popleft()
            if not self._ahead.is_needed(oldest[0]):
                await self._discard(oldest)

    async def _make_room(self) -> None:
        """Remove the oldest converted pictures beyond `MAX_KEPT_BYTES`, but none that is needed soon."""
        kept = [(key, ready.size_bytes) for key, ready in self._ready.items() if self._is_converted(ready)]
        surplus = sum(size_bytes for _, size_bytes in kept) - MAX_KEPT_BYTES
        for key, size_bytes in kept:
            if surplus > 0 and not self._ahead.is_needed_soon(key[0]):
                surplus -= size_bytes
                await self._discard(key)

    def _is_converted(self, ready: object) -> TypeGuard[Prepared]:
        return isinstance(ready, Prepared) and ready.path.parent == self._folder

    async def _discard(self, key: _Key) -> None:
        """Remove a converted picture; a row that needs it after all prepares it again."""
        ready = self._ready.get(key)
        if self._is_converted(ready):
            del self._ready[key]
            await self._remove(ready)

    async def _remove(self, prepared: Prepared) -> None:
        if self._is_converted(prepared):
            await anyio.Path(prepared.path).unlink(missing_ok=True)


def _open_store(settings: Settings) -> ImageStore | None:
    if settings.image_store is None or settings.image_base_url:
        return None
    try:
        from pipeline.images.image_store import ImageStore
    except ImportError as error:
        from pipeline.extras import missing_extra

        raise missing_extra("--image-store", "cloud") from error
    life_s = settings.image_link_life or settings.timeout + _LINK_MARGIN_S
    return ImageStore(settings.image_store, life_s, public=settings.image_store_public)


def _data_uri(prepared: Prepared) -> str:
    data = prepared.path.read_bytes()
    if hashlib.sha256(data).hexdigest() != prepared.sha256:  # an original that was written over since
        raise changed_meanwhile()
    return f"data:{prepared.content_type};base64,{base64.b64encode(data).decode('ascii')}"


def body_to_send(pictures: Pictures | None, record: Record) -> AbstractAsyncContextManager[str]:
    """Return the body of a row's create, as a context; `PictureError` where a file in it cannot be had."""
    if pictures is not None:
        return pictures.body(record)
    if image_sha256(record.body):  # what stands for a file is never sent itself
        raise PictureError("the manifest names it no more", PictureFault.TRANSIENT)
    return nullcontext(record.body)
