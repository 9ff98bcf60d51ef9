"""A whole batch through the real command, against a vendor of other making: what a good night shows."""

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING

import pytest

from tests.integration.vendor_double import (
    GATEWAY_PAGE,
    JobScript,
    ScriptedCreate,
    make_video,
    vendor_and_workspace,
    wait_for_exit,
    wait_until,
)
from tests.integration.vendor_double.script import (
    close_connection,
    cut_in_body,
    cut_in_head,
    error_reply,
    json_reply,
    raw,
    reset_connection,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.vendor_double import Exchange
    from tests.integration.vendor_double.script import Reply

HOSTILE: list[str | int] = [
    "../../x:a/b?c=%2e#d",
    "-V1StGXR8_Z5",
    812934,
    "a b&c=d",
    "\u00fc/../\u00e9%00",
    "..",
    "x" * 300,
]


async def test_six_in_flight_three_downloads_and_nothing_the_second_time(tmp_path: Path) -> None:
    prompts = [f"job {number}" for number in range(24)]
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        for number, prompt in enumerate(prompts):
            script = vendor.script(prompt, render_s=inf, accepted_status=200 + number % 2)
            script.id = HOSTILE[number] if number < len(HOSTILE) else None
            script.id_name = "generation_id" if number % 3 == 0 else "id"
        vendor.cdn.padding, vendor.cdn.bytes_per_s = 60_000, 2_000
        desk.write(prompts)
        before = desk.files()

        process = await desk.start("--concurrency", "6", "--downloads", "3")
        await wait_until(lambda: vendor.peak_in_flight == 6)
        for script in vendor.scripts.values():
            script.render_s = 0.1
        for made in vendor.generations:
            made.ends_at = 0.0
        await wait_until(lambda: vendor.cdn.peak_requests == 3)
        vendor.cdn.bytes_per_s = 600_000
        ended = await wait_for_exit(process)

        assert ended.code == 0, ended.output
        assert vendor.create_counts == dict.fromkeys(prompts, 1)
        assert vendor.peak_in_flight == 6
        assert vendor.cdn.peak_requests == 3
        assert not vendor.cdn.requests_with_key
        rows = desk.rows()
        assert [row["prompt"] for row in rows] == prompts
        assert {row["status"] for row in rows} == {"done"}
        for row in rows:
            assert desk.video(row).read_bytes() == make_video(row["prompt"], vendor.cdn.padding)
            assert desk.video(row).parent == desk.output / "videos"
        assert {name.split("/")[0] for name in desk.files() - before} == {"output"}

        asked = len(vendor.requests), len(vendor.cdn.requests), vendor.api.connections
        again = await desk.run("--concurrency", "6", "--downloads", "3")
        assert again.code == 0, again.output
        assert (len(vendor.requests), len(vendor.cdn.requests), vendor.api.connections) == asked


async def test_a_slow_download_keeps_no_slot_from_being_refilled(tmp_path: Path) -> None:
    prompts = [f"job {number}" for number in range(6)]
    async with vendor_and_workspace(tmp_path, render_s=0.2) as (vendor, desk):

        def slow(prompt: str) -> Reply:
            """Not a byte before the sixth create: whoever waits for the download with it gives it up."""

            async def reply(exchange: Exchange) -> None:
                await wait_until(lambda: len(vendor.generations) == 6)
                await exchange.send(200, make_video(prompt), {"Content-Type": "video/mp4"})

            return reply

        for prompt in prompts:
            vendor.script(prompt, cdn=[slow(prompt)])
        desk.write(prompts)
        ended = await desk.run("--concurrency", "2", "--downloads", "1")
        assert ended.code == 0, ended.output
        assert len(vendor.cdn.requests) == 6


async def test_every_status_and_every_nonsense_costs_only_time(tmp_path: Path) -> None:
    """One job of its own for each thing that a status call may answer, and one for all of them."""
    video = {"url": "https://cdn.example.com/sample.mp4"}
    error = {"name": "Sample", "message": "a sample"}
    nonsense = {
        "unknown": json_reply(200, {"status": "rendering_v2", "video": video, "error": error}),
        "no status": json_reply(200, {"video": None}),
        "null": json_reply(200, None),
        "list": json_reply(200, [1, 2]),
        "status of another kind": json_reply(200, {"status": 7, "video": []}),
        "garbage": raw(200, b'{"id": "\xff\xfe', "application/json"),
        "html": raw(200, GATEWAY_PAGE),
        "empty": raw(200, b""),
        "nested": raw(200, b"[" * 100_000, "application/json"),
        "huge": raw(200, b" " * 6_000_000 + b"{}", "application/json"),
        "500": error_reply(500, "Internal"),
        "502": raw(502, GATEWAY_PAGE),
        "503": error_reply(503, "Unavailable", Retry_After="0"),
        "504": raw(504, b""),
        "404": error_reply(404, "Generation not found"),
        "403": error_reply(403, "Forbidden"),
        "400": error_reply(400, "Bad request"),
        "429": error_reply(429, "Slow down"),
        "redirect": json_reply(302, {}, Location="https://example.com/"),
        "reset": reset_connection,
        "hang up": close_connection,
        "cut in head": cut_in_head,
        "cut inside": cut_in_body(
            200, b'{"status": "completed", "video": {"url": "http://127.0.0.1/x"}}', 0.9
        ),
        "queued with a video": json_reply(200, {"status": "queued", "video": video, "error": error}),
        "capitals": json_reply(200, {"status": "Generating", "video": None}),
    }
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        for name, reply in nonsense.items():
            vendor.scripts[name] = JobScript(status_replies=[reply])
        vendor.scripts["all of them"] = JobScript(status_replies=list(nonsense.values()))
        desk.write([*nonsense, "all of them"])
        ended = await desk.run("--concurrency", "40")
        assert ended.code == 0, ended.output
        assert {row["status"] for row in desk.rows()} == {"done"}
        assert set(vendor.create_counts.values()) == {1}
        assert ended.err.count("rendering_v2") == 1


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v2", "/v2/"])
async def test_base_urls_as_samples_spell_them(tmp_path: Path, tail: str) -> None:
    names = {"": "AIMLAPI_API_KEY", "/": "AIML_API_KEY", "/v1": "AIMLAPI_KEY"}
    async with vendor_and_workspace(tmp_path, render_s=0.05) as (vendor, desk):
        desk.key_name = names.get(tail, "AIMLAPI_API_KEY")
        desk.base_url = ""
        where = "AIML_API_BASE" if tail == "/v2" else "AIMLAPI_API_BASE"
        desk.environment = {where: vendor.api.url + tail}
        desk.write(["one"])
        ended = await desk.run("--json")
        assert ended.code == 0, ended.output
        told = json.loads(ended.out)
        assert told["exit_code"] == 0
        assert told["stop"] is None
        assert desk.states() == {"done": 1}


async def test_bad_rows_cost_only_themselves(tmp_path: Path) -> None:
    detail = {"detail": [{"loc": ["body", "image_url"], "msg": "image too dark", "type": "value_error"}]}
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        vendor.script(
            "object", final_answer={"status": "error", "error": {"name": "E1", "message": "words one"}}
        )
        vendor.script("detail", final_answer={"status": "failed", "error": detail})
        vendor.script("text", final_answer={"status": "cancelled", "error": "words three", "video": {}})
        vendor.script("nothing", final_answer={"status": "error", "error": None})
        vendor.script("no url", final_answer={"status": "completed", "video": {}, "note": "kept body"})
        vendor.script("not a film", video=b"\x00\x00\x00\x18ftypmp42" + b"\xaa" * 5000)
        vendor.script("a page", video=b"<html>" + b"\xaa" * 5000)
        refused = ["400", "422", "404"]
        for status in refused:
            vendor.scripts[status] = JobScript(creates=[_rejection(int(status))])
        good = [f"good {number}" for number in range(4)]
        desk.write([*vendor.scripts, *good])
        ended = await desk.run("--concurrency", "8", "--generation-retries", "0", "--json")
        assert ended.code == 3, ended.output
        rows = {row["prompt"]: row for row in desk.rows()}
        assert {rows[prompt]["status"] for prompt in good} == {"done"}
        # A web page in place of a paid video is not the video: the next run asks for it again.
        assert rows.pop("a page")["status"] == "ready"
        assert {row["status"] for prompt, row in rows.items() if prompt not in good} == {"failed"}
        said = {prompt: row["error_message"] for prompt, row in rows.items()}
        assert "words one" in said["object"]
        assert "image too dark" in said["detail"]
        assert "words three" in said["text"]
        assert "kept body" in said["no url"]
        for status in refused:
            assert f"the words of {status}" in said[status]
        assert vendor.api.url in said["404"]
        assert {prompt for prompt, count in vendor.create_counts.items() if count != 1} == set()
        told = json.loads(ended.out)
        assert told["exit_code"] == 3


def _rejection(status: int) -> ScriptedCreate:
    return ScriptedCreate(accept=False, reply=error_reply(status, f"the words of {status}"))


async def test_without_a_key_nothing_is_touched(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        desk.write(["one"])
        before = desk.files()
        desk.key = ""
        ended = await desk.run()
        assert ended.code == 2, ended.output
        for name in ("AIMLAPI_API_KEY", "AIML_API_KEY", "AIMLAPI_KEY", "--sandbox"):
            assert name in ended.err
        assert desk.files() == before
        assert not vendor.requests
