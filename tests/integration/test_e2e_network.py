"""What leaves the machine and where to: the key, signed URLs, redirects, ids, unusual ways to answer."""

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING

from tests.integration.vendor_double import (
    JobScript,
    ScriptedCreate,
    make_video,
    vendor_and_workspace,
    wait_for_exit,
    wait_until,
)
from tests.integration.vendor_double.script import raw

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.vendor_double import Exchange

SIGNATURE = "X-Amz-Credential=AKIA%2F20260801%2Fus%2Fs3&sig=a%2Bb+c%3D%3D&e=%7Etilde&u=%C3%A9&n&path=/x//y"


async def test_signed_urls_are_asked_for_byte_by_byte(tmp_path: Path) -> None:
    """Some CDNs sign the URL's text: another spelling of the same URL is another URL."""
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        vendor.cdn.signature = SIGNATURE
        desk.write(["one", "two"])
        result = await desk.run()
        assert result.code == 0, result.output
        targets = {request.target.partition("?")[2] for request in vendor.cdn.requests}
        assert targets == {SIGNATURE}


async def test_signatures_are_in_no_log_page_or_table(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        vendor.cdn.signature = "X-Amz-Signature=s3cr3tsignature"
        vendor.script("failing", cdn=[raw(403, b"no"), raw(500, b"no"), raw(200, b"")])
        desk.write(["one", "failing"])
        result = await desk.run("-vv")
        assert result.code == 0, result.output
        assert "s3cr3tsignature" not in result.output
        for name in ("run.log", "results.csv", "report.html"):
            assert b"s3cr3tsignature" not in (desk.output / name).read_bytes()


async def test_the_key_follows_no_redirect(tmp_path: Path) -> None:
    """A CDN may lead to another of its places; the API may not lead anywhere."""
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):

        async def to_the_api(exchange: Exchange) -> None:
            await exchange.send(302, b"", {"Location": f"{vendor.api.url}/v2/billing"})

        async def to_the_cdn(exchange: Exchange) -> None:
            await exchange.send(307, b"", {"Location": f"{vendor.cdn.server.url}/elsewhere"})

        vendor.script("by the cdn", cdn=[to_the_api])
        vendor.script("by a look", status_replies=[to_the_cdn])
        desk.write(["by the cdn", "by a look", "good"])
        result = await desk.run()
        assert result.code == 0, result.output
        assert not vendor.cdn.requests_with_key
        asked = [request for request in vendor.requests if request.path == "/v2/billing"]
        assert any("authorization" not in request.headers for request in asked)

        vendor.script("create", creates=[ScriptedCreate(accept=False, reply=to_the_cdn)] * 3)
        desk.write(["by the cdn", "by a look", "good", "create"])
        result = await desk.run()
        assert result.code == 3, result.output
        assert not any(request.path == "/elsewhere" for request in vendor.cdn.requests)
        assert desk.states() == {"done": 3, "pending": 1}


async def test_answers_of_unusual_make(tmp_path: Path) -> None:
    """Chunks, no length, a create that is finished or failed at once, costs in headers."""
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):

        async def chunked(exchange: Exchange) -> None:
            exchange.send_head(200, {"Transfer-Encoding": "chunked", "Content-Type": "application/json"})
            exchange.writer.write(b'8\r\n{"status\r\n')
            await exchange.writer.drain()
            exchange.close()

        async def whole(exchange: Exchange) -> None:
            made = vendor.generations[-1]
            url = vendor.cdn.issue_url(made)
            answer = {"id": made.id, "status": "completed", "video": {"url": url}}
            await exchange.send_json(201, answer, {"x-aimlapi-usd-spent": "1.20"})

        async def failed(exchange: Exchange) -> None:
            error = {"name": "Refused", "message": "not safe for work: policy"}
            await exchange.send_json(200, {"id": "f-1", "status": "error", "error": error})

        vendor.script("chunked look", status_replies=[chunked])
        vendor.script("chunked create", creates=[ScriptedCreate(accept=True, reply=chunked)])
        vendor.script("at once", creates=[ScriptedCreate(accept=True, reply=whole)])
        vendor.script("failed at once", creates=[ScriptedCreate(accept=False, reply=failed)])
        vendor.script("plus", id="a+b%2Bc d")
        vendor.script("number", id=12345678901234567890123)
        vendor.script("loud", running_statuses=("QUEUED", "Generating"), id_name="generation_id")
        desk.write(list(vendor.scripts))
        result = await desk.run("--concurrency", "1", "--generation-retries", "0")
        assert result.code == 1, result.output
        rows = {row["prompt"]: row for row in desk.rows()}
        assert {prompt for prompt, row in rows.items() if row["status"] != "done"} == {"failed at once"}
        assert "not safe for work" in rows["failed at once"]["error_message"]
        assert float(rows["at once"]["usd_spent"]) == 1.2
        assert float(rows["plus"]["credits_used"]) == 2400000
        assert set(vendor.create_counts.values()) == {1}
        assert rows["plus"]["generation_id"] == "a+b%2Bc d"


async def test_a_key_that_is_revoked_in_mid_run(tmp_path: Path) -> None:
    prompts = [f"job {number}" for number in range(6)]
    async with vendor_and_workspace(tmp_path, render_s=1.0) as (vendor, desk):
        desk.write(prompts)
        process = await desk.start("--concurrency", "3")
        await wait_until(lambda: len(vendor.generations) >= 3)
        right, vendor.key = vendor.key, "another"
        result = await wait_for_exit(process)
        assert result.code == 3, result.output
        assert "AIMLAPI_API_KEY" in result.output
        assert "failed" not in desk.states()
        vendor.key = right
        result = await desk.run()
        assert result.code == 0, result.output
        assert vendor.paid_counts() == dict.fromkeys(prompts, 1)


async def test_a_catalogue_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        vendor.prices_delay_s = 50.0
        desk.write(["one"])
        process = await desk.start()
        await wait_until(lambda: bool(vendor.generations))
        result = await wait_for_exit(process)
        assert result.code == 0, result.output


async def test_cuts_of_a_download_cost_the_missing_bytes(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        vendor.cdn.padding = 400_000
        whole = make_video("cut", vendor.cdn.padding)

        async def cut(exchange: Exchange) -> None:
            headers = {"Content-Type": "video/mp4", "ETag": vendor.cdn.etag(whole)}
            await exchange.send(200, whole[:300_000], headers, content_length=len(whole))
            exchange.close()

        vendor.scripts["cut"] = JobScript(cdn=[cut])
        desk.write(["cut"])
        result = await desk.run()
        assert result.code == 0, result.output
        assert [request.headers.get("range") for request in vendor.cdn.requests] == [None, "bytes=300000-"]
        assert desk.video(desk.rows()[0]).read_bytes() == whole


async def test_the_ledger_can_be_asked_while_a_run_goes_on(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=inf) as (vendor, desk):
        vendor.script("done", render_s=0.0)
        desk.write(["done", "running"])
        process = await desk.start()
        await wait_until(lambda: len(vendor.cdn.requests) >= 1)
        told = await desk.command("status", "batch.json", "--json")
        assert told.code == 0, told.output
        assert json.loads(told.out)
        for made in vendor.generations:
            made.ends_at = 0.0
        result = await wait_for_exit(process)
        assert result.code == 0, result.output


async def test_a_prompt_as_people_write_them(tmp_path: Path) -> None:
    prompts = [
        "=1+1",
        "ünï\u202ecode \U0001f600",
        'quotes " and \\ and\nlines',
        "<script>alert(1)</script>",
        "x" * 9000,
    ]
    async with vendor_and_workspace(tmp_path, render_s=0.05) as (vendor, desk):
        desk.write(prompts)
        result = await desk.run()
        assert result.code == 0, result.output
        assert [
            made.body["prompt"]
            for made in sorted(vendor.generations, key=lambda made: prompts.index(made.prompt))
        ] == prompts
        page = (desk.output / "report.html").read_text(encoding="utf-8")
        assert "<script>alert(1)</script>" not in page
        assert all(made.client_id for made in vendor.generations)
