"""The blocks of rows that the last run of a large batch left on the disk, by a digest of their rows.

A batch of which little is new then ends without making its CSV and page anew. Only saves time: whatever is
wrong with the file, it counts as absent. Everything here blocks.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import os
from contextlib import suppress
from dataclasses import astuple, fields
from importlib.resources import files
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from pipeline import __version__
from pipeline.compact_rows import kept_values_of
from pipeline.model import Artifact, Media, Record
from pipeline.results.row_blocks import all_ended, is_same
from pipeline.storage.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pipeline.model import Failure

BLOCKS_NAME: Final = ".veobatch.blocks"
_MAGIC: Final = b"veobatch blocks "
_HEAD_BYTES: Final = len(_MAGIC) + 65
_MAKERS: Final = ("results/csv_rows.py", "results/report/page_data.py")


class BlockCache:
    """Blocks by kind and digest. Until `open` is called it keeps nothing.

    Only blocks whose rows have all ended are kept: the others will be made again anyway.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._sandbox = False
        self._layout = ""
        self._last: dict[str, str] = {}
        self._current: dict[tuple[str, str], tuple[str, str]] = {}
        self._digests: dict[str, tuple[Sequence[Record], str]] = {}
        self._grown = False

    def open(self, path: Path, *, sandbox: bool) -> None:
        """Use what the last run left at `path`, where `save` puts what this one leaves."""
        self._path, self._sandbox = path, sandbox

    def kept(self, kind: str, make: Callable[[Sequence[Record]], str]) -> Callable[[Sequence[Record]], str]:
        """Return a `make` that looks for a block of this kind before it makes it."""

        def block(rows: Sequence[Record]) -> str:
            if self._path is None or not all_ended(rows):
                return make(rows)
            if not self._layout:
                self._read(self._path)
            digest = f"{kind} {self._digest(rows)}"
            if (text := self._last.pop(digest, None)) is None:
                text, self._grown = make(rows), True
            self._current[kind, rows[0].key] = (digest, text)
            return text

        return block

    def save(self) -> None:
        """Leave the blocks of this run, if any of them is new."""
        if self._path is None or not self._grown:
            return
        body = json.dumps(dict(self._current.values())).encode()
        with suppress(OSError):
            replace_file(self._path, _head_of(body) + body, durable=False)
        self._grown = False

    def _read(self, path: Path) -> None:
        self._layout = _layout(self._sandbox)
        data = _bytes_of_ours(path)
        if data is None:
            self._path = None  # somebody else's file is neither read nor replaced
            return
        head, body = data[:_HEAD_BYTES], data[_HEAD_BYTES:]
        if head == _head_of(body):
            self._last = json.loads(body)

    def _digest(self, rows: Sequence[Record]) -> str:
        known = self._digests.get(rows[0].key)
        if known is None or not is_same(known[0], rows):
            values = list(map(_plain_values_of, rows))
            # Version 2 of the format: later ones depend on which strings happen to be one object.
            data = marshal.dumps((self._layout, values), 2)
            known = self._digests[rows[0].key] = (rows, hashlib.sha256(data).hexdigest())
        return known[1]


def _failure_values(failure: Failure | None) -> tuple[Any, ...] | None:
    return None if failure is None else astuple(failure)


def _artifact_values(artifact: Artifact | None) -> tuple[Any, ...] | None:
    if artifact is None:
        return None
    media = None if artifact.media is None else _media_values_of(artifact.media)
    return *_file_values_of(artifact), media, tuple(map(tuple, artifact.extra))


_file_values_of: Final = attrgetter(
    *(field.name for field in fields(Artifact) if field.name not in ("media", "extra"))
)
_media_values_of: Final = attrgetter(*(field.name for field in fields(Media)))
_plain_values_of: Final = kept_values_of(
    Record,
    {"state": attrgetter("_value_"), "failure": _failure_values, "artifact": _artifact_values},
)


def _bytes_of_ours(path: Path) -> bytes | None:
    """Return what an earlier run left at `path`, nothing for an empty place, None for what is not ours."""
    if not os.path.lexists(path):
        return b""
    try:
        data = path.read_bytes() if path.is_file() else None
    except OSError:
        return None
    return data if (data is not None and data.startswith(_MAGIC)) or data == b"" else None


def _head_of(body: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n"


def _layout(sandbox: bool) -> str:
    """Return what a block depends on besides its rows."""
    package = files("pipeline")
    sources = (package.joinpath(name).read_bytes() for name in _MAKERS)
    return f"{__version__} {sandbox} {hashlib.sha256(b''.join(sources)).hexdigest()}"
