"""The run's log: JSON lines in the output folder, one an event or a record's transition.

Owns the format of a line, what may stand in it, and the file's rotation. Knows no terminal and no
ledger. Writing happens in a thread of its own, so that a slow disk never holds up the loop that polls;
a disk that cannot be written to costs lines, never the run.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import re
import threading
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import quote

from pipeline import clocks
from pipeline.events import Event, Level
from pipeline.results.csv_rows import iso

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from pipeline.model import Record

_FLUSH_S: Final = 1.0
_FLUSH_LEVELS: Final = frozenset({Level.WARNING, Level.ERROR})
_URL_QUERY = re.compile(
    r"\b([a-z][a-z0-9+.\-]*://)(?:[^\s/?#@\"']*@)?([^\s?#\"'<>]*)([?#])[^\s\"'<>]*", re.IGNORECASE
)
_URL_USERINFO = re.compile(r"\b([a-z][a-z0-9+.\-]*://)[^\s/?#@\"']*@", re.IGNORECASE)
_SIGNATURE_PARAMS = re.compile(
    r"((?:x-(?:amz|goog)-(?:signature|credential|security-token)|signature|authorization)[=:]\s*)[^&\s\"']+",
    re.IGNORECASE,
)
_BEARER_TOKEN = re.compile(r"(bearer\s+)[^\s\"',]+", re.IGNORECASE)

# Legal in JSON, but a line's end to some who read line by line.
_LINE_SEPARATOR_ESCAPES: Final = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})


class Redactor:
    """Takes out of a text what no log may hold: the given secrets, query strings of URLs, signatures."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        forms = {form for secret in secrets if secret for form in (secret, quote(secret, safe=""))}
        longest_first = sorted(forms, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def __call__(self, text: str) -> str:
        if self._secrets is not None:
            text = self._secrets.sub("***", text)
        if "://" in text:
            text = _URL_QUERY.sub(r"\1\2\3…", text)
            text = _URL_USERINFO.sub(r"\1", text)
        text = _BEARER_TOKEN.sub(r"\1***", text)
        return _SIGNATURE_PARAMS.sub(r"\1…", text)


class RunLog:
    """An observer that writes `path`, at most `max_bytes` a file and `backups` older ones beside it.

    Use it as a context manager, or call `close`, which waits until every line is written. Lines that
    the disk did not take are counted, and said once it takes lines again.
    """

    def __init__(
        self,
        path: Path,
        secrets: Sequence[str] = (),
        *,
        max_bytes: int = 16 * 1024**2,
        backups: int = 3,
        clock: Callable[[], float] = clocks.wall,
    ) -> None:
        self._clock = clock
        self._redact = Redactor(secrets)
        self._records: Mapping[str, Record] = {}
        self._queue: queue.SimpleQueue[tuple[float, Record, Record] | tuple[float, Event] | None]
        self._queue = queue.SimpleQueue()
        self._file = RotatingFile(path, max_bytes, backups)
        self._thread = threading.Thread(target=self._write_loop, name="logbook", daemon=True)
        self._thread.start()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def lost_lines(self) -> int:
        """Lines that the disk did not take."""
        return self._file.lost_lines

    def follow(self, records: Mapping[str, Record]) -> None:
        """Give events about these rows every id of theirs. Somebody else keeps them current."""
        self._records = records

    def on_transition(self, before: Record, after: Record) -> None:
        self._queue.put((self._clock(), before, after))

    def on_event(self, event: Event) -> None:
        self._queue.put((self._clock(), event))

    def close(self) -> None:
        """Write what is left and close the file; more than once does no harm."""
        self._queue.put(None)
        self._thread.join()

    def _write_loop(self) -> None:
        flushed_at = clocks.monotonic()
        while True:
            try:
                item = self._queue.get(timeout=_FLUSH_S)
            except queue.Empty:
                self._file.flush()
                flushed_at = clocks.monotonic()
                continue
            if item is None:
                self._file.close()
                return
            facts = self._transition_line(*item) if len(item) == 3 else self._event_line(*item)
            self._file.write(json.dumps(facts, ensure_ascii=False).translate(_LINE_SEPARATOR_ESCAPES))
            if facts["level"] in _FLUSH_LEVELS or clocks.monotonic() - flushed_at >= _FLUSH_S:
                self._file.flush()
                flushed_at = clocks.monotonic()

    def _transition_line(self, at: float, before: Record, after: Record) -> dict[str, Any]:
        failure = after.failure if after.failure != before.failure else None
        same_state = before.state is after.state
        message = f"{after.state}" if same_state else f"{before.state} -> {after.state}"
        facts: dict[str, Any] = {
            "from": before.state.value,
            "to": after.state.value,
            "version": after.version,
        }
        for name in ("attempts", "polls", "usd_spent", "credits_used", "video_url"):
            if (value := getattr(after, name)) != getattr(before, name):
                facts[name] = value
        if failure is not None:
            facts |= {"error_code": failure.code, "error_message": failure.message}
        level = Level.WARNING if failure is not None else Level.DEBUG if same_state else Level.INFO
        return self._line(at, level, "moved", after.key, message, facts, after)

    def _event_line(self, at: float, event: Event) -> dict[str, Any]:
        record = self._records.get(event.key)
        return self._line(at, event.level, event.topic.value, event.key, event.message, event.facts, record)

    def _line(
        self,
        at: float,
        level: Level,
        topic: str,
        key: str,
        message: str,
        facts: Mapping[str, Any],
        record: Record | None,
    ) -> dict[str, Any]:
        line: dict[str, Any] = {"time": iso(at), "level": level.value, "topic": topic}
        ids = {"job": key.rpartition("@")[0]}
        if record is not None:
            names = ("generation_id", "correlation_id")
            ids = {"job": record.id, **{name: getattr(record, name) for name in names}}
        line |= {name: self._redact(value) for name, value in ids.items() if value}
        line["message"] = self._redact(message)
        if facts:
            line["facts"] = {
                self._redact(name): self._redact(value) if isinstance(value, str) else _json_value(value)
                for name, value in facts.items()
            }
        return line


def _json_value(value: object) -> object:
    """Return what JSON can hold; it has no word for infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class RotatingFile:
    """Lines appended to a file that is moved aside when it grows too large. Never raises `OSError`."""

    def __init__(self, path: Path, max_bytes: int, backups: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._backups = backups
        self._file: IO[bytes] | None = None
        self._size = 0
        self._flushed_size = 0
        self._unflushed = 0
        self.lost_lines = 0
        self._lost_reported = 0

    def write(self, line: str) -> None:
        data = line.encode("utf-8", "replace") + b"\n"
        try:
            file = self._open_for(len(data))
            self._unflushed += 1
            self._size += file.write(data)
        except OSError:
            self._discard_buffer()

    def flush(self) -> None:
        if self._file is None:
            return
        try:
            self._file.flush()
        except OSError:
            self._discard_buffer()
            return
        self._unflushed = 0
        self._flushed_size = self._size
        if self.lost_lines > self._lost_reported:
            self._lost_reported, lost = self.lost_lines, self.lost_lines - self._lost_reported
            self.write(
                json.dumps({"level": "warning", "topic": "log", "message": f"{lost} log lines were lost"})
            )

    def close(self) -> None:
        self.flush()
        self._close_file()

    def _open_for(self, line_bytes: int) -> IO[bytes]:
        if self._file is not None and self._size and self._size + line_bytes > self._max_bytes:
            self._file.flush()
            self._close_file()
            self._rotate()
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab")
            self._size = self._flushed_size = self._file.tell()
            if self._ends_mid_line():
                self._size += self._file.write(b"\n")
        return self._file

    def _ends_mid_line(self) -> bool:
        """Return whether the file ends inside a line, as a killed run leaves it."""
        if self._size == 0:
            return False
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"

    def _rotate(self) -> None:
        for number in range(self._backups - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            if older.exists():
                older.replace(self._path.with_name(f"{self._path.name}.{number + 1}"))
        if self._backups:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        else:
            self._path.unlink()

    def _discard_buffer(self) -> None:
        """Drop the buffered lines and close the file: the next line opens it again."""
        was_open = self._file is not None
        self.lost_lines += max(1, self._unflushed)
        self._unflushed = 0
        self._close_file()
        if was_open:
            with contextlib.suppress(OSError):
                os.truncate(self._path, self._flushed_size)

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
