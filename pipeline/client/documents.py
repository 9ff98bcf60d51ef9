"""The vendor's public JSON documents: fetched without a key, kept on disk with their ETag.

The session that the caller hands over must carry no key, since a document may lie on another host. A
document that cannot be fetched is the one kept from an earlier time, or a reason; nothing is raised.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import aiohttp
from anyio import to_thread

from pipeline.client.connection import read_bounded
from pipeline.errors import UsageError
from pipeline.net.json_cache import read_json, write_json
from pipeline.net.proxy import proxy_for, proxy_request_options

if TYPE_CHECKING:
    from pathlib import Path

    from yarl import URL

MAX_DOCUMENT_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Document:
    """A document's content, or the copy kept earlier because of `error`; None without either."""

    content: Any
    error: str = ""
    from_cache: bool = False


class _Cached(NamedTuple):
    etag: str
    content: Any


@dataclass(slots=True)
class Documents:
    """Fetches documents over `session`; `timeout_s` bounds each request, `cache_dir` None keeps nothing."""

    session: aiohttp.ClientSession
    cache_dir: Path | None
    timeout_s: float
    _unreachable_hosts: dict[str, str] = field(default_factory=dict, init=False)

    async def fetch(self, url: URL) -> Document:
        """Return the document at `url`; a host that did not answer once is not waited for again."""
        cached = await to_thread.run_sync(self._read, str(url))
        if url.host in self._unreachable_hosts:
            return _kept(cached, self._unreachable_hosts[url.host])
        try:
            return await self._request(url, cached)
        except (aiohttp.ClientError, TimeoutError, OSError, UsageError) as error:
            message = self._unreachable_hosts[url.host or ""] = _describe_error(error)
            return _kept(cached, message)
        except (ValueError, RecursionError):
            return _kept(cached, "its answer is not JSON")

    async def _request(self, url: URL, cached: _Cached | None) -> Document:
        headers = {"Accept": "application/json"}
        if cached is not None and cached.etag:
            headers["If-None-Match"] = cached.etag
        timeout = aiohttp.ClientTimeout(total=self.timeout_s)
        options = proxy_request_options(proxy_for(url, os.environ))
        async with self.session.get(url, headers=headers, timeout=timeout, **options) as response:
            if response.status == 304 and cached is not None:
                return Document(cached.content)
            if response.status != 200:
                return _kept(cached, f"HTTP {response.status}")
            content = json.loads(await read_bounded(response, MAX_DOCUMENT_BYTES))
            etag = response.headers.get("ETag", "")
        if content is None:
            return _kept(cached, "its answer is empty")
        await to_thread.run_sync(self._write, str(url), etag, content)
        return Document(content)

    def _path(self, url: str) -> Path | None:
        name = f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"
        return None if self.cache_dir is None else self.cache_dir / name

    def _read(self, url: str) -> _Cached | None:
        path = self._path(url)
        stored = None if path is None else read_json(path)
        if not isinstance(stored, dict) or stored.get("url") != url or stored.get("document") is None:
            return None
        return _Cached(str(stored.get("etag", "")), stored["document"])

    def _write(self, url: str, etag: str, content: Any) -> None:
        path = self._path(url)
        if path is not None:
            write_json(path, {"url": url, "etag": etag, "document": content})


def _kept(cached: _Cached | None, error: str) -> Document:
    return Document(None, error) if cached is None else Document(cached.content, error, from_cache=True)


def _describe_error(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy opened no tunnel: HTTP {error.status} {error.message}".rstrip()
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
