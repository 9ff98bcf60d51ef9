"""Which generations share one distribution of rendering times. Knows the names of the vendor's fields."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.model import Record

KEY_FIELDS: Final = ("resolution", "duration", "generate_audio", "provider")
"""The fields of a create's body that change how long it renders; the prompt and the image hardly do."""


def duration_key(model: str, body: Mapping[str, Any]) -> str:
    """Return the name under which durations of such a generation are learned, as `model|1080p|8`.

    Fields the body leaves out (or leaves null) are left out of the name, except that the place of the
    resolution and of the duration is kept.
    """
    parts = [model, _value_text(body.get("resolution")), _value_text(body.get("duration"))]
    parts += [f"{name}={_value_text(body[name])}" for name in KEY_FIELDS[2:] if body.get(name) is not None]
    return "|".join(parts)


def record_duration_key(record: Record) -> str:
    """Return the duration key of a record; one whose body cannot be read counts by its model alone.

    Equal keys are one object: each generation in flight keeps one.
    """
    try:
        body = json.loads(record.body)
    except (ValueError, RecursionError):
        body = {}
    return sys.intern(duration_key(record.model, body if isinstance(body, dict) else {}))


def _value_text(value: object) -> str:
    return "" if value is None else str(value).strip().lower()[:40]
