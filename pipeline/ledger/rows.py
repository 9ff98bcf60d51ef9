"""A `Record` as the values of one row, and back.

It owns the flattening of `Failure`, `Artifact` and `Media` into columns. Pure; it must not know SQL.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from pipeline.model import Artifact, Failure, Media, Record, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_NESTED: Final = ("failure", "artifact")
_NAMES: Final = tuple(field.name for field in fields(Record) if field.name not in _NESTED)
_N_FIXED: Final = _NAMES.index("state")

PLAIN_TYPES: Final = {field.name: str(field.type) for field in fields(Record) if field.name not in _NESTED}
"""The annotation of each field that is a column as it is: `str`, `int`, `float | None`, ..."""

FIXED: Final = _NAMES[:_N_FIXED]
"""Columns that a step seldom changes: what the job is, and where it stands in the manifest."""

CONTENT: Final = tuple(name for name in FIXED if name not in ("key", "position", "line"))
"""Those of them that a step may change. Where a row stands changes by `place` alone: a step made from
a record of before must not take an old place back."""

_PLAIN: Final = _NAMES[_N_FIXED:]
_FAILURE: Final = ("failure_code", "failure_message", "failure_retryable")
_ARTIFACT: Final = ("artifact_path", "artifact_bytes", "artifact_sha256", "artifact_poster")
_MEDIA: Final = (
    "media_duration_s", "media_width", "media_height", "media_fps", "media_has_audio",
    "media_video_codec", "media_audio_codec", "media_warnings",
)  # fmt: skip

MOVING: Final = (*_PLAIN, *_FAILURE, *_ARTIFACT, *_MEDIA)
"""Columns that every step writes."""

Row = tuple[Any, ...]

_NO_FAILURE: Final = (None,) * len(_FAILURE)
_NO_ARTIFACT: Final = (None,) * len(_ARTIFACT)
_NO_MEDIA: Final = (None,) * len(_MEDIA)

# `_value_` is the plain text: drivers take an exact str by a much shorter way than a subclass of it.
_plain_of: Final = attrgetter("state._value_", *_PLAIN[1:])
_fixed_of: Final = attrgetter(*FIXED)
_content_of: Final = attrgetter(*CONTENT)
_SHARED: Final = tuple(map(_NAMES.index, ("id", "model", "image_url", "prompt", "file_stem")))

_STATES: Final = {state.value: state for state in State}


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a job's history: the step that made `version`, at `at` (seconds since the epoch)."""

    key: str
    version: int
    before: State
    after: State
    at: float


def fixed(record: Record) -> Row:
    """Return the values of `FIXED`."""
    return tuple(_fixed_of(record))


def content(record: Record) -> Row:
    """Return the values of `CONTENT`."""
    return tuple(_content_of(record))


def moving(record: Record) -> Row:
    """Return the values of `MOVING`."""
    failure, artifact = record.failure, record.artifact
    if failure is None and artifact is None:
        return (*_plain_of(record), *_NOTHING)
    return (
        *_plain_of(record),
        *(_NO_FAILURE if failure is None else (failure.code, failure.message, failure.retryable)),
        *(_NO_ARTIFACT if artifact is None else _artifact_row(artifact)),
        *(_NO_MEDIA if artifact is None or artifact.media is None else _media_row(artifact.media)),
    )


_NOTHING: Final = _NO_FAILURE + _NO_ARTIFACT + _NO_MEDIA


def _artifact_row(artifact: Artifact) -> Row:
    return artifact.path, artifact.size_bytes, artifact.sha256, artifact.poster_path


def _media_row(media: Media) -> Row:
    return (
        media.duration_s, media.width, media.height, media.fps, media.has_audio,
        media.video_codec, media.audio_codec, json.dumps(media.warnings),
    )  # fmt: skip


def cleaned(row: Row) -> Row:
    """Return the row with each text made storable: the vendor's words may hold half a surrogate pair,
    which is no UTF-8, or a NUL, which PostgreSQL refuses."""
    return tuple(
        value.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
        if isinstance(value, str)
        else value
        for value in row
    )


def read(rows: Iterable[Sequence[Any]]) -> Iterator[Record]:
    """Make records of rows of `FIXED` + `MOVING`; texts that many rows share are kept once."""
    seen: dict[str, str] = {}
    once = seen.setdefault
    n_plain, n_failure = len(_NAMES), len(_NAMES) + len(_FAILURE)
    for row in rows:
        plain = list(row[:n_plain])
        plain[_N_FIXED] = _STATES[plain[_N_FIXED]]
        for place in _SHARED:
            plain[place] = once(plain[place], plain[place])
        plain += (_failure(row[n_plain:n_failure]), _artifact(row[n_failure:]))
        yield Record(*plain)


def read_step(key: str, row: Sequence[Any]) -> Step:
    """Make a line of history of (version, before, after, at)."""
    version, before, after, at = row
    return Step(key, version, _STATES[before], _STATES[after], at)


def _failure(row: Sequence[Any]) -> Failure | None:
    code, message, retryable = row
    return None if code is None else Failure(code, message, bool(retryable))


def _artifact(row: Sequence[Any]) -> Artifact | None:
    path, size_bytes, sha256, poster = row[: len(_ARTIFACT)]
    return None if path is None else Artifact(path, size_bytes, sha256, _media(row[len(_ARTIFACT) :]), poster)


def _media(row: Sequence[Any]) -> Media | None:
    duration_s, width, height, fps, has_audio, video_codec, audio_codec, warnings = row
    if width is None:
        return None
    return Media(
        duration_s, width, height, fps, bool(has_audio), video_codec, audio_codec, tuple(json.loads(warnings))
    )
