"""The vendor's public catalogue: which models there are, what they cost, what their requests take.

A catalogue that cannot be reached costs a warning, never the run; a feed of deprecations that cannot be
reached is not mentioned at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urljoin

import anyio
from yarl import URL

from pipeline import clocks
from pipeline.client.deprecations import Deprecation, find_deprecation, parse_deprecations
from pipeline.client.documents import Document, Documents
from pipeline.manifest.fields import BUILT_IN_MODEL, ModelRules
from pipeline.manifest.openapi import rules_from_openapi

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import aiohttp

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
    _documents: Documents = field(init=False)
    _all_entries: list[dict[str, Any]] | None = field(default=None, init=False)
    _deprecations: tuple[Deprecation, ...] | None = field(default=None, init=False)
    _lock: anyio.Lock = field(default_factory=anyio.Lock, init=False)

    def __post_init__(self) -> None:
        self._documents = Documents(self.session, self.cache_dir, self.timeout_s)

    async def fetch_models(self, models: Iterable[str], *, with_rules: bool = True) -> dict[str, ModelInfo]:
        """Return what is known of each of `models`; nothing is raised, whatever the network does."""
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
        fetched = await self._documents.fetch(self._models_url(f"id={quote(model, safe='')}&"))
        if fetched.content is None:
            return ModelInfo(model, notes=(f"the catalogue says nothing of {model}: {fetched.error}",))
        entry = _find_entry(_entries(fetched.content), model)
        if entry is None:
            all_entries = await self._fetch_all_entries()
            entry = _find_entry(all_entries, model)
            if entry is None and (retiring := find_deprecation(await self.fetch_deprecations(), model)):
                entry = await self._fetch_card(retiring.model)
                if entry is None:
                    return ModelInfo(model, reached=True)
            if entry is None:
                return ModelInfo(model, reached=True, listed=not all_entries)
        return await self._build_model_info(model, entry, fetched, with_rules and model != BUILT_IN_MODEL)

    async def _fetch_card(self, model: str) -> dict[str, Any] | None:
        """Return the entry of a model that is no longer listed: its card stays (vendor's documentation)."""
        card = await self._documents.fetch(
            URL(f"{self.base_url}/model/{quote(model, safe='')}", encoded=True)
        )
        return _find_entry(_entries(card.content), model)

    async def fetch_deprecations(self) -> tuple[Deprecation, ...]:
        """Return the models that retire, asked for once; none when the feed cannot be had."""
        async with self._lock:
            if self._deprecations is None:
                feed = await self._documents.fetch(URL(f"{self.base_url}/v1/models/deprecations"))
                self._deprecations = parse_deprecations(feed.content)
            return self._deprecations

    async def explain_missing(self, model: str) -> str:
        """Return why creates with `model` are answered with 404, "" when the vendor may well have it."""
        entry = find_deprecation(await self.fetch_deprecations(), model)
        if entry is not None:
            today = datetime.fromtimestamp(clocks.wall(), UTC).date().isoformat()
            return entry.message(model, today) if entry.is_shut_down(today) else ""
        info = (await self.fetch_models([model], with_rules=False))[model]
        return "" if info.listed or not info.reached else f"the vendor has no model {model}"

    async def _build_model_info(
        self, model: str, entry: dict[str, Any], fetched: Document, with_rules: bool
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
        fetched = await self._documents.fetch(url)
        if fetched.content is None:
            return None, fetched.error
        rules = rules_from_openapi(fetched.content, str(entry.get("id", model)))
        return rules, "" if rules else "its document describes no create request"

    def _models_url(self, query: str = "") -> URL:
        return URL(f"{self.base_url}/v1/models?{query}include=pricing,capabilities", encoded=True)

    async def _fetch_all_entries(self) -> list[dict[str, Any]]:
        """Return the whole catalogue, asked once: the lookup by id may not know aliases."""
        async with self._lock:
            if self._all_entries is None:
                fetched = await self._documents.fetch(self._models_url())
                self._all_entries = _entries(fetched.content)
            return self._all_entries


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
