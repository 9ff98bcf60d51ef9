"""Every row of the vendor's error table, and every place where a connection can be cut, on real sockets."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from tests.integration.vendor_double import (
    GATEWAY_PAGE,
    JobScript,
    ScriptedCreate,
    make_video,
    vendor_and_workspace,
)
from tests.integration.vendor_double.script import (
    close_connection,
    cut_in_body,
    cut_in_head,
    error_body,
    error_reply,
    hang_for,
    json_reply,
    raw,
    reset_connection,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.vendor_double.http_server import Exchange
    from tests.integration.vendor_double.script import Reply


def _error_body(status: int) -> bytes:
    return json.dumps(error_body(status, "words")).encode()


TRANSIENT_REJECTIONS: dict[str, Reply] = {
    "500": error_reply(500, "Internal"),
    "503": error_reply(503, "Unavailable"),
    "503 html": raw(503, GATEWAY_PAGE),
    "500 empty": raw(500, b""),
    "503 retry after": error_reply(503, "Unavailable", Retry_After="1"),
    "429": error_reply(429, "Too many requests"),
    "429 seconds": error_reply(429, "Too many requests", Retry_After="1"),
    "429 date": error_reply(429, "Too many requests", Retry_After="Sat, 01 Aug 2026 00:00:00 GMT"),
    "429 html": raw(429, GATEWAY_PAGE),
    "500 cut": cut_in_body(500, _error_body(500)),
    "503 cut": cut_in_body(503, _error_body(503)),
    "405 html": raw(405, GATEWAY_PAGE),
    "415": error_reply(415, "Unsupported"),
    "429 cut": cut_in_body(429, _error_body(429)),
}
"""Answers that prove that nothing was accepted; the create is repeated, in the same run, without doubt."""

FINAL_REJECTIONS: dict[str, Reply] = {
    "400": error_reply(400, "the words"),
    "422": json_reply(422, {"detail": [{"loc": ["body", "prompt"], "msg": "the words", "type": "x"}]}),
    "404": error_reply(404, "the words"),
    "413": raw(413, b"the words"),
    "400 number": json_reply(400, {"message": "the words", "statusCode": 400}),
    "400 list": json_reply(400, {"message": ["the words", "more"], "statusCode": "400"}),
    "400 html": raw(400, b"<html>the words</html>"),
}

AMBIGUOUS_REPLIES: dict[str, Reply] = {
    "502": raw(502, GATEWAY_PAGE),
    "504": raw(504, b""),
    "502 json": error_reply(502, "Bad Gateway"),
    "408": error_reply(408, "Request Timeout"),
    "524": raw(524, GATEWAY_PAGE),
    "reset": reset_connection,
    "hang up": close_connection,
    "cut in head": cut_in_head,
    "cut before the body": cut_in_body(200, b'{"id": "1", "status": "queued"}', 0.0),
    "cut inside the body": cut_in_body(200, b'{"id": "1", "status": "queued"}'),
    "502 cut": cut_in_body(502, GATEWAY_PAGE),
    "garbage": raw(200, b"\xff\xfe"),
    "empty": raw(201, b""),
    "html": raw(200, GATEWAY_PAGE),
    "no id": json_reply(200, {"status": "queued"}),
    "a list": json_reply(200, ["queued"]),
    "an empty id": json_reply(200, {"id": "", "status": "queued"}),
    "timeout": hang_for(4.0),
}
"""Answers after which a generation may or may not exist."""


async def test_proven_rejection_is_retried_or_failed_and_never_in_doubt(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        for name, reply in TRANSIENT_REJECTIONS.items():
            vendor.scripts[f"proven {name}"] = JobScript(creates=[ScriptedCreate(accept=False, reply=reply)])
        for name, reply in FINAL_REJECTIONS.items():
            vendor.scripts[f"refused {name}"] = JobScript(creates=[ScriptedCreate(accept=False, reply=reply)])
        vendor.log_down = 503  # whoever needs it has doubts without reason
        desk.write(list(vendor.scripts))
        result = await desk.run("--reconcile-wait", "0")
        rows = {row["prompt"]: row for row in desk.rows()}
        wrong = {
            prompt: row["error_message"]
            for prompt, row in rows.items()
            if row["status"] != ("done" if prompt.startswith("proven") else "failed")
        }
        assert not wrong
        assert result.code == 1, result.output
        for prompt, row in rows.items():
            assert prompt.startswith("proven") or "the words" in row["error_message"]
            assert vendor.create_counts[prompt] == (2 if prompt.startswith("proven") else 1)


async def test_what_proves_nothing_is_never_sent_again_blindly(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        for name, reply in AMBIGUOUS_REPLIES.items():
            for accept in (True, False):
                prompt = f"{name}, {'accepted' if accept else 'not accepted'}"
                vendor.scripts[prompt] = JobScript(creates=[ScriptedCreate(accept=accept, reply=reply)])
        desk.write(list(vendor.scripts))
        options = ("--request-timeout", "2", "--concurrency", "40")
        result = await desk.run("--reconcile-wait", "0.5", *options)
        assert result.code == 3, result.output
        accepted = {prompt for prompt in vendor.scripts if prompt.endswith(", accepted")}
        assert vendor.create_counts == dict.fromkeys(vendor.scripts, 1)
        assert {row["prompt"] for row in desk.rows() if row["status"] == "done"} == accepted
        assert desk.states() == {"done": len(accepted), "in_doubt": len(accepted)}
        result = await desk.run("--reconcile-after", "1", *options)
        assert result.code == 0, result.output
        assert vendor.paid_counts() == dict.fromkeys(vendor.scripts, 1)
        for row in desk.rows():
            assert desk.video(row).read_bytes() == make_video(row["prompt"])


async def test_an_api_that_is_not_there_is_reported_before_a_row_is_touched(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, fixed_ports=True) as (vendor, desk):
        await vendor.api.close()
        desk.write(["one", "two"])
        result = await desk.run()
        assert result.code == 3, result.output
        assert "cannot reach 127.0.0.1: the connection was refused" in result.output
        assert desk.states() == {"pending": 2}
        await vendor.api.open()
        result = await desk.run()
        assert result.code == 0, result.output
        assert vendor.paid_counts() == {"one": 1, "two": 1}


async def test_one_row_that_always_errors_fails_alone(tmp_path: Path) -> None:
    """A create that is always answered with 500 ends in words; it holds up nobody."""
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        vendor.script("bad", creates=[ScriptedCreate(accept=False, reply=error_reply(500, "boom"))] * 10_000)
        desk.write(["bad", *[f"good {number}" for number in range(12)]])
        result = await desk.run("--concurrency", "4")
        assert Counter(desk.states())["done"] == 12
        assert result.code in (1, 3), result.output
        assert vendor.create_counts["bad"] < 100


async def test_a_generation_that_the_vendor_never_knew_keeps_no_slot(tmp_path: Path) -> None:
    async def ghost(exchange: Exchange) -> None:
        await exchange.send_json(200, {"id": "ghost", "status": "queued"})

    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        vendor.script("ghost", creates=[ScriptedCreate(accept=False, reply=ghost)])
        desk.write(["ghost", "one", "two"])
        result = await desk.run("--concurrency", "1")
        assert result.code == 1, result.output
        assert desk.states() == {"failed": 1, "done": 2}
        assert "Edit these rows" not in result.output
