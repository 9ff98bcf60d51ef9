"""What is sent, and what may be spent: every request by the vendor's own schema, a budget over kills."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
from typing import TYPE_CHECKING, Any, Final

from tests.integration.vendor_double import (
    GATEWAY_PAGE,
    ScriptedCreate,
    VendorDouble,
    vendor_and_workspace,
    wait_until,
)
from tests.integration.vendor_double.script import error_reply, raw, reset_connection
from tests.integration.vendor_double.vendor import GENERATIONS_PATH

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.vendor_double import Request

MODEL: Final = "google/veo-3.1-i2v-fast"
FIELDS: Final[dict[str, tuple[type, tuple[Any, ...]]]] = {
    "model": (str, (MODEL,)),
    "prompt": (str, ()),
    "image_url": (str, ()),
    "aspect_ratio": (str, ("16:9", "9:16")),
    "duration": (int, (4, 6, 8)),
    "resolution": (str, ("720p", "1080p")),
    "generate_audio": (bool, ()),
    "provider": (str, ()),
}
"""The vendor's request schema of this model: type, and the values that are allowed (none: any)."""
URL = "https://example.com/a%20b.jpg?x=1&y=%C3%A9"
YAML = f"""
defaults: {{duration: 4}}
vars: {{who: the cat}}
jobs:
  - [{URL}, "a bare pair"]
  - {{image_url: {URL}, prompt: "${{who}} \\u2728 \\"says\\"\\nhi", aspect_ratio: "9:16", duration: 6,
     resolution: 720p, generate_audio: false, provider: FAL}}
  - {{id: "-/../:*? odd", image_url: {URL}, prompt: twice}}
  - {{image_url: {URL}, prompt: twice}}
matrix: {{images: [{URL}, https://example.com/2.jpg], prompts: [a, b]}}
"""
CSV = (
    f"image_url,prompt,duration,generate_audio,aspect_ratio\n{URL},from a table,8,true,16:9\n{URL},bare,,,\n"
)


def request_errors(request: Request) -> list[str]:
    """Say what the vendor's documentation has against a request."""
    found = [] if re.fullmatch(r"Bearer \S+", request.headers.get("authorization", "")) else ["no key"]
    match (request.method, request.path):
        case ("POST", "/v2/video/generations"):
            return found + create_errors(request)
        case ("GET", "/v2/video/generations"):
            return found + ([] if set(request.query) == {"generation_id"} else ["query"])
        case ("GET", "/v2/logs"):
            query = request.query
            known = set(query) <= {"period", "start", "end", "limit", "offset"}
            one = ("period" in query) != ("start" in query or "end" in query)
            return found + ([] if known and one and 1 <= int(query["limit"]) <= 100 else ["query"])
        case ("GET", "/v1/models"):
            return [] if set(request.query) <= {"id", "include"} else ["query"]
        case ("GET", "/v2/billing" | "/v1/key"):
            return found + (["query"] if request.query else [])
        case ("GET", "/v2/billing/transactions"):
            return found + ([] if set(request.query) <= {"limit", "cursor"} else ["query"])
        case ("GET", "/v1/models/deprecations"):
            return [] if set(request.query) <= {"status", "since"} else ["query"]
    return ["no such call"]


def create_errors(request: Request) -> list[str]:
    body = json.loads(request.body)
    found = [f"{name} is missing" for name in ("model", "prompt", "image_url") if name not in body]
    for name, value in body.items():
        kind, allowed = FIELDS.get(name, (type(None), ()))
        if type(value) is not kind or (allowed and value not in allowed):
            found.append(f"{name}: {value!r}")
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", request.headers.get("x-client-request-id", "")):
        found.append("the correlation id would be dropped")
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        found.append("content type")
    return found


async def test_every_request_is_one_that_the_vendor_documents(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.2) as (vendor, desk):
        (tmp_path / "a.yaml").write_text(YAML)
        (tmp_path / "b.jsonl").write_text(f'["{URL}", "a pair"]\n{{"image_url": "{URL}", "prompt": "x"}}\n')
        (tmp_path / "c.csv").write_text(CSV)
        vendor.script("twice", creates=[ScriptedCreate(accept=True, reply=reset_connection)])
        vendor.script(
            "a",
            creates=[ScriptedCreate(accept=False, reply=raw(503, GATEWAY_PAGE))],
            status_replies=[error_reply(500, "no")],
        )
        vendor.script("a pair", creates=[ScriptedCreate(accept=True, reply=raw(502, GATEWAY_PAGE))])
        vendor.script(
            "bare", creates=[ScriptedCreate(accept=False, reply=error_reply(429, "slow", retry_after="1"))]
        )
        for manifest in ("a.yaml", "b.jsonl", "c.csv"):
            result = await desk.run("--reconcile-after", "5", manifest=manifest)
            assert result.code == 0, result.output
        wrong = [(request.target, found) for request in vendor.requests if (found := request_errors(request))]
        assert wrong == []
        asked = {request.path for request in vendor.requests}
        assert asked >= {GENERATIONS_PATH, "/v1/models", "/v2/logs", "/v2/billing", "/v1/key"}
        assert len(vendor.generations) == 8 + 2 + 2


def script_money_faults(vendor: VendorDouble, prompts: list[str], rng: random.Random) -> None:
    """Give each job one of the ways in which money becomes unclear, or none."""
    for prompt in prompts:
        match rng.randrange(6):
            case 0:
                vendor.script(prompt, creates=[ScriptedCreate(accept=True, reply=raw(502, GATEWAY_PAGE))])
            case 1:
                vendor.script(prompt, creates=[ScriptedCreate(accept=True, reply=reset_connection)])
            case 2:
                vendor.script(prompt, creates=[ScriptedCreate(accept=False, reply=raw(504, b""))])
            case 3:
                vendor.script(
                    prompt, final_answer={"status": "error", "error": {"name": "x", "message": "y"}}
                )


async def test_ten_dollars_are_never_more_over_kills_and_restarts(tmp_path: Path) -> None:
    prompts = [f"job {number}" for number in range(40)]
    options = ("--max-cost", "10", "--assume-price", "1.2", "--concurrency", "20", "--reconcile-after", "4")
    async with vendor_and_workspace(tmp_path, render_s=0.5) as (vendor, desk):
        script_money_faults(vendor, prompts, random.Random(10))
        desk.write(prompts)
        for creates in (1, 4, 6):
            process = await desk.start(*options)
            ended = asyncio.create_task(process.communicate())
            await wait_until(lambda: ended.done() or sum(vendor.create_counts.values()) >= creates)  # noqa: B023
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await ended
            assert 1.2 * sum(vendor.paid_counts().values()) <= 10
        for _ in range(5):
            result = await desk.run(*options)
            assert result.code == 3, result.output
            spent_usd = 1.2 * sum(vendor.paid_counts().values())
            if spent_usd > 10 - 1.2:
                break  # what was in doubt while a run stopped is the next one's to spend
        assert 10 - 1.2 < spent_usd <= 10
        assert set(vendor.paid_counts().values()) == {1}
