"""Every row of the vendor's error table, and every place where a connection can be cut, on real sockets."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from tests.integration.vendor_double import PAGE, Create, Script, at_work, ended, film, until
from tests.integration.vendor_double.script import (
    cut_in_head,
    cut_inside,
    error_body,
    hang_up,
    json_reply,
    raw,
    reset,
    silence,
    trouble,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.vendor_double.script import Reply


def _words(status: int) -> bytes:
    return json.dumps(error_body(status, "words")).encode()


PROVEN: dict[str, Reply] = {
    "500": trouble(500, "Internal"),
    "503": trouble(503, "Unavailable"),
    "503 html": raw(503, PAGE),
    "500 empty": raw(500, b""),
    "503 retry after": trouble(503, "Unavailable", Retry_After="1"),
    "429": trouble(429, "Too many requests"),
    "429 seconds": trouble(429, "Too many requests", Retry_After="1"),
    "429 date": trouble(429, "Too many requests", Retry_After="Sat, 01 Aug 2026 00:00:00 GMT"),
    "429 html": raw(429, PAGE),
    "500 cut": cut_inside(500, _words(500)),
    "503 cut": cut_inside(503, _words(503)),
    "429 cut": cut_inside(429, _words(429)),
}
"""Answers that prove that nothing was accepted; the create is repeated, in the same run, without doubt."""

REFUSED: dict[str, Reply] = {
    "400": trouble(400, "the words"),
    "422": json_reply(422, {"detail": [{"loc": ["body", "prompt"], "msg": "the words", "type": "x"}]}),
    "404": trouble(404, "the words"),
    "413": raw(413, b"the words"),
    "400 number": json_reply(400, {"message": "the words", "statusCode": 400}),
    "400 list": json_reply(400, {"message": ["the words", "more"], "statusCode": "400"}),
    "400 html": raw(400, b"<html>the words</html>"),
}

UNKNOWN: dict[str, Reply] = {
    "502": raw(502, PAGE),
    "504": raw(504, b""),
    "502 json": trouble(502, "Bad Gateway"),
    "408": trouble(408, "Request Timeout"),
    "524": raw(524, PAGE),
    "reset": reset,
    "hang up": hang_up,
    "cut in head": cut_in_head,
    "cut before the body": cut_inside(200, b'{"id": "1", "status": "queued"}', 0.0),
    "cut inside the body": cut_inside(200, b'{"id": "1", "status": "queued"}'),
    "502 cut": cut_inside(502, PAGE),
    "garbage": raw(200, b"\xff\xfe"),
    "empty": raw(201, b""),
    "html": raw(200, PAGE),
    "no id": json_reply(200, {"status": "queued"}),
    "a list": json_reply(200, ["queued"]),
    "an empty id": json_reply(200, {"id": "", "status": "queued"}),
    "timeout": silence(4.0),
}
"""Answers after which a generation may or may not exist."""


async def test_what_proves_a_refusal_is_repeated_or_failed_and_never_doubted(tmp_path: Path) -> None:
    async with at_work(tmp_path, render_s=0.1) as (vendor, desk):
        for name, reply in PROVEN.items():
            vendor.scripts[f"proven {name}"] = Script(creates=[Create(accept=False, reply=reply)])
        for name, reply in REFUSED.items():
            vendor.scripts[f"refused {name}"] = Script(creates=[Create(accept=False, reply=reply)])
        vendor.log_down = True  # whoever needs it has doubts without reason
        desk.write(list(vendor.scripts))
        result = await desk.run("--reconcile-wait", "0")
        rows = {row["prompt"]: row for row in desk.rows()}
        wrong = {
            prompt: row["error_message"]
            for prompt, row in rows.items()
            if row["status"] != ("done" if prompt.startswith("proven") else "failed")
        }
        assert not wrong
        assert result.code == 1, result.said
        for prompt, row in rows.items():
            assert prompt.startswith("proven") or "the words" in row["error_message"]
            assert vendor.created[prompt] == (2 if prompt.startswith("proven") else 1)


async def test_what_proves_nothing_is_never_sent_again_blindly(tmp_path: Path) -> None:
    async with at_work(tmp_path, render_s=0.1) as (vendor, desk):
        for name, reply in UNKNOWN.items():
            for accept in (True, False):
                prompt = f"{name}, {'accepted' if accept else 'not accepted'}"
                vendor.scripts[prompt] = Script(creates=[Create(accept=accept, reply=reply)])
        desk.write(list(vendor.scripts))
        options = ("--request-timeout", "2", "--concurrency", "40")
        result = await desk.run("--reconcile-wait", "0.5", *options)
        assert result.code == 3, result.said
        accepted = {prompt for prompt in vendor.scripts if prompt.endswith(", accepted")}
        assert vendor.created == dict.fromkeys(vendor.scripts, 1)
        assert {row["prompt"] for row in desk.rows() if row["status"] == "done"} == accepted
        assert desk.states() == {"done": len(accepted), "in_doubt": len(accepted)}
        result = await desk.run("--reconcile-after", "1", *options)
        assert result.code == 0, result.said
        assert vendor.paid() == dict.fromkeys(vendor.scripts, 1)
        for row in desk.rows():
            assert desk.video(row).read_bytes() == film(row["prompt"])


async def test_an_api_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    async with at_work(tmp_path, goes_away=True) as (vendor, desk):
        await vendor.api.close()
        desk.write(["one", "two"])
        process = await desk.start()
        await until(lambda: desk.log().count('"create_not_accepted"') >= 3)
        await vendor.api.open()
        result = await ended(process)
        assert result.code == 0, result.said
        assert vendor.paid() == {"one": 1, "two": 1}


async def test_one_row_that_is_always_in_trouble_costs_one_row(tmp_path: Path) -> None:
    """A create that is always answered with 500 ends in words; it holds up nobody."""
    async with at_work(tmp_path, render_s=0.1) as (vendor, desk):
        vendor.script("bad", creates=[Create(accept=False, reply=trouble(500, "boom"))] * 10_000)
        desk.write(["bad", *[f"good {number}" for number in range(12)]])
        result = await desk.run("--concurrency", "4", within_s=90)
        assert Counter(desk.states())["done"] == 12
        assert result.code in (1, 3), result.said
        assert vendor.created["bad"] < 100
