"""A copy of a prepared picture that nobody else writes to: the user's own file may change at any time.

An upload takes seconds, and its object is named by the hash of before: other bytes under that name would be
sent to the vendor for every later row and run. Blocking.
"""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Final

from pipeline.errors import StoreError
from pipeline.images.prepared import changed_meanwhile, unreadable

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.images.prepared import Prepared

_CHUNK_BYTES: Final = 1024 * 1024


def verified_copy(picture: Prepared, folder: Path) -> IO[bytes]:
    """Return a copy of a picture's file, open for reading; it lies in `folder` without a name until closed.

    Raises `PictureError` when the file cannot be read, or has not the bytes of the picture's hash any more,
    and `StoreError` when `folder` does not take the copy.
    """
    try:
        source = picture.path.open("rb")
    except OSError as error:
        raise unreadable(error) from error
    with source, ExitStack() as stack:
        copy = stack.enter_context(_new_file(folder))
        if _copy(source, copy) != picture.sha256:
            raise changed_meanwhile()
        stack.pop_all()  # it stays open for the caller
    return copy


def _new_file(folder: Path) -> IO[bytes]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=folder)
    except OSError as error:
        raise _no_room(error) from error


def _copy(source: IO[bytes], copy: IO[bytes]) -> str:
    """Copy all bytes, and go back to the first; return their sha256."""
    digest = hashlib.sha256()
    while chunk := _read(source):
        digest.update(chunk)
        _write(copy, chunk)
    try:
        copy.seek(0)  # writes what is buffered
    except OSError as error:
        raise _no_room(error) from error
    return digest.hexdigest()


def _read(source: IO[bytes]) -> bytes:
    try:
        return source.read(_CHUNK_BYTES)
    except OSError as error:
        raise unreadable(error) from error


def _write(copy: IO[bytes], chunk: bytes) -> None:
    try:
        copy.write(chunk)
    except OSError as error:
        raise _no_room(error) from error


def _no_room(error: OSError) -> StoreError:
    return StoreError(f"a picture cannot be copied for its upload: {error.strerror}")
