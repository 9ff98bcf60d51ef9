"""A `Record` as the values of one row, and back.

It owns the flattening of `Failure`, `Artifact` and `Media` into columns. Pure; it must not know SQL.
"""

from __future__ import annotations

import json
from dataclasses import fields
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pipeline.compact_rows import row_maker, slot_constructor
from pipeline.model import Artifact, ExtraFile, Failure, Media, Record, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_NESTED_FIELDS: Final = ("failure", "artifact")
_PLAIN_FIELDS: Final = tuple(field.name for field in fields(Record) if field.name not in _NESTED_FIELDS)
_N_JOB_COLUMNS: Final = _PLAIN_FIELDS.index("state")

_COLUMN_NAMES: Final = {"manifest_image": "image_url", "submission_no": "intent"}
"""Fields whose column keeps the name that it had in the first version of the ledger."""

COLUMN_TYPES: Final = {
    _COLUMN_NAMES.get(field.name, field.name): str(field.type)
    for field in fields(Record)
    if field.name not in _NESTED_FIELDS
}
"""The annotation of each field that is a column as it is: `str`, `int`, `float | None`, ..."""

ADDED_COLUMNS: Final[Mapping[int, tuple[str, ...]]] = {
    3: (
        "key_id", "api_url", "vendor_sent_at", "absent_since", "completed_at", "request_id", "video_urls",
        "earlier_usd", "artifact_mtime_ns", "artifact_etag", "artifact_extra",
    ),
    4: ("take", "pick", "pick_note"),
}  # fmt: skip
"""The columns of records that a version of the ledger brought; earlier ones lack them."""

COLUMN_VERSIONS: Final = {name: version for version, names in ADDED_COLUMNS.items() for name in names}

JOB_COLUMNS: Final = tuple(COLUMN_TYPES)[:_N_JOB_COLUMNS]
"""Columns that a transition seldom changes: what the job is, and where it stands in the manifest."""

_CONTENT_FIELDS: Final = tuple(
    name
    for name in _PLAIN_FIELDS[:_N_JOB_COLUMNS]
    if name not in ("key", "position", "line", "pick", "pick_note")
)
CONTENT_COLUMNS: Final = tuple(_COLUMN_NAMES.get(name, name) for name in _CONTENT_FIELDS)
"""The job columns that a transition may change. Positions change by `set_positions` alone and picks by
`set_picks`: a transition decided from an older record must not bring an old value back."""

_FAILURE_COLUMNS: Final = ("failure_code", "failure_message", "failure_retryable")
_ARTIFACT_COLUMNS: Final = ("artifact_path", "artifact_bytes", "artifact_sha256", "artifact_poster")
_ORIGIN_COLUMNS: Final = ("artifact_mtime_ns", "artifact_etag", "artifact_extra")
_MEDIA_COLUMNS: Final = (
    "media_duration_s", "media_width", "media_height", "media_fps", "media_has_audio",
    "media_video_codec", "media_audio_codec", "media_warnings",
)  # fmt: skip

STATE_COLUMNS: Final = (
    *tuple(COLUMN_TYPES)[_N_JOB_COLUMNS:],
    *_FAILURE_COLUMNS, *_ARTIFACT_COLUMNS, *_MEDIA_COLUMNS, *_ORIGIN_COLUMNS,
)  # fmt: skip
"""Columns that every transition writes."""

Row = tuple[Any, ...]


class PreparedUpdate(NamedTuple):
    """A transition as it is written: its statement, its row, and the line of history without its time.

    `entry` is what it changes in the record of spending, in the same transaction; `claim` the generation that
    the row has from now on ("" when that is the one that it had), the row's key, and the submission that has
    to have bought it: the vendor may answer a create with what an earlier one bought. 0 is any submission.
    """

    after: Record
    sql: str
    params: Row
    history_row: tuple[str, int, str, str]
    entry: Row | None
    claim: tuple[str, str, int] = ("", "", 0)


_NO_FAILURE: Final = (None,) * len(_FAILURE_COLUMNS)
_NO_ARTIFACT: Final = (None,) * len(_ARTIFACT_COLUMNS)
_NO_MEDIA: Final = (None,) * len(_MEDIA_COLUMNS)
_NO_ORIGIN: Final = (None,) * len(_ORIGIN_COLUMNS)

# `_value_` is the plain str: drivers handle that much faster than a subclass of str.
_plain_state_values_of: Final = attrgetter("state._value_", *_PLAIN_FIELDS[_N_JOB_COLUMNS + 1 :])
_job_values_of: Final = attrgetter(*_PLAIN_FIELDS[:_N_JOB_COLUMNS])
_content_values_of: Final = attrgetter(*_CONTENT_FIELDS)
_INTERNED_FIELDS: Final = ("id", "manifest_image", "prompt", "file_stem")
_SHARED_FIELDS: Final = (
    "model", "pick", "key_id", "api_url", "request_id",
    "reserved_usd", "usd_spent", "credits_used", "earlier_usd",
)  # fmt: skip
"""Fields of which most rows have the same values, all together."""

_interned_values_of: Final = itemgetter(*map(_PLAIN_FIELDS.index, _INTERNED_FIELDS))
_shared_values_of: Final = itemgetter(*map(_PLAIN_FIELDS.index, _SHARED_FIELDS))
_MAX_SHARED: Final = 10_000
_place_of: Final = attrgetter("position", "key")

_POSITION, _LINE = map(_PLAIN_FIELDS.index, ("position", "line"))
_FAILURE_END: Final = len(_PLAIN_FIELDS) + len(_FAILURE_COLUMNS)
_MEDIA_START: Final = _FAILURE_END + len(_ARTIFACT_COLUMNS)
_MEDIA_END: Final = _MEDIA_START + len(_MEDIA_COLUMNS)
_REPLACED_FIELDS: Final = ("position", "state", *_NESTED_FIELDS, *_INTERNED_FIELDS, *_SHARED_FIELDS)
"""Fields whose values `to_records` puts behind those of the row's columns, in this order."""

_N_COLUMNS: Final = len(JOB_COLUMNS) + len(STATE_COLUMNS)
_make_record: Final = row_maker(
    Record,
    {name: number for number, name in enumerate(_PLAIN_FIELDS)}
    | {name: number for number, name in enumerate(_REPLACED_FIELDS, _N_COLUMNS)},
)
_make_artifact: Final = slot_constructor(Artifact)

_STATE_BY_VALUE: Final = {state.value: state for state in State}


def job_values(record: Record) -> Row:
    """Return the values of `JOB_COLUMNS`."""
    return tuple(_job_values_of(record))


def content_values(record: Record) -> Row:
    """Return the values of `CONTENT_COLUMNS`."""
    return tuple(_content_values_of(record))


def state_values(record: Record) -> Row:
    """Return the values of `STATE_COLUMNS`."""
    failure, artifact = record.failure, record.artifact
    if failure is None and artifact is None:
        return (*_plain_state_values_of(record), *_NO_NESTED_VALUES)
    return (
        *_plain_state_values_of(record),
        *(_NO_FAILURE if failure is None else (failure.code, failure.message, failure.retryable)),
        *(_NO_ARTIFACT if artifact is None else _artifact_row(artifact)),
        *(_NO_MEDIA if artifact is None or artifact.media is None else _media_row(artifact.media)),
        *(_NO_ORIGIN if artifact is None else _origin_row(artifact)),
    )


_NO_NESTED_VALUES: Final = _NO_FAILURE + _NO_ARTIFACT + _NO_MEDIA + _NO_ORIGIN


def _artifact_row(artifact: Artifact) -> Row:
    return artifact.path, artifact.size_bytes, artifact.sha256, artifact.poster_path


def _origin_row(artifact: Artifact) -> Row:
    return artifact.mtime_ns, artifact.etag, json.dumps(artifact.extra) if artifact.extra else None


def _media_row(media: Media) -> Row:
    return (
        media.duration_s, media.width, media.height, media.fps, media.has_audio,
        media.video_codec, media.audio_codec, json.dumps(media.warnings) if media.warnings else "[]",
    )  # fmt: skip


def sanitized(row: Row) -> Row:
    """Return the row with each text made storable: a vendor's message may hold half a surrogate pair,
    which is no UTF-8, or a NUL, which PostgreSQL refuses."""
    return tuple(
        value.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
        if isinstance(value, str)
        else value
        for value in row
    )


def in_order(records: Iterable[Record]) -> list[Record]:
    """Return records by position, then key. SQLite would carry whole rows through its sorter for that, which
    takes a third as long again as reading them."""
    return sorted(records, key=_place_of)


def to_records(rows: Iterable[Sequence[Any]]) -> Iterator[Record]:
    """Make records of rows of `JOB_COLUMNS` + `STATE_COLUMNS`; what many rows share is kept once."""
    interned: dict[str, str] = {}
    shared: dict[Row, Row] = {}
    media: dict[Row, Media | None] = {}
    previous_line = None
    for row in map(tuple, rows):
        texts = [interned.setdefault(text, text) for text in _interned_values_of(row)]
        found = _shared_values_of(row)
        remember = shared.setdefault if len(shared) < _MAX_SHARED else shared.get
        found = remember(found, found)
        # In a file with a row a line, counted from 0 and from 1, the place is the number before.
        position = previous_line if row[_POSITION] == previous_line else row[_POSITION]
        previous_line = row[_LINE]
        state = _STATE_BY_VALUE[row[_N_JOB_COLUMNS]]
        failure, artifact = _failure(row), _artifact(row, media)
        yield _make_record((*row, position, state, failure, artifact, *texts, *found))


def _failure(row: Row) -> Failure | None:
    code, message, retryable = row[len(_PLAIN_FIELDS) : _FAILURE_END]
    return None if code is None else Failure(code, message, bool(retryable))


def _artifact(row: Row, known_media: dict[Row, Media | None]) -> Artifact | None:
    path, size_bytes, sha256, poster = row[_FAILURE_END:_MEDIA_START]
    if path is None:
        return None
    media_row = row[_MEDIA_START:_MEDIA_END]
    if media_row not in known_media:
        known_media[media_row] = _media(media_row)
    media = known_media[media_row]
    mtime_ns, etag, extra = row[_MEDIA_END:]
    files = tuple(ExtraFile(*file) for file in json.loads(extra)) if extra else ()
    return _make_artifact(path, size_bytes, sha256, media, poster, mtime_ns, etag or "", files)


def _media(row: Sequence[Any]) -> Media | None:
    duration_s, width, height, fps, has_audio, video_codec, audio_codec, warnings = row
    if width is None:
        return None
    return Media(
        duration_s,
        width,
        height,
        fps,
        bool(has_audio),
        video_codec,
        audio_codec,
        () if warnings == "[]" else tuple(json.loads(warnings)),
    )
