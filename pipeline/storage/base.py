"""What every store promises, whatever it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar

from pipeline.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

T = TypeVar("T")


class TransientStoreError(StoreError):
    """The store did not do what was asked, but may if it is asked again."""


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A part that now lies under its final name. `note` is said to the user when not empty."""

    path: str
    size_bytes: int
    sha256: str
    note: str = ""


class StagedFile(Protocol):
    """The bytes of one video on their way to their final name; used by one task at a time."""

    @property
    def staged_bytes(self) -> int:
        """How many bytes are held, from the first one on, without a gap."""
        ...

    @property
    def tag(self) -> str:
        """The caller's own words on what the held bytes belong to; "" while nothing is held."""
        ...

    async def restart(self, tag: str) -> None:
        """Forget what is held and start at the first byte of what `tag` describes."""
        ...

    async def write(self, chunks: Sequence[bytes]) -> None:
        """Append, in a thread; the caller may go on reading the network meanwhile."""
        ...

    async def digest(self) -> str:
        """The sha256 (hex) of all that is held."""
        ...

    async def inspect(self, probe: Callable[[Path | BinaryIO], T]) -> T:
        """Run `look` on the held bytes in a thread; a path where there is one, else a seekable file."""
        ...

    async def publish(self) -> PublishedFile:
        """Make the held bytes durable, then visible under the final name, all or nothing.

        A different file that has the name already is moved aside, never overwritten.
        """
        ...

    async def discard(self) -> None:
        """Forget what is held and leave no trace of it."""
        ...


class OutputStore(Protocol):
    """A place for videos, posters, the CSV and the report. Paths are relative, with `/`.

    Every method raises `StoreTrouble` when the place is full, read-only, gone or forbidden, as its
    subclass `Flaky` when asking again may help.
    """

    @property
    def location(self) -> str:
        """The place in the user's words: a path or a URL."""
        ...

    def stage(self, path: str) -> AbstractAsyncContextManager[StagedFile]:
        """The part for the final name `path`, with what an earlier run or try left of it."""
        ...

    async def write_bytes(self, path: str, data: bytes, *, durable: bool = True) -> None:
        """Replace a whole small file atomically. `durable` says whether it must survive a power cut."""
        ...

    async def read_bytes(self, path: str) -> bytes | None:
        """A small file's bytes, or None when it does not exist."""
        ...

    async def fingerprint(self, path: str, size_bytes: int) -> str | None:
        """The sha256 (hex) of the file at `path` if it has that size, else None."""
        ...

    async def aclose(self) -> None:
        """Let go of threads and connections."""
        ...
