"""The vendor's public catalogue: which models there are, what they cost, what their requests take.

It needs no key and gets none: the session that the caller hands over must carry none, since a model's
`docsJson` may lie on another host. Answers are kept on disk with their ETag; a catalogue that cannot be
reached costs a warning, never the run.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urljoin

import aiohttp
import anyio
from anyio import to_thread
from yarl import URL

from pipeline.errors import UsageError
from pipeline.manifest.fields import BUILT_IN_MODEL, ModelRules
from pipeline.manifest.openapi import rules_from_openapi
from pipeline.net.proxy import proxy_for, proxy_request_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

MAX_CATALOG_BYTES: Final = 16 * 1024 * 1024
_MAX_CONCURRENT_REQUESTS: Final = 8


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the catalogue says of one model, by the name it was asked for.

    `reached` False: the catalogue could not be asked and nothing was kept. `listed` False: it was asked and
    has no such model. `rules` None: its request schema is not known. `notes` are for the user.
    """

    model: str
    reached: bool = False
    listed: bool = True
    pricing: Mapping[str, Any] | None = None
    rules: ModelRules | None = None
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Catalog:
    """Asks `base_url`'s catalogue over `session` (without a key), keeping answers in `cache_dir`.

    `timeout_s` bounds each request.
    """

    session: aiohttp.ClientSession
    base_url: str
    cache_dir: Path | None = None
    timeout_s: float = 10.0
    _all_entries: list[dict[str, Any]] | None = field(default=None, init=False)
    _unreachable_hosts: dict[str, str] = field(default_factory=dict, init=False)
    _lock: anyio.Lock = field(default_factory=anyio.Lock, init=False)

    async def fetch_models(self, models: Iterable[str], *, with_rules: bool = True) -> dict[str, ModelInfo]:
        """Return a listing for each of `models`; never raises for the network's or the vendor's sake."""
        infos: dict[str, ModelInfo] = {}
        limiter = anyio.CapacityLimiter(_MAX_CONCURRENT_REQUESTS)

        async def fetch_one(model: str) -> None:
            async with limiter:
                infos[model] = await self._fetch_model(model, with_rules)

        async with anyio.create_task_group() as group:
            for model in set(models):
                group.start_soon(fetch_one, model)
        return infos

    async def _fetch_model(self, model: str, with_rules: bool) -> ModelInfo:
        fetched = await self._fetch(self._models_url(f"id={quote(model, safe='')}&"))
        if fetched.document is None:
            return ModelInfo(model, notes=(f"the catalogue has no word on {model}: {fetched.error}",))
        entry = _find_entry(_entries(fetched.document), model)
        if entry is None:
            all_entries = await self._fetch_all_entries()
            entry = _find_entry(all_entries, model)
            if entry is None:
                return ModelInfo(model, reached=True, listed=not all_entries)
        return await self._build_model_info(model, entry, fetched, with_rules and model != BUILT_IN_MODEL)

    async def _build_model_info(
        self, model: str, entry: dict[str, Any], fetched: _Fetched, with_rules: bool
    ) -> ModelInfo:
        pricing = entry.get("pricing")
        notes: list[str] = []
        if fetched.from_cache:
            notes.append(f"the catalogue cannot be reached ({fetched.error}): prices of {model} are older")
        rules = None
        if with_rules:
            rules, error = await self._fetch_rules(model, entry)
            notes += [f"the request schema of {model} is not known: {error}"] if error else []
        prices = pricing if isinstance(pricing, dict) else None
        return ModelInfo(model, reached=True, pricing=prices, rules=rules, notes=tuple(notes))

    async def _fetch_rules(self, model: str, entry: dict[str, Any]) -> tuple[ModelRules | None, str]:
        info = entry.get("info")
        link = info.get("docsJson") if isinstance(info, dict) else None
        if not isinstance(link, str) or not link:
            return None, "the catalogue names none"
        try:
            url = URL(urljoin(f"{self.base_url}/", link))
        except ValueError:
            url = URL()
        if url.scheme not in {"http", "https"} or not url.host:
            return None, "its address is not on the web"
        fetched = await self._fetch(url)
        if fetched.document is None:
            return None, fetched.error
        rules = rules_from_openapi(fetched.document, str(entry.get("id", model)))
        return rules, "" if rules else "its document describes no create request"

    def _models_url(self, query: str = "") -> URL:
        return URL(f"{self.base_url}/v1/models?{query}include=pricing,capabilities", encoded=True)

    async def _fetch_all_entries(self) -> list[dict[str, Any]]:
        """Return the whole catalogue, asked once: the lookup by id may not know aliases."""
        async with self._lock:
            if self._all_entries is None:
                fetched = await self._fetch(self._models_url())
                self._all_entries = _entries(fetched.document)
            return self._all_entries

    async def _fetch(self, url: URL) -> _Fetched:
        """Return what stands at `url`; a host that did not answer once is not waited for again."""
        cached = await to_thread.run_sync(self._read_cache, str(url))
        if url.host in self._unreachable_hosts:
            return _cached_or_error(cached, self._unreachable_hosts[url.host])
        headers = {"Accept": "application/json"}
        if cached is not None and cached.etag:
            headers["If-None-Match"] = cached.etag
        try:
            timeout = aiohttp.ClientTimeout(total=self.timeout_s)
            options = proxy_request_options(proxy_for(url, os.environ))
            async with self.session.get(url, headers=headers, timeout=timeout, **options) as response:
                if response.status == 304 and cached is not None:
                    return _Fetched(cached.document)
                if response.status != 200:
                    return _cached_or_error(cached, f"HTTP {response.status}")
                body = await _read_bounded(response)
                document = json.loads(body)
                if document is None:
                    return _cached_or_error(cached, "its answer is empty")
                await to_thread.run_sync(
                    self._write_cache, str(url), response.headers.get("ETag", ""), document
                )
                return _Fetched(document)
        except (aiohttp.ClientError, TimeoutError, OSError, UsageError) as error:
            message = self._unreachable_hosts[url.host or ""] = _describe_error(error)
            return _cached_or_error(cached, message)
        except (ValueError, RecursionError):
            return _cached_or_error(cached, "its answer is no JSON")

    def _cache_path(self, url: str) -> Path | None:
        if self.cache_dir is None:
            return None
        return self.cache_dir / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"

    def _read_cache(self, url: str) -> _CacheEntry | None:
        path = self._cache_path(url)
        if path is None:
            return None
        try:
            stored = json.loads(path.read_bytes())
            return _CacheEntry(str(stored["etag"]), stored["document"]) if stored["url"] == url else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _write_cache(self, url: str, etag: str, document: Any) -> None:
        """Keep an answer for the next time; a cache that cannot be written is no one's trouble."""
        path = self._cache_path(url)
        if path is None:
            return
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"url": url, "etag": etag, "document": document}), encoding="utf-8")
            part.replace(path)
        except OSError:
            return


@dataclass(frozen=True, slots=True)
class _CacheEntry:
    etag: str
    document: Any


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A document, live or `kept` from an earlier time; None with the `trouble`."""

    document: Any
    error: str = ""
    from_cache: bool = False


def _cached_or_error(cached: _CacheEntry | None, error: str) -> _Fetched:
    return _Fetched(None, error) if cached is None else _Fetched(cached.document, error, from_cache=True)


def _describe_error(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy opened no tunnel: HTTP {error.status} {error.message}".rstrip()
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    """Read the body; raises ValueError beyond `MAX_BYTES`."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        body += chunk
        if len(body) > MAX_CATALOG_BYTES:
            raise ValueError("the answer is too large")
    return bytes(body)


def _entries(document: Any) -> list[dict[str, Any]]:
    """Return the models of an answer: a list, `{"data": [...]}`, or one model by itself."""
    if isinstance(document, dict):
        inner = document.get("data", document)
        document = inner if isinstance(inner, list) else [inner]
    if not isinstance(document, list):
        return []
    return [entry for entry in document if isinstance(entry, dict) and "id" in entry]


def _find_entry(entries: list[dict[str, Any]], model: str) -> dict[str, Any] | None:
    """Return the entry whose id is `model`, else the one that has it among its aliases."""
    for entry in entries:
        if entry["id"] == model:
            return entry
    for entry in entries:
        aliases = entry.get("aliases")
        if isinstance(aliases, list) and model in aliases:
            return entry
    return None
