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
from pipeline.manifest.fields import KNOWN_MODEL, ModelRules
from pipeline.manifest.openapi import rules_from_openapi
from pipeline.net.proxy import proxy_for, way_through

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

MAX_BYTES: Final = 16 * 1024 * 1024
_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Listing:
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
class Catalogue:
    """Asks `base_url`'s catalogue over `session` (without a key), keeping answers in `cache_dir`.

    `timeout_s` bounds each request.
    """

    session: aiohttp.ClientSession
    base_url: str
    cache_dir: Path | None = None
    timeout_s: float = 10.0
    _whole: list[dict[str, Any]] | None = field(default=None, init=False)
    _silent: dict[str, str] = field(default_factory=dict, init=False)
    _lock: anyio.Lock = field(default_factory=anyio.Lock, init=False)

    async def look_up(self, models: Iterable[str], *, with_rules: bool = True) -> dict[str, Listing]:
        """Return a listing for each of `models`; never raises for the network's or the vendor's sake."""
        found: dict[str, Listing] = {}
        limiter = anyio.CapacityLimiter(_AT_ONCE)

        async def ask(model: str) -> None:
            async with limiter:
                found[model] = await self._listing(model, with_rules)

        async with anyio.create_task_group() as group:
            for model in set(models):
                group.start_soon(ask, model)
        return found

    async def _listing(self, model: str, with_rules: bool) -> Listing:
        answer = await self._get(self._models_url(f"id={quote(model, safe='')}&"))
        if answer.document is None:
            return Listing(model, notes=(f"the catalogue has no word on {model}: {answer.trouble}",))
        entry = _named(_entries(answer.document), model)
        if entry is None:
            everything = await self._everything()
            entry = _named(everything, model)
            if entry is None:
                return Listing(model, reached=True, listed=not everything)
        return await self._detailed(model, entry, answer, with_rules and model != KNOWN_MODEL)

    async def _detailed(
        self, model: str, entry: dict[str, Any], answer: _Answer, with_rules: bool
    ) -> Listing:
        pricing = entry.get("pricing")
        notes: list[str] = []
        if answer.kept:
            notes.append(f"the catalogue cannot be reached ({answer.trouble}): prices of {model} are older")
        rules = None
        if with_rules:
            rules, trouble = await self._rules(model, entry)
            notes += [f"the request schema of {model} is not known: {trouble}"] if trouble else []
        prices = pricing if isinstance(pricing, dict) else None
        return Listing(model, reached=True, pricing=prices, rules=rules, notes=tuple(notes))

    async def _rules(self, model: str, entry: dict[str, Any]) -> tuple[ModelRules | None, str]:
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
        answer = await self._get(url)
        if answer.document is None:
            return None, answer.trouble
        found = rules_from_openapi(answer.document, str(entry.get("id", model)))
        return found, "" if found else "its document describes no create request"

    def _models_url(self, query: str = "") -> URL:
        return URL(f"{self.base_url}/v1/models?{query}include=pricing,capabilities", encoded=True)

    async def _everything(self) -> list[dict[str, Any]]:
        """Return the whole catalogue, asked once: the lookup by id may not know aliases."""
        async with self._lock:
            if self._whole is None:
                answer = await self._get(self._models_url())
                self._whole = _entries(answer.document)
            return self._whole

    async def _get(self, url: URL) -> _Answer:
        """Return what stands at `url`; a host that did not answer once is not waited for again."""
        kept = await to_thread.run_sync(self._read_kept, str(url))
        if url.host in self._silent:
            return _or_kept(kept, self._silent[url.host])
        headers = {"Accept": "application/json"}
        if kept is not None and kept.etag:
            headers["If-None-Match"] = kept.etag
        try:
            timeout = aiohttp.ClientTimeout(total=self.timeout_s)
            way = way_through(proxy_for(url, os.environ))
            async with self.session.get(url, headers=headers, timeout=timeout, **way) as response:
                if response.status == 304 and kept is not None:
                    return _Answer(kept.document)
                if response.status != 200:
                    return _or_kept(kept, f"HTTP {response.status}")
                body = await _bounded(response)
                document = json.loads(body)
                if document is None:
                    return _or_kept(kept, "its answer is empty")
                await to_thread.run_sync(self._keep, str(url), response.headers.get("ETag", ""), document)
                return _Answer(document)
        except (aiohttp.ClientError, TimeoutError, OSError, UsageError) as error:
            trouble = self._silent[url.host or ""] = _trouble(error)
            return _or_kept(kept, trouble)
        except (ValueError, RecursionError):
            return _or_kept(kept, "its answer is no JSON")

    def _place(self, url: str) -> Path | None:
        if self.cache_dir is None:
            return None
        return self.cache_dir / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"

    def _read_kept(self, url: str) -> _Kept | None:
        place = self._place(url)
        if place is None:
            return None
        try:
            kept = json.loads(place.read_bytes())
            return _Kept(str(kept["etag"]), kept["document"]) if kept["url"] == url else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _keep(self, url: str, etag: str, document: Any) -> None:
        """Keep an answer for the next time; a cache that cannot be written is no one's trouble."""
        place = self._place(url)
        if place is None:
            return
        part = place.with_suffix(f".{os.getpid()}.part")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"url": url, "etag": etag, "document": document}), encoding="utf-8")
            part.replace(place)
        except OSError:
            return


@dataclass(frozen=True, slots=True)
class _Kept:
    etag: str
    document: Any


@dataclass(frozen=True, slots=True)
class _Answer:
    """A document, live or `kept` from an earlier time; None with the `trouble`."""

    document: Any
    trouble: str = ""
    kept: bool = False


def _or_kept(kept: _Kept | None, trouble: str) -> _Answer:
    return _Answer(None, trouble) if kept is None else _Answer(kept.document, trouble, kept=True)


def _trouble(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy opened no tunnel: HTTP {error.status} {error.message}".rstrip()
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """Read the body; raises ValueError beyond `MAX_BYTES`."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        body += chunk
        if len(body) > MAX_BYTES:
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


def _named(entries: list[dict[str, Any]], model: str) -> dict[str, Any] | None:
    """Return the entry whose id is `model`, else the one that has it among its aliases."""
    for entry in entries:
        if entry["id"] == model:
            return entry
    for entry in entries:
        aliases = entry.get("aliases")
        if isinstance(aliases, list) and model in aliases:
            return entry
    return None
