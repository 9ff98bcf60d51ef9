"""The rows as the page's script reads them: compact JSON that is safe inside a `<script>` element.

Owns the order of a row's fields, and compresses large batches. Knows no HTML beyond what that element may
not contain.
"""

from __future__ import annotations

import base64
import gzip
import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from pipeline.manifest.local_files import image_sha256
from pipeline.model import State, render_duration_s
from pipeline.results.csv_rows import status
from pipeline.results.row_blocks import RowBlocks
from pipeline.results.source_thumbnails import thumbnail_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.model import Record

FIELDS: Final = (
    "key",
    "id",
    "status",
    "prompt",
    "image",
    "model",
    "params",
    "video",
    "poster",
    "length",
    "width",
    "height",
    "audio",
    "bytes",
    "usd",
    "submitted",
    "finished",
    "saved",
    "rendering",
    "generation",
    "correlation",
    "code",
    "message",
    "line",
    "position",
    "polls",
    "warnings",
    "row",
    "take",
    "pick",
    "note",
    "source",
)
"""The order of a row's fields; the page gets this list and does not rely on the order."""

MAX_PLAIN_ROWS: Final = 2000
"""Larger batches are compressed, to about a twentieth of their size."""


_SHOWN_SEPARATELY: Final = frozenset({"model", "prompt", "image_url"})
# `<` would end the element or open a comment in it; the line separators end a line in older scripts.
_SCRIPT_ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)

Row = list[Any]


def page_rows(records: Iterable[Record]) -> list[Row]:
    """Return one list a record, in the order of `FIELDS`; None where nothing is known."""
    return [_page_row(record) for record in records]


def page_payload(records: Sequence[Record], packed: RowBlocks[str] | None = None, **facts: object) -> str:
    """Return the page's data as JSON: `facts` and the rows, those of a large batch as blocks in `packed`.

    `packed` holds blocks that were made before, if any were.
    """
    data: dict[str, Any] = {"fields": FIELDS, **facts}
    if len(records) <= MAX_PLAIN_ROWS:
        return script_json(data | {"rows": page_rows(records)})
    # The blocks are base64, with nothing in them to escape: only what stands around them is searched.
    begin, end = script_json(data | {"packed": ["|"]}).rsplit('"|"', 1)
    return begin + ",".join(f'"{block}"' for block in (packed or RowBlocks(pack_rows)).each(records)) + end


def pack_rows(records: Sequence[Record]) -> str:
    """Return a block of rows as the page's script unpacks it: JSON, gzip, base64."""
    text = json.dumps(page_rows(records), ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0)).decode()


def script_json(value: object) -> str:
    """Return `value` as JSON that may stand inside a `<script type="application/json">` element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_SCRIPT_ESCAPES)
    return text.encode("utf-8", "replace").decode()


def relative_url(path: str) -> str:
    """Return a relative path as a URL that can only lead to a file beside the page."""
    return quote(path.lstrip("/").encode("utf-8", "replace"), safe="/")


def display_params(body: str) -> list[tuple[str, str]]:
    """Return the row's parameters as text, without those that the page shows separately."""
    try:
        fields = json.loads(body)
    except ValueError:
        return []
    if not isinstance(fields, dict):
        return []
    return [(name, _param_text(value)) for name, value in fields.items() if name not in _SHOWN_SEPARATELY]


def _param_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _page_row(record: Record) -> Row:
    artifact = record.artifact if record.state is State.DONE else None
    media = artifact.media if artifact else None
    failure = record.failure if record.state is not State.DONE else None
    image = image_sha256(record.body)
    return [
        record.key,
        record.id,
        status(record).value,
        record.prompt,
        record.manifest_image if image or record.manifest_image.startswith(("https://", "http://")) else "",
        record.model,
        display_params(record.body),
        relative_url(artifact.path) if artifact else "",
        relative_url(artifact.poster_path) if artifact else "",
        round(media.duration_s, 2) if media else None,
        media.width if media else None,
        media.height if media else None,
        media.has_audio if media else None,
        artifact.size_bytes if artifact else None,
        record.usd_spent,
        _round_to_tenths(record.submitted_at),
        _round_to_tenths(record.finished_at),
        _round_to_tenths(record.downloaded_at),
        _round_to_tenths(render_duration_s(record)),
        record.generation_id,
        record.correlation_id,
        failure.code if failure else "",
        failure.message if failure else "",
        record.line,
        record.position,
        record.polls,
        list(artifact.warnings) if artifact else [],
        record.row_id,
        record.take,
        record.pick,
        record.pick_note,
        thumbnail_path(image) if image else "",
    ]


def _round_to_tenths(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
