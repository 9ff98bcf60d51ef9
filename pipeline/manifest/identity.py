"""The identity of a row: what makes two rows ask for the same clip, however they are written.

An editor, a spreadsheet or a file system may change line ends, compose accents differently, or leave a
blank at the end of a line; none of that changes the clip. What is sent stays as it is written.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from typing import TYPE_CHECKING, Any, Final

from pipeline.manifest.fields import BUILT_IN_MODEL, VEO_RULES
from pipeline.manifest.urls import canonical_url
from pipeline.row_keys import canonical_id, row_key

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from pipeline.model import Job, Record

FINGERPRINT_CHARS: Final = 12

_encode_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode
_LINE_END: Final = re.compile(r"[ \t\u00a0]*(?:\r\n|\r|\n)")


def canonical_json(body: Mapping[str, Any]) -> str:
    """Return the text that a fingerprint is made of.

    Only the built-in model's defaults are written out: a row's identity must not depend on a catalog.
    """
    complete = VEO_RULES.with_defaults(body) if body.get("model") == BUILT_IN_MODEL else body
    return _encode_canonical(_canonical(complete))


def fingerprint(canonical: str) -> str:
    """Return the short hash of a canonical text."""
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:FINGERPRINT_CHARS]


def _canonical(value: Any) -> Any:
    if isinstance(value, str):
        return canonical_text(value)
    if isinstance(value, dict):
        return {name: _canonical(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return value


def canonical_text(text: str) -> str:
    """Return a text with what cannot matter written one way: NFC, LF, no blanks at the ends of lines."""
    if text.isascii() and text.isprintable():
        stripped = text.strip()
    else:
        stripped = _LINE_END.sub("\n", unicodedata.normalize("NFC", text)).strip()
    return canonical_url(stripped) if stripped[:4].lower() == "http" else stripped


def has_one_spelling(record: Record) -> bool:
    """Return whether no text of a record can be written otherwise, so that every version gave it this key."""
    try:
        body = json.loads(record.body)
    except ValueError:
        return False
    return record.id == canonical_id(record.id) and _canonical(body) == body


def rekeyed(present: Mapping[str, Job], records: Mapping[str, Record]) -> dict[str, Record]:
    """Return, by the key of a job that `records` does not have, the record of the same row written otherwise.

    Ledgers of earlier versions made identities, or keys, of the text as it stood; those rows are found here.
    """
    new = present.keys() - records.keys()
    if not new:
        return {}
    found: dict[str, Record] = {}
    for record in _vanished(records.values(), present):
        key = canonical_key(record)
        if key in new:
            found.setdefault(key, record)
    return found


def _vanished(records: Iterable[Record], present: Container[str]) -> Iterable[Record]:
    return (record for record in records if record.key not in present)


def canonical_key(record: Record) -> str:
    """Return what the key of a record would be if its row were new."""
    try:
        made = fingerprint(canonical_json(json.loads(record.body)))
    except (ValueError, TypeError, AttributeError):
        made = record.fingerprint
    own_name = record.id == record.fingerprint or record.id.startswith(f"{record.fingerprint}-")
    job_id = made + record.id[len(record.fingerprint) :] if own_name else record.id
    return row_key(job_id, record.take, made)
