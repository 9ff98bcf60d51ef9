"""The same command again: whatever happened to the manifest, the files and the URLs in between."""

from __future__ import annotations

import json
import shutil
from math import inf
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.integration.vendor_double import (
    GATEWAY_PAGE,
    JobScript,
    ScriptedCreate,
    make_video,
    vendor_and_workspace,
)
from tests.integration.vendor_double.script import error_reply, raw, reset_connection
from tests.unit.pictures import picture_bytes

if TYPE_CHECKING:
    from pathlib import Path


async def test_rows_reordered_added_removed_and_edited(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write(["a", "b", "c", {"id": "named", "prompt": "old words"}, "a"])
        assert (await desk.run()).code == 0
        old = {row["id"]: row for row in desk.rows()}
        assert vendor.create_counts == {"a": 2, "b": 1, "c": 1, "old words": 1}

        desk.write(["new", "c", "a", {"id": "named", "prompt": "new words"}, "a"])
        result = await desk.run()
        assert result.code == 0, result.output
        assert "named" in result.err
        assert "edited" in result.err
        expected = {"a": 2, "b": 1, "c": 1, "old words": 1, "new": 1, "new words": 1}
        assert vendor.create_counts == expected
        rows = desk.rows()
        assert [row["prompt"] for row in rows[:5]] == ["new", "c", "a", "new words", "a"]
        assert {row["prompt"] for row in rows[5:]} == {"b", "old words"}
        for row in rows:
            assert desk.video(row).read_bytes() == make_video(row["prompt"])
        assert len({row["video_path"] for row in rows}) == 7
        kept = next(row for row in rows if row["prompt"] == "old words")
        assert kept["video_path"] == old["named"]["video_path"]
        requests = len(vendor.requests)
        assert (await desk.run()).code == 0
        assert len(vendor.requests) == requests


async def test_only_images_of_rows_to_submit_are_looked_at(tmp_path: Path) -> None:
    """A link may die once the vendor has fetched it; what is paid for is fetched all the same."""
    images = {name: picture_bytes("png", (1280, 720)) for name in ("paid", "second")}
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.match_info["name"])
        found = images.get(request.match_info["name"])
        return web.Response(status=404) if found is None else web.Response(body=found)

    app = web.Application()
    app.router.add_get("/{name}", answer)
    async with TestServer(app) as host, vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.options = (*desk.options, "--check-images", "--allow-private-images")
        rows = [{"prompt": name, "image_url": str(host.make_url(f"/{name}"))} for name in ("paid", "second")]
        vendor.script("paid", render_s=inf)
        desk.write(rows[:1])
        assert (await desk.run("--timeout", "1")).code == 3
        assert desk.states() == {"generating": 1}
        assert asked == ["paid"]

        images.clear()
        shutil.rmtree(desk.folder / "home")  # what was found is remembered for a day
        vendor.generations[0].ends_at = 0.0
        result = await desk.run()
        assert result.code == 0, result.output
        desk.write(rows)
        result = await desk.run()
        assert result.code == 2, result.output
        assert "second" in result.err
        assert asked == ["paid", "second"]
        assert len(vendor.generations) == 1


async def test_a_removed_row_that_was_paid_for_is_still_fetched(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        vendor.script("removed", render_s=inf)
        vendor.script("edited", render_s=inf)
        vendor.script("never sent", creates=[ScriptedCreate(accept=False, reply=error_reply(403, "credits"))])
        desk.write(["removed", {"id": "x", "prompt": "edited"}])
        result = await desk.run("--timeout", "1")
        assert result.code == 3, result.output
        assert desk.states() == {"generating": 2}
        for made in vendor.generations:
            made.ends_at = 0.0
        desk.write([{"id": "x", "prompt": "other"}, {"id": "y", "prompt": "more"}])
        result = await desk.run("--concurrency", "2")
        assert result.code == 0, result.output
        assert vendor.create_counts == {"removed": 1, "edited": 1, "other": 1, "more": 1}
        rows = desk.rows()
        assert [row["prompt"] for row in rows[:2]] == ["other", "more"]
        assert {row["prompt"] for row in rows[2:]} == {"removed", "edited"}
        for row in rows:
            assert desk.video(row).read_bytes() == make_video(row["prompt"])


async def test_not_yet_is_never_failed(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        vendor.script("late", render_s=inf)
        desk.write(["late", "good"])
        result = await desk.run("--timeout", "1", "--json")
        assert result.code == 3, result.output
        assert desk.states() == {"done": 1, "generating": 1}
        told = json.loads(result.out)
        assert told["exit_code"] == 3
        assert told["stop"] == "deadline"
        vendor.generations[0].ends_at = vendor.generations[1].ends_at = 0.0
        result = await desk.run()
        assert result.code == 0, result.output
        assert vendor.create_counts == {"late": 1, "good": 1}


async def test_altered_files_are_fetched_again_and_missing_ones_when_wanted_never_generated(
    tmp_path: Path,
) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        vendor.cdn.url_lifetime_s = 3.0
        desk.write(["gone", "cut", "altered", "a folder", "whole"])
        assert (await desk.run()).code == 0
        rows = {row["prompt"]: row for row in desk.rows()}
        desk.video(rows["gone"]).unlink()
        cut = desk.video(rows["cut"])
        cut.write_bytes(cut.read_bytes()[:100])
        altered = desk.video(rows["altered"])
        altered.write_bytes(altered.read_bytes()[:-3] + b"xyz")
        folder = desk.video(rows["a folder"])
        folder.unlink()
        folder.mkdir()
        vendor.cdn.url_lifetime_s = 0.5
        n_downloads = len(vendor.cdn.requests)
        result = await desk.run()
        assert result.code == 0, result.output
        moved = {row["prompt"] for row in desk.rows() if "moved" in row["warnings"]}
        assert moved == {"gone", "a folder"}
        assert all(row["sha256"] for row in desk.rows())
        result = await desk.run("--fetch-missing")
        assert result.code == 0, result.output
        assert set(vendor.create_counts.values()) == {1}
        for row in desk.rows():
            assert desk.video(row).read_bytes() == make_video(row["prompt"])
        assert folder.is_dir()
        assert not any("/4/" in request.path for request in vendor.cdn.requests[n_downloads:])


async def test_dead_urls_are_asked_for_again(tmp_path: Path) -> None:
    """403, 404 and 410 of the CDN, pages, cuts and expired links: the video is not lost."""
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        for status in (401, 403, 404, 410, 500, 503, 429):
            vendor.scripts[f"cdn {status}"] = JobScript(cdn=[raw(status, b"<Error/>", "application/xml")])
        vendor.scripts["page"] = JobScript(cdn=[raw(200, GATEWAY_PAGE), raw(200, GATEWAY_PAGE)])
        vendor.scripts["reset"] = JobScript(cdn=[reset_connection, reset_connection])
        vendor.scripts["nothing"] = JobScript(cdn=[raw(200, b"", "video/mp4")])
        vendor.scripts["rubbish once"] = JobScript(cdn=[raw(200, b"\xaa" * 9000, "video/mp4")])
        vendor.scripts["short once"] = JobScript(cdn=[raw(200, make_video("short once")[:900], "video/mp4")])
        every = [script.cdn[0] for script in vendor.scripts.values()]
        vendor.scripts["all of them"] = JobScript(cdn=every)
        desk.write(list(vendor.scripts))
        result = await desk.run("--concurrency", "20")
        assert result.code == 0, result.output
        assert set(vendor.create_counts.values()) == {1}
        for row in desk.rows():
            assert desk.video(row).read_bytes() == make_video(row["prompt"])


async def test_a_video_that_cannot_be_fetched_stays_ready(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        vendor.script("lost", cdn=[raw(404, b"gone")] * 10_000)
        desk.write(["lost", "good"])
        result = await desk.run()
        assert result.code == 3, result.output
        assert desk.states() == {"done": 1, "ready": 1}
        vendor.scripts["lost"].cdn.clear()
        result = await desk.run()
        assert result.code == 0, result.output
        assert set(vendor.create_counts.values()) == {1}


async def test_failed_rows_are_tried_again_only_when_asked(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        refused = ScriptedCreate(accept=False, reply=error_reply(400, "no such image"))
        vendor.script("refused", creates=[refused])
        vendor.script("faulty", final_answer={"status": "error", "error": "GPU fell off the bus"})
        vendor.script("no url", final_answer={"status": "completed"})
        vendor.script("unsafe", final_answer={"status": "error", "error": "violates our content policy"})
        desk.write([*vendor.scripts, "good"])
        result = await desk.run("--generation-retries", "2")
        assert result.code == 1, result.output
        assert vendor.create_counts == {"refused": 1, "faulty": 3, "no url": 1, "unsafe": 1, "good": 1}
        requests = len(vendor.requests)
        assert (await desk.run()).code == 1
        assert len(vendor.requests) == requests
        codes = {row["prompt"]: row["error_code"] for row in desk.rows()}

        for script in vendor.scripts.values():
            script.final_answer = None
        result = await desk.run("--retry-failed", "--only", codes["faulty"])
        assert result.code == 1, result.output
        assert vendor.create_counts == {"refused": 1, "faulty": 4, "no url": 1, "unsafe": 1, "good": 1}
        result = await desk.run("--retry-failed")
        assert result.code == 0, result.output
        assert vendor.create_counts == {"refused": 2, "faulty": 4, "no url": 1, "unsafe": 2, "good": 1}
        assert desk.states() == {"done": 5}
