"""The one place that makes HTTP sessions: they keep no cookies, read no `~/.netrc`, and take long heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import aiohttp

from pipeline import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

USER_AGENT: Final = f"veobatch/{__version__}"

MAX_HEAD_BYTES: Final = 256 * 1024
MAX_HEADERS: Final = 2048
"""aiohttp's limits (8,190 bytes a line, 128 fields) are less than what proxies and security headers bring."""


def make_session(headers: Mapping[str, str] | None = None, **options: Any) -> aiohttp.ClientSession:
    """Return a session; `headers` take the place of our `User-Agent`, `options` are those of aiohttp's own.

    Must be called inside a running loop.
    """
    return aiohttp.ClientSession(
        headers={"User-Agent": USER_AGENT} if headers is None else headers,
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=MAX_HEAD_BYTES,
        max_field_size=MAX_HEAD_BYTES,
        max_headers=MAX_HEADERS,
        trust_env=False,
        **options,
    )
