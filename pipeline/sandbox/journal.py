"""What a sandbox keeps over a restart: one line of JSON for each accepted generation.

A generation's status, its charge and its row in the log follow from its line and the time, so only the CDN's
port is written besides; time passes while no sandbox runs. What a line does not hold starts from zero:
counters of requests, of triggered faults, of polls and downloads, and creates that were refused. One sandbox
at a time writes.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict
from math import inf
from typing import TYPE_CHECKING, Any, Final

from pipeline.sandbox.faults.injector import Fault
from pipeline.sandbox.state import Generation

if TYPE_CHECKING:
    from pathlib import Path

HEADER: Final = b'{"journal":"veobatch sandbox","version":1}\n'
PORT_LINE_PATTERN: Final = re.compile(rb'\{"cdn_port":([0-9]{1,5})\}')
MAX_EPOCH_S: Final = 1e11
"""Seconds since the epoch; `datetime` cannot represent much later times."""

_OPEN_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
_FIELD_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "id": str,
    "number": int,
    "correlation_id": str,
    "body": dict,
    "model": str,
    "request_id": str,
    "created_at": (int, float),
    "render_s": (int, float, type(None)),
    "price_usd": (int, float),
    "faults": list,
    "fails": bool,
    "id_is_integer": bool,
    "key_id": str,
}
_DEFAULTS: Final[dict[str, Any]] = {"key_id": ""}
"""What lines of earlier versions lack."""


class Journal:
    """The file at `path`, which the first `append` makes, with its folder; None keeps nothing.

    `cdn_port` is the port in URLs that were handed out, 0 until a line has one; the next `append` writes it
    if it has changed.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.warnings: list[str] = []
        """Messages about the file's state, in the order in which they arose."""
        self.cdn_port = 0
        self._written_cdn_port = 0
        self._file: int | None = None
        self._valid_bytes = 0
        self._is_foreign = False
        self._read_error: OSError | None = None

    def read_new(self) -> list[Generation]:
        """The generations whose lines were added since the last call; the first call reads all.

        A last line without its end belongs to a create that was never answered, and does not count. A damaged
        line is skipped, and so is a file that is not a journal; `warnings` says so. While the file cannot be
        read, `append` fails.
        """
        if self.path is None:
            return []
        try:
            with self.path.open("rb") as file:
                file.seek(self._valid_bytes)
                data = file.read()
        except FileNotFoundError:
            self._read_error = None
            return []
        except OSError as error:
            self._read_error = error
            self._warn(f"{self.path} cannot be read ({error.strerror}): no generation will be accepted")
            return []
        self._read_error = None
        if self._valid_bytes == 0:
            self._is_foreign = not (data.startswith(HEADER) or HEADER.startswith(data))
        if self._is_foreign:
            self._warn(f"{self.path} is not a sandbox's journal: the sandbox starts without it")
            return []
        whole = data[: data.rfind(b"\n") + 1]
        lines = whole.removeprefix(HEADER).splitlines() if self._valid_bytes == 0 else whole.splitlines()
        self._valid_bytes += len(whole)
        return self._parse_lines(lines)

    def _parse_lines(self, lines: list[bytes]) -> list[Generation]:
        found: list[Generation] = []
        damaged = 0
        for line in lines:
            if port := PORT_LINE_PATTERN.fullmatch(line):
                self.cdn_port = self._written_cdn_port = int(port[1])
            elif (generation := _parse_line(line)) is not None:
                found.append(generation)
            else:
                damaged += 1
        if damaged:
            self._warn(f"{self.path}: {damaged} damaged line(s) were skipped")
        return found

    def append(self, generation: Generation) -> None:
        """Hand the generation's line to the operating system, so that it outlives this process.

        Raises `OSError` when that fails; then the generation is not in the file.
        """
        if self.path is None:
            return
        line = json.dumps(_to_entry(generation), separators=(",", ":")).encode() + b"\n"
        if self._file is None:
            self._file = self._open(self.path)
        if self.cdn_port != self._written_cdn_port:
            line = b'{"cdn_port":%d}\n' % self.cdn_port + line
        if self._valid_bytes == 0:
            line = HEADER + line
        rest = line
        try:
            while rest:
                written = os.write(self._file, rest)
                rest = rest[written:]
        except OSError:
            self.close()  # opening it again removes what was written of the line
            raise
        self._valid_bytes += len(line)
        self._written_cdn_port = self.cdn_port

    def close(self) -> None:
        """Close the file; `append` would open it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self, path: Path) -> int:
        """Open the file after its last whole line; a file that is not a journal is moved aside."""
        if self._read_error is not None:  # what could not be read must not be cut off
            raise OSError(self._read_error.errno, self._read_error.strerror)
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._is_foreign:
            path.replace(path.with_name(path.name + ".damaged"))
            self._is_foreign = False
        file = os.open(path, _OPEN_FLAGS, 0o644)
        try:
            os.ftruncate(file, self._valid_bytes)
        except OSError:
            os.close(file)
            raise
        return file

    def _warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)


def _to_entry(generation: Generation) -> dict[str, Any]:
    """The line's content; an endless rendering is null, since JSON has no infinity."""
    entry = {name: getattr(generation, name) for name in _FIELD_TYPES}
    entry["render_s"] = None if generation.render_s == inf else generation.render_s
    entry["faults"] = [asdict(fault) for fault in generation.faults]
    return entry


def _parse_line(line: bytes) -> Generation | None:
    """The line's generation, or None if the line is damaged."""
    try:
        entry = {**_DEFAULTS, **json.loads(line)}
        for name, kind in _FIELD_TYPES.items():
            if not isinstance(entry[name], kind):
                return None
        fields = {name: entry[name] for name in _FIELD_TYPES}
        if fields["render_s"] is None:
            fields["render_s"] = inf
        fields["faults"] = tuple(Fault(**fault) for fault in fields["faults"])
        generation = Generation(**fields)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    sane = (
        0 <= generation.created_at < MAX_EPOCH_S
        and 0 <= generation.price_usd < inf
        and generation.render_s >= 0
    )
    return generation if sane else None
