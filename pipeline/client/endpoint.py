"""Which API is asked, and with which key."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from yarl import URL

from pipeline.errors import UsageError

MIN_REDACTED_KEY_CHARS: Final = 5
"""A shorter key is a test's; replacing it everywhere would garble the answers."""

_USER: Final = re.compile(r"^(\s*[a-z][a-z0-9+.-]*:/*)?.*@", re.IGNORECASE | re.DOTALL)
_QUERY: Final = re.compile(r"([?#]).+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The secret and the name of the variable it was read from; never shown by repr or str."""

    secret: str = field(repr=False)
    source: str

    def __str__(self) -> str:
        return f"<key from {self.source}>"


def normalize_base_url(text: str) -> str:
    """Return the base URL without a trailing slash or version; samples end in `/v1` and `/v2`.

    Raises `UsageError` when it is no http(s) address with a host, without what it holds of a secret.
    """
    trimmed = text.strip()
    while (shorter := re.sub(r"(/v[12])?/*$", "", trimmed, count=1, flags=re.IGNORECASE)) != trimmed:
        trimmed = shorter
    try:
        url = URL(trimmed) if trimmed.isprintable() and " " not in trimmed else URL()
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host or url.user or url.query_string or url.fragment:
        shown = _without_secrets(text)
        raise UsageError(f"base URL {shown!r} cannot be used: it should look like https://api.aimlapi.com")
    return trimmed


def _without_secrets(text: str) -> str:
    """Return a text that may be no URL without what stands for a user, a password or a query in one."""
    return _QUERY.sub(r"\1***", _USER.sub(r"\1***@", text))
