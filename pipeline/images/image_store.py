"""The user's own bucket as the place where the vendor fetches pictures: uploaded once, handed out as links.

An object is named by its content, so that it is never uploaded twice, whoever did it first. Signed links
are secrets: they are made for one request and kept nowhere.
"""

from __future__ import annotations

from datetime import timedelta
from typing import IO, TYPE_CHECKING

import obstore
from anyio import to_thread
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError
from obstore.store import AzureStore, GCSStore, S3Store

from pipeline.errors import UsageError
from pipeline.images.prepared import PictureError, PictureFault
from pipeline.images.verified_copy import verified_copy
from pipeline.storage.object_store import open_backend
from pipeline.storage.object_upload import put_file

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.images.prepared import Prepared


class ImageStore:
    """A bucket's prefix. Links live `link_life_s` seconds, or for ever where the bucket is `public`."""

    def __init__(self, url: str, link_life_s: float, *, public: bool) -> None:
        """Raises `UsageError` for a URL that no store serves, or a store that signs no links."""
        self._backend, self._account = open_backend(url, "--image-store")
        self._life = timedelta(seconds=link_life_s)
        self._public = public
        try:
            self._sign("link")
        except (BaseError, TypeError, ValueError) as error:
            why = f"it signs no links ({str(error)[:200]})"
            raise UsageError(
                f"--image-store {url}: {why}; give s3://, gs:// or az://, and its credentials"
            ) from error

    def link(self, name: str) -> str:
        """Return a link to an object. Raises `PictureError` when it cannot be signed now."""
        try:
            url = self._sign(name)
        except BaseError as error:
            raise _store_error("signs no link", error) from None
        return url.partition("?")[0] if self._public else url

    def _sign(self, name: str) -> str:
        if not isinstance(self._backend, S3Store | GCSStore | AzureStore):
            raise TypeError("no bucket")
        return obstore.sign(self._backend, "GET", name, self._life)

    async def upload(self, picture: Prepared, folder: Path) -> str:
        """Return the object's name once it is there; what is there already is not sent again.

        `folder` is for the copy that is sent, so that the bytes are those of the hash. Raises `PictureError`
        when the picture has changed, or the store does not take it, and `StoreError` for the folder.
        """
        name = f"{picture.sha256}.{picture.extension}"
        try:
            if await self._size(name) != picture.size_bytes:
                with await to_thread.run_sync(verified_copy, picture, folder) as copy:
                    await self._put(name, picture, copy)
        except (BaseError, OSError) as error:
            raise _store_error("takes no picture", error) from None
        return name

    async def _put(self, name: str, picture: Prepared, copy: IO[bytes]) -> None:
        attributes = {"Content-Type": picture.content_type}
        size_bytes = picture.size_bytes
        try:
            await put_file(self._backend, self._account, name, copy, size_bytes, attributes)
        except (BaseError, OSError):
            if await self._size(name) != size_bytes:  # else another run was faster, and ended this upload
                raise

    async def _size(self, name: str) -> int | None:
        try:
            return (await obstore.head_async(self._backend, name))["size"]
        except (NotFoundError, FileNotFoundError, PermissionDeniedError):
            return None  # who may write and not read uploads again: the bytes are the same


def _store_error(what: str, error: Exception) -> PictureError:
    """Say what a store does not do, without a query: a signature may stand there."""
    cause = (str(error).splitlines() or [type(error).__name__])[0].partition("?")[0][:200]
    return PictureError(f"the image store {what}: {cause}", PictureFault.STORE)
