"""The catalogue over real sockets: names and aliases, request schemas, ETags, and all that can go wrong."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import pytest
from aiohttp import web

from pipeline.client.catalog import Catalog, ModelInfo
from pipeline.manifest import BUILT_IN_MODEL, ManifestProblems
from pipeline.manifest.openapi import rules_from_openapi
from pipeline.runner.manifest_loading import check_with_catalogue, parse_manifest, price_manifest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MODEL, ALIAS = "other/t2v", "t2v"
PRICING = {"kind": "fixed", "units": [{"name": "video", "measure": "second", "price": 0.5, "per": 1}]}


def openapi_document(**properties: Any) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"model": {"type": "string", "enum": [MODEL]}, **properties},
        "required": ["model", "prompt"],
    }
    body = {"content": {"application/json": {"schema": schema}}}
    return {"paths": {"/v2/video/generations": {"post": {"requestBody": body}, "get": {}}}}


DOCS = openapi_document(
    prompt={"type": "string", "maxLength": 50},
    duration={"type": "integer", "enum": [5, 10], "default": "5"},
    seed={"type": "integer", "minimum": 0, "nullable": True},
    image_urls={"type": "array", "items": {"type": "string", "format": "uri"}, "minItems": 1},
)


@dataclass
class CatalogServer:
    """A catalogue of someone else's making; `seen` holds (path, query, If-None-Match, Authorization)."""

    base_url: str = ""
    filtered: bool = True
    models: list[dict[str, Any]] = field(default_factory=list)
    docs: Any = field(default_factory=lambda: DOCS)
    status: int = 200
    body: str | None = None
    never_responds: bool = False
    balance: float | None = None
    deprecations: list[dict[str, Any]] | None = None
    cards: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str | None, str | None]] = field(default_factory=list)

    def add(self, name: str, *aliases: str, **more: Any) -> None:
        info = {"docsJson": "/docs-json?model=x"}
        self.models.append({"id": name, "aliases": list(aliases), "info": info, "pricing": PRICING, **more})

    async def handle(self, request: web.Request) -> web.StreamResponse:
        asked = request.headers.get("If-None-Match")
        self.requests.append((request.path_qs, asked, request.headers.get("Authorization")))
        if self.never_responds:
            await anyio.sleep_forever()
        if self.status != 200:
            return web.Response(status=self.status)
        if request.path == "/v2/billing":
            return web.json_response({"current_balance": self.balance, "currency": "USD"})
        if self.body is not None:
            return web.Response(text=self.body, content_type="application/json")
        if request.path == "/v1/models/deprecations" and self.deprecations is None:
            return web.Response(status=404, text="<html>no such page</html>")
        if request.path.startswith("/model/"):
            return web.json_response(self.cards.get(request.path.removeprefix("/model/"), {}))
        if request.path == "/v1/models/deprecations":
            return web.json_response({"object": "list", "data": self.deprecations})
        document = (
            self.docs
            if request.path == "/docs-json"
            else {"data": self._find_models(request.query.get("id"))}
        )
        text = json.dumps(document)
        etag = f'"{hash(text)}"'
        if asked == etag:
            return web.Response(status=304, headers={"ETag": etag})
        return web.Response(text=text, content_type="application/json", headers={"ETag": etag})

    def _find_models(self, name: str | None) -> list[dict[str, Any]]:
        return [m for m in self.models if name is None or not self.filtered or m["id"] == name]


@asynccontextmanager
async def running(vendor: CatalogServer) -> AsyncIterator[CatalogServer]:
    app = web.Application()
    app.router.add_get("/{any:.*}", vendor.handle)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    vendor.base_url = f"http://{host}:{port}"
    try:
        yield vendor
    finally:
        await runner.cleanup()


async def fetch_models(
    vendor: CatalogServer, *models: str, cache: Path | None = None, rules: bool = True
) -> dict[str, ModelInfo]:
    async with aiohttp.ClientSession() as session:
        return await Catalog(session, vendor.base_url, cache).fetch_models(models, with_rules=rules)


@pytest.mark.parametrize("filtered", [True, False])
@pytest.mark.parametrize("name", [MODEL, ALIAS])
async def test_a_model_is_found_by_id_and_alias(name: str, filtered: bool) -> None:
    vendor = CatalogServer(filtered=filtered)
    vendor.add("first/other", "aside")
    vendor.add(MODEL, ALIAS)
    async with running(vendor):
        found = (await fetch_models(vendor, name))[name]
    assert found.reached
    assert found.listed
    assert found.pricing == PRICING
    assert found.rules is not None
    assert found.rules.fields["duration"].choices == (5, 10)
    assert found.rules.defaults == {"duration": 5}
    assert found.rules.required == ("prompt",)
    assert all(authorization is None for _, _, authorization in vendor.requests)


async def test_a_name_is_percent_encoded() -> None:
    vendor = CatalogServer()
    async with running(vendor):
        await fetch_models(vendor, "a/b&include=x")
    assert vendor.requests[0][0] == "/v1/models?id=a%2Fb%26include%3Dx&include=pricing,capabilities"


async def test_a_model_that_is_not_there() -> None:
    vendor = CatalogServer()
    async with running(vendor):
        empty = (await fetch_models(vendor, MODEL))[MODEL]
        vendor.add("first/other")
        missing = (await fetch_models(vendor, MODEL))[MODEL]
    assert (empty.reached, empty.listed) == (True, True)
    assert (missing.reached, missing.listed) == (True, False)


async def test_answers_are_kept_with_their_etag(tmp_path: Path) -> None:
    vendor = CatalogServer()
    vendor.add(MODEL)
    async with running(vendor):
        first = (await fetch_models(vendor, MODEL, cache=tmp_path))[MODEL]
        second = (await fetch_models(vendor, MODEL, cache=tmp_path))[MODEL]
        assert [etag is None for _, etag, _ in vendor.requests] == [True, True, False, False]
        vendor.models[0]["pricing"] = {"kind": "variable"}
        third = (await fetch_models(vendor, MODEL, cache=tmp_path))[MODEL]
        vendor.status = 503
        late = (await fetch_models(vendor, MODEL, cache=tmp_path))[MODEL]
    gone = (await fetch_models(vendor, MODEL, cache=tmp_path))[MODEL]
    assert first == second
    assert third.pricing == {"kind": "variable"}
    for found in (late, gone):
        assert found.pricing == {"kind": "variable"}
        assert found.rules == first.rules
        assert "older" in found.notes[0]


def corrupt_all(folder: Path) -> None:
    for kept in folder.iterdir():
        kept.write_text("{")


async def test_damaged_cache_is_ignored(tmp_path: Path) -> None:
    vendor = CatalogServer()
    vendor.add(MODEL)
    async with running(vendor):
        await fetch_models(vendor, MODEL, cache=tmp_path)
        corrupt_all(tmp_path)
        assert (await fetch_models(vendor, MODEL, cache=tmp_path))[MODEL].rules is not None
        blocked = tmp_path / "file"
        blocked.write_text("")
        assert (await fetch_models(vendor, MODEL, cache=blocked))[MODEL].rules is not None


@pytest.mark.parametrize(("status", "body"), [(500, None), (404, None), (200, "<html>"), (200, "[" * 5000)])
async def test_an_answer_that_is_none_is_a_note(status: int, body: str | None) -> None:
    vendor = CatalogServer(status=status, body=body)
    async with running(vendor):
        found = (await fetch_models(vendor, MODEL))[MODEL]
    assert not found.reached
    assert found.notes
    assert found.rules is None


async def test_a_host_that_is_silent_is_waited_for_once() -> None:
    vendor = CatalogServer(never_responds=True)
    async with running(vendor), aiohttp.ClientSession() as session:
        catalogue = Catalog(session, vendor.base_url, timeout_s=0.2)
        found = await catalogue.fetch_models(f"model-{n}" for n in range(100))
    assert len(vendor.requests) <= 8
    assert len(found) == 100
    assert all(listing.notes and not listing.reached for listing in found.values())


@pytest.mark.parametrize("body", ["null", "[]", '{"data": 3}', '{"data": [3, {"id": 4}]}', '"x"'])
async def test_an_answer_of_another_shape_lists_nothing(body: str) -> None:
    vendor = CatalogServer(body=body)
    async with running(vendor):
        found = (await fetch_models(vendor, MODEL))[MODEL]
    assert found.pricing is None
    assert found.rules is None


@pytest.mark.parametrize("docs", [None, [], {"paths": 3}, {"paths": {"/x": {"post": 3}}}, "text"])
async def test_a_schema_that_is_none_is_a_note(docs: Any) -> None:
    vendor = CatalogServer(docs=docs)
    vendor.add(MODEL)
    async with running(vendor):
        found = (await fetch_models(vendor, MODEL))[MODEL]
    assert found.rules is None
    assert found.pricing == PRICING
    assert "request schema" in found.notes[0]


async def test_rows_are_checked_against_the_models_own_schema(tmp_path: Path) -> None:
    path = tmp_path / "batch.yaml"
    path.write_text(
        "- {model: t2v, prompt: x, duration: 8}\n"
        "- {model: t2v, params: {seed: -1, sed: 3, image_urls: [file]}}\n"
        "- {model: nope, prompt: x}\n"
    )
    vendor = CatalogServer()
    vendor.add(MODEL, ALIAS)
    async with running(vendor), aiohttp.ClientSession() as session:
        with pytest.raises(ManifestProblems) as caught:
            await check_with_catalogue(parse_manifest(path), Catalog(session, vendor.base_url))
    assert [(p.line, p.column, p.what) for p in caught.value.problems] == [
        (1, 37, "duration is 8"),
        (2, 3, "prompt is missing"),
        (2, 31, "seed is -1"),
        (2, 35, 'unknown field "sed"'),
        (2, 55, 'image_urls[0] is "file"'),
        (3, 11, 'model "nope"'),
    ]


async def test_a_quote_is_made_of_live_prices_and_says_what_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "batch.yaml"
    own = "- {model: t2v, prompt: x}\n- {model: t2v, prompt: x, duration: 10}\n"
    path.write_text(f"- [https://example.com/a.jpg, x]\n{own}")
    vendor = CatalogServer()
    vendor.add(MODEL, ALIAS)
    async with running(vendor), aiohttp.ClientSession() as session:
        catalogue = Catalog(session, vendor.base_url)
        quote, _ = await price_manifest(
            await check_with_catalogue(parse_manifest(path), catalogue), catalogue
        )
        assert quote.prices == (None, 2.5, 5.0)
        vendor.add(BUILT_IN_MODEL)
        quote, notes = await price_manifest(
            await check_with_catalogue(parse_manifest(path), catalogue), catalogue
        )
    assert quote.prices == (4.0, 2.5, 5.0)
    assert (quote.total_usd, quote.unknown_rows, notes) == (11.5, 0, ())


def test_references_and_branches_are_followed() -> None:
    one = {"properties": {"model": {"const": "a"}, "x": {"type": "string"}}, "required": ["x"]}
    two = {
        "properties": {"model": {"enum": [MODEL]}, "y": {"$ref": "#/components/schemas/Y"}},
        "required": ["y"],
    }
    prompt = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    base = {"properties": {"prompt": prompt}, "additionalProperties": False}
    docs = openapi_document()
    post = docs["paths"]["/v2/video/generations"]["post"]
    post["requestBody"]["content"]["application/json"]["schema"] = {"allOf": [base, {"oneOf": [one, two]}]}
    docs["components"] = {"schemas": {"Y": {"type": "number", "maximum": 2}}}
    rules = rules_from_openapi(docs, MODEL)
    assert rules is not None
    assert set(rules.fields) == {"model", "prompt", "y"}
    assert (rules.required, rules.rejects_unknown_fields) == (("y",), True)
    assert rules.fields["prompt"].check("prompt", None) is None
    assert rules.fields["y"].check("y", 3) is not None


def test_endless_references_end() -> None:
    docs = openapi_document(x={"$ref": "#/components/schemas/X"}, prompt={"allOf": [{"$ref": "#"}]})
    docs["components"] = {"schemas": {"X": {"$ref": "#/components/schemas/X"}}}
    assert rules_from_openapi(docs, MODEL) is not None


RETIRED = {"id": MODEL, "aliases": [ALIAS], "status": "deprecated", "shutdown_at": "2027-01-01T00:00:00.000Z"}


@pytest.mark.parametrize("name", [MODEL, ALIAS])
async def test_a_deprecated_model_is_priced_by_its_card(name: str) -> None:
    """The list has dropped it and it still serves: it is no typo, and its rules and price are known."""
    info = {"docsJson": "/docs-json?model=x"}
    card = {"id": MODEL, "aliases": [ALIAS], "info": info, "pricing": PRICING}
    vendor = CatalogServer(deprecations=[RETIRED], cards={MODEL: card})
    vendor.add("first/other")
    async with running(vendor):
        found = (await fetch_models(vendor, name))[name]
    assert found.listed
    assert found.pricing == PRICING
    assert found.rules is not None


async def test_a_deprecated_model_without_a_card_is_no_typo() -> None:
    vendor = CatalogServer(deprecations=[RETIRED])
    vendor.add("first/other")
    async with running(vendor):
        found = await fetch_models(vendor, MODEL, "other/typo")
    assert (found[MODEL].reached, found[MODEL].listed, found[MODEL].pricing) == (True, True, None)
    assert not found["other/typo"].listed


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (None, "the vendor has no model other/t2v"),
        ([{**RETIRED, "status": "withdrawn", "replaced_by": "n"}], "withdrawn the model other/t2v; use n"),
        ([RETIRED], ""),
        ([{**RETIRED, "shutdown_at": "2020-01-01"}], "meant to shut it down on 2020-01-01"),
        ([{**RETIRED, "status": "superseded"}], ""),
    ],
)
async def test_a_404_is_explained_by_the_feed_or_the_list(entries: Any, expected: str) -> None:
    vendor = CatalogServer(deprecations=entries)
    vendor.add("first/other")
    async with running(vendor), aiohttp.ClientSession() as session:
        message = await Catalog(session, vendor.base_url).explain_missing(MODEL)
    assert expected in message
    assert bool(message) == bool(expected)


async def test_a_404_is_not_explained_by_a_list_that_has_the_model_or_cannot_be_had() -> None:
    vendor = CatalogServer()
    async with running(vendor), aiohttp.ClientSession() as session:
        vendor.add(MODEL)
        assert await Catalog(session, vendor.base_url).explain_missing(MODEL) == ""
        vendor.status = 500
        assert await Catalog(session, vendor.base_url).explain_missing(MODEL) == ""


async def test_the_feed_is_kept_with_its_etag_and_asked_once_a_run(tmp_path: Path) -> None:
    vendor = CatalogServer(deprecations=[RETIRED])
    async with running(vendor), aiohttp.ClientSession() as session:
        catalogue = Catalog(session, vendor.base_url, tmp_path)
        found = await catalogue.fetch_deprecations()
        assert await catalogue.fetch_deprecations() == found
        assert [entry.model for entry in found] == [MODEL]
        assert len(vendor.requests) == 1
        vendor.status = 503
        assert await Catalog(session, vendor.base_url, tmp_path).fetch_deprecations() == found
        vendor.status, vendor.deprecations = 200, None
        assert await Catalog(session, vendor.base_url).fetch_deprecations() == ()
