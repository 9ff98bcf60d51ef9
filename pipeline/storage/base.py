"""What every store promises, whatever it is made of."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, TypeVar

from pipeline.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

T = TypeVar("T")

PART_SUFFIX: Final = ".veobatch-part"
"""Ends the name of every temporary file of ours, so that none is mistaken for a user's."""


class UnreadableFile(StoreError):
    """One file cannot be read, although the folder that holds it can."""


class TransientStoreError(StoreError):
    """The store did not do what was asked, but may if it is asked again."""


class FileGone(TransientStoreError):
    """The file that was to be copied is not there any more."""


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What identifies an untouched file without reading it: size, and modification time or ETag.

    `error` says why a file that is there, or a link to one, cannot be looked at: then nothing else counts.
    """

    size_bytes: int
    mtime_ns: int | None = None
    etag: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file under its final name, which may differ from the one asked for. `note` is for the user."""

    path: str
    size_bytes: int
    sha256: str
    stamp: FileStamp
    note: str = ""


class StagedFile(Protocol):
    """The bytes of one video on their way to their final name; used by one task at a time."""

    @property
    def staged_bytes(self) -> int:
        """How many bytes are staged, from the first one on, without a gap."""

    @property
    def tag(self) -> str:
        """The caller's description of the file that the staged bytes belong to; "" when none are staged."""

    async def restart(self, tag: str) -> None:
        """Drop what is staged and start at the first byte of what `tag` describes."""

    async def write(self, chunks: Sequence[bytes | memoryview]) -> None:
        """Append, in a thread; the caller may go on reading the network meanwhile."""

    async def digest(self) -> str:
        """The sha256 (hex) of everything staged."""

    async def inspect(self, probe: Callable[[Path | BinaryIO], T]) -> T:
        """Run `probe` on the staged bytes in a thread: on a path if there is one, else on a seekable file."""

    async def set_aside(self, tag: str = "") -> None:
        """Keep the staged bytes, whole but doubtful, under a temporary name while they are fetched anew.

        What was set aside before is replaced. `tag` takes the place of theirs.
        """

    async def aside_tag(self) -> str:
        """The tag of what was set aside, in an earlier run too; "" when nothing was, or nobody noted it."""

    async def restore(self) -> bool:
        """Stage again what was set aside, with its tag; False when nothing was."""

    async def publish(self, path: str, *, replaces: bool) -> PublishedFile:
        """Make the staged bytes durable, then visible under `path`, all or nothing.

        The same bytes found there are kept as they are. A different file there is moved aside when it is
        ours (`replaces`); a file that is not ours, or cannot be read, is left alone, and another free name
        is taken.
        """

    async def discard(self) -> None:
        """Remove what is staged, and nothing that was set aside."""


class OutputStore(Protocol):
    """A place for videos, posters, the CSV and the report. Paths are relative, with `/`.

    Every method raises `StoreError` when the place is full, read-only, gone or forbidden, and its subclass
    `TransientStoreError` when asking again may help.
    """

    @property
    def location(self) -> str:
        """The place as the user wrote it: a path or a URL."""

    def stage(self, path: str) -> AbstractAsyncContextManager[StagedFile]:
        """Stage a file near `path` (no extension), with what an earlier run or try left of it."""

    async def write_bytes(self, path: str, data: bytes, *, durable: bool = True) -> None:
        """Replace a whole small file atomically. `durable` says whether it must survive a power cut."""

    async def write_new(self, path: str, data: bytes, *, replaces: bool) -> str:
        """Write a small file, and return its path: `path`, or a free name when that is not ours.

        `replaces` says that a file under `path` is ours.
        """

    async def read_bytes(self, path: str) -> bytes | None:
        """A small file's bytes, or None when there is none."""

    async def stamp(self, path: str) -> FileStamp | None:
        """The stamp of one file, None when there is none. Raises `UnreadableFile`.

        In a folder, what a link names outside the path's first folder is none of ours, and not there.
        """

    async def read_range(self, path: str, stamp: FileStamp, start: int, end: int) -> bytes:
        """The bytes from `start` to `end` (not included) of the file that had this stamp.

        Raises `StoreError` when the file is gone or another one is there.
        """

    async def copy(self, source: str, target: str) -> None:
        """Put a file under `target` too, all or nothing; what stands there is replaced.

        A folder gives it a second name (a hard link) where it can; an object store copies by itself.
        Raises `FileGone`.
        """

    async def remove(self, path: str) -> None:
        """Remove a file if it is there."""

    async def stamps(self, paths: Sequence[str]) -> dict[str, FileStamp]:
        """The stamps of those of the files that exist, read from the listing alone.

        One that cannot be looked at has a stamp with an `error`.
        """

    async def fingerprint(self, path: str, size_bytes: int) -> str | None:
        """The sha256 (hex) of the file at `path` if it has that size, else None. Reads the whole file.

        Raises `UnreadableFile`.
        """

    async def aclose(self) -> None:
        """Release threads and connections."""


def candidate_names(path: str) -> Iterator[str]:
    """Yield `path`, and then other names for a new file beside it: `x.new-1.mp4` and so on."""
    stem, dot, extension = path.rpartition(".")
    yield path
    for number in itertools.count(1):
        yield f"{stem}.new-{number}{dot}{extension}"


def kept_name(path: str) -> str:
    """A pattern (`{}` stands for a number) for a file of ours that is moved aside: `x.kept-1.mp4`."""
    stem, dot, extension = path.rpartition(".")
    return f"{stem}.kept-{{}}{dot}{extension}"


def first_line(error: BaseException) -> str:
    """obstore appends a dump of its internals; the first line is what a person can use."""
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__
