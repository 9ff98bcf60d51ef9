"""API keys: which ones the vendor knows, what each may do, and what it may spend. Pure.

Facts: the vendor's OpenAPI of `GET /v1/key` (disabled, scopes, limit with retention and threshold; limits
reset at 00:00 UTC) and of `GET /v2/logs` (a key sees its own requests, a management key those of any prefix).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

if TYPE_CHECKING:
    from collections.abc import Sequence

Retention = Literal["no_reset", "day", "week", "month"]

PREFIX_LENGTH: Final = 8
VIDEO_SCOPE: Final = "model:video"
SCOPES: Final = tuple(
    f"model:{name}"
    for name in ("chat", "responses", "image", "audio", "video", "embeddings", "speech", "ocr")
)
KEY_SYNTAX: Final = "KEY[,disabled][,scope=model:NAME]...[,limit=USD[/day|week|month]]"
_KEY_PATTERN: Final = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class KeyRule:
    """One key and what it may do. `scopes` None means all; `limit_usd` counts from the last reset."""

    key: str
    disabled: bool = False
    scopes: tuple[str, ...] | None = None
    limit_usd: float | None = None
    retention: Retention = "no_reset"
    is_management: bool = False

    def __post_init__(self) -> None:
        """Raises `ValueError` for a key that no header can carry, an unknown scope and a negative limit."""
        if not _KEY_PATTERN.fullmatch(self.key):
            raise ValueError("key: a key is made of printable ASCII without spaces")
        unknown = set(self.scopes or ()) - set(SCOPES)
        if unknown:
            raise ValueError(f"key: {', '.join(sorted(unknown))} is none of {', '.join(SCOPES)}")
        if self.retention not in get_args(Retention):
            raise ValueError(f"key: a limit resets every {', '.join(get_args(Retention))}")
        if self.limit_usd is not None and not 0 <= self.limit_usd < float("inf"):
            raise ValueError("key: a limit is an amount of USD")

    @property
    def prefix(self) -> str:
        """The part of the key that the dashboard shows."""
        return self.key[:PREFIX_LENGTH]

    @property
    def id(self) -> str:
        return key_id(self.key)

    def allows_video(self) -> bool:
        """Return whether the key may create videos at all."""
        return self.scopes is None or VIDEO_SCOPE in self.scopes

    def limit_start(self, moment_s: float) -> float:
        """When the limit was last reset before `moment_s`, in seconds since the epoch."""
        day = datetime.fromtimestamp(moment_s, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        match self.retention:
            case "no_reset":
                return 0.0
            case "day":
                return day.timestamp()
            case "week":
                return (day - timedelta(days=day.weekday())).timestamp()
            case "month":
                return day.replace(day=1).timestamp()


class KeyRing:
    """All keys of the account. Without rules, any key belongs to it."""

    def __init__(self, rules: Sequence[KeyRule], management_key: str) -> None:
        management = KeyRule(management_key, scopes=(), is_management=True)
        self._rules = {rule.key: rule for rule in (management, *rules)}
        self._takes_any = not rules

    def find(self, key: str) -> KeyRule | None:
        """The rule for that key, or None if the account does not have it."""
        rule = self._rules.get(key)
        return KeyRule(key) if rule is None and self._takes_any and _KEY_PATTERN.fullmatch(key) else rule


def key_id(key: str) -> str:
    """What the books keep of a key: digests of its prefix and of the whole, never the key itself."""
    return f"{prefix_id(key)}.{_digest(key)}"


def prefix_id(prefix: str) -> str:
    """The part of a `key_id` that all keys with this prefix share."""
    return _digest(prefix[:PREFIX_LENGTH])


def parse_key(text: str) -> KeyRule:
    """Read `KEY_SYNTAX`; raises `ValueError` that quotes it."""
    key, *settings = text.split(",")
    disabled, scopes, limit_usd, retention = False, list[str](), None, "no_reset"
    for setting in settings:
        name, _, value = setting.partition("=")
        match name:
            case "disabled" if not value:
                disabled = True
            case "scope":
                scopes.append(value)
            case "limit":
                amount, _, period = value.partition("/")
                limit_usd, retention = _amount(amount), period or "no_reset"
            case _:
                raise ValueError(f"key: {setting!r} does not fit {KEY_SYNTAX}")
    return KeyRule(key, disabled, tuple(scopes) or None, limit_usd, cast("Retention", retention))


def _amount(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"key: {text!r} is no amount in {KEY_SYNTAX}") from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
