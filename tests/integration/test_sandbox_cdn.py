"""The sandbox's CDN: ranges, tags, expiry, and no key."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.sandbox import Sandbox, clock
from tests.integration.raw_client import (
    AUTH_HEADERS,
    create,
    get_status,
    instant_render_options,
    send_request,
    video_url,
)


async def test_a_file_comes_whole_with_its_tag_and_type() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        url = await video_url(sandbox)
        answer = await send_request(url)
        assert (answer.ending, answer.status) == ("whole", 200)
        assert answer.headers["content-type"] == "video/mp4"
        assert answer.headers["accept-ranges"] == "bytes"
        head = await send_request(url, "HEAD")
        assert head.body == b""
        for name in ("content-length", "etag"):
            assert head.headers[name] == answer.headers[name]
        assert (await send_request(url, headers={"If-None-Match": answer.headers["etag"]})).status == 304


@pytest.mark.parametrize(
    ("wanted", "first", "last"), [("10-19", 10, 19), ("100-", 100, -1), ("-7", -7, -1), ("0-99999999", 0, -1)]
)
async def test_a_range_is_served_as_requested(wanted: str, first: int, last: int) -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        url = await video_url(sandbox)
        whole = (await send_request(url)).body
        part = await send_request(url, headers={"Range": f"bytes={wanted}"})
        begin, end = first % len(whole), last % len(whole)
        assert (part.status, part.body) == (206, whole[begin : end + 1])
        assert part.headers["content-range"] == f"bytes {begin}-{end}/{len(whole)}"


@pytest.mark.parametrize("wanted", ["bytes=999999999-", "bytes=x", "bytes=0-1,4-5", "lines=1-2"])
async def test_an_odd_range_is_refused_or_ignored(wanted: str) -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        answer = await send_request(await video_url(sandbox), headers={"Range": wanted})
        assert answer.ending == "whole"
        assert answer.status == (416 if "999999999" in wanted else 200)


async def test_if_range_gives_the_part_of_this_file_or_the_whole_of_another() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        url = await video_url(sandbox)
        whole = await send_request(url)
        same = await send_request(url, headers={"Range": "bytes=5-", "If-Range": whole.headers["etag"]})
        other = await send_request(url, headers={"Range": "bytes=5-", "If-Range": '"another"'})
        assert (same.status, other.status, other.body) == (206, 200, whole.body)


async def test_a_key_is_refused_and_remembered() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        url = await video_url(sandbox)
        assert (await send_request(url, headers=AUTH_HEADERS)).status == 400
        assert [url.endswith(path) for path in sandbox.state.leaked_keys] == [True]


async def test_a_signed_url_expires_and_the_status_hands_out_a_fresh_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Sandbox(instant_render_options(url_lifetime_s=600.0)) as sandbox:
        made = (await create(sandbox)).json()["id"]
        url = (await get_status(sandbox, made)).json()["video"]["url"]
        assert (await send_request(url, "HEAD")).status == 200
        true_now = clock.now
        monkeypatch.setattr(clock, "now", lambda: true_now() + 601.0)
        assert (await send_request(url, "HEAD")).status == 403
        fresh = (await get_status(sandbox, made)).json()["video"]["url"]
        assert (await send_request(fresh, "HEAD")).status == 200
        assert (await send_request(fresh.replace("Until=", "Until=9"), "HEAD")).status == 403
        assert (await send_request(fresh.partition("?")[0], "HEAD")).status == 403


async def test_what_was_not_made_is_not_there() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        url = await video_url(sandbox)
        for wrong in (url.replace("/0-", "/1-"), url.replace("/0-", "/x-"), url.replace(".mp4", "0.mp4")):
            assert (await send_request(wrong)).status == 404
    async with Sandbox(instant_render_options(durations="fixed:500")) as sandbox:
        await create(sandbox)
        early = url.replace(url.rpartition("/generations")[0], sandbox.cdn_url)
        assert (await send_request(early)).status == 404


async def test_downloads_are_counted_while_they_run() -> None:
    async with Sandbox(instant_render_options(cdn_bytes_per_s=200_000)) as sandbox:
        url = await video_url(sandbox)
        await asyncio.gather(*(send_request(url) for _ in range(3)))
        assert (sandbox.state.active_downloads, sandbox.state.peak_downloads) == (0, 3)
        assert sandbox.state.generations[0].downloads == 3
