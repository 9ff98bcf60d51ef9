"""What a sandbox keeps over a restart, and how it reads a damaged file."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from pipeline.sandbox import Fault, Sandbox
from tests.integration.raw_client import (
    AUTH_HEADERS,
    create,
    get_status,
    instant_render_options,
    send_request,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.sandbox import SandboxOptions

LONG_DURATIONS = "fixed:1000"
SERVE = "from pipeline.cli.sandbox import command; command()"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal in a folder that is not there yet."""
    return tmp_path / "output" / "batch" / "sandbox.jsonl"


def sandbox_at(path: Path, **options: Any) -> Sandbox:
    return Sandbox(options_at(path, **options))


def options_at(path: Path, **options: Any) -> SandboxOptions:
    return instant_render_options(journal=path, **options)


async def created(sandbox: Sandbox, count: int = 1, **fields: Any) -> list[str]:
    return [(await create(sandbox, prompt=f"scene {n}", **fields)).json()["id"] for n in range(count)]


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith('{"id"')]


def shift_back(path: Path, seconds: float) -> None:
    """Let time go by while no sandbox runs."""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        if "created_at" in (entry := json.loads(line)):
            lines[number] = compact({**entry, "created_at": entry["created_at"] - seconds})
    path.write_text("\n".join(lines) + "\n")


def read(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def compact(entry: dict[str, Any]) -> str:
    return json.dumps(entry, separators=(",", ":"))


async def test_the_folder_is_made_by_the_first_create_and_not_before(path: Path) -> None:
    async with sandbox_at(path) as sandbox:
        assert (await create(sandbox, duration=5)).status == 400
        assert not path.parent.exists()
        (made,) = await created(sandbox)
        assert [entry["id"] for entry in entries(path)] == [made]
    assert sandbox.journal_warnings == ()


async def test_a_restarted_sandbox_goes_on_where_it_was(path: Path) -> None:
    async with sandbox_at(path, durations="uniform:500,900") as sandbox:
        before = await created(sandbox, 3)
        render_s = [one.render_s for one in sandbox.state.generations]
        file = (await create(sandbox, {"X-Client-Request-Id": "run.1"})).json()["id"]
    shift_back(path, 300)
    async with sandbox_at(path, durations=LONG_DURATIONS, seed=7) as sandbox:
        assert [one.render_s for one in sandbox.state.generations][:3] == render_s
        body = [(await get_status(sandbox, one)).json()["status"] for one in before]
        assert body == ["generating"] * 3
        assert sandbox.state.in_flight == sandbox.state.peak_in_flight == 4
        assert [one.id for one in sandbox.state.find_by_correlation_id("run.1")] == [file]
    shift_back(path, 700)
    async with sandbox_at(path) as sandbox:
        body = [(await get_status(sandbox, one)).json()["status"] for one in [*before, file]]
        assert body == ["completed"] * 4


async def test_charges_and_log_rows_follow_and_the_balance_counts_them(path: Path) -> None:
    async with sandbox_at(path, balance_usd=1.0) as sandbox:
        done = (await create(sandbox, {"X-Client-Request-Id": "run.1"})).json()["id"]
        (failed,) = await _failing(sandbox)
    async with sandbox_at(path, balance_usd=1.0) as sandbox:
        assert (await get_status(sandbox, failed)).json()["status"] == "error"
        billing = (await send_request(f"{sandbox.url}/v2/billing", headers=AUTH_HEADERS)).json()
        assert billing["current_balance"] == pytest.approx(0.6)
        rows = (await send_request(f"{sandbox.url}/v2/logs?period=24h", headers=AUTH_HEADERS)).json()["data"]
        assert [(row["inference_id"], row["status"]) for row in rows] == [
            (failed, "failed"), (done, "succeeded"),
        ]  # fmt: skip
        assert [row["client_request_id"] for row in rows] == [None, "run.1"]
        assert (await create(sandbox)).status == 200
        assert (await create(sandbox)).status == 403


async def _failing(sandbox: Sandbox) -> list[str]:
    sandbox.add_fault(Fault("error-text", match="scene"))
    return await created(sandbox)


async def test_an_endless_rendering_stays_endless(path: Path) -> None:
    async with sandbox_at(path) as sandbox:
        sandbox.add_fault(Fault("never-finishes"))
        (made,) = await created(sandbox)
    shift_back(path, 1e6)
    async with sandbox_at(path) as sandbox:
        assert (await get_status(sandbox, made)).json()["status"] == "generating"


@pytest.mark.parametrize("style", ["uuid-model", "uuid", "number", "integer", "token", "hostile"])
async def test_no_id_is_used_twice(path: Path, style: str) -> None:
    made: list[str] = []
    for _ in range(3):
        async with sandbox_at(path, id_style=style) as sandbox:
            made += await created(sandbox, 2)
            assert [(await get_status(sandbox, one)).status for one in made] == [200] * len(made)
    assert len(set(made)) == 6
    assert [entry["number"] for entry in entries(path)] == [0, 1, 2, 3, 4, 5]


async def test_the_same_seed_makes_the_same_with_and_without_a_restart(path: Path) -> None:
    async with Sandbox(instant_render_options(durations="uniform")) as sandbox:
        whole = await created(sandbox, 4)
    parts: list[str] = []
    for _ in range(2):
        async with sandbox_at(path, durations="uniform") as sandbox:
            parts += await created(sandbox, 2)
    assert parts == whole


@pytest.mark.parametrize("video", ["small", "rendered"])
async def test_a_clip_is_the_same_file_after_a_restart(path: Path, video: str) -> None:
    """In another process too, since that may serve the rest of a resumed download."""
    async with sandbox_at(path, video=video) as sandbox:
        made = (await create(sandbox)).json()["id"]
        first = await send_request((await get_status(sandbox, made)).json()["video"]["url"])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SERVE, "--port", "0", "--journal", str(path)),
        *(("--small",) if video == "small" else ()),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    asked = f"{url}/v2/video/generations?generation_id={quote(made, safe='')}"
    video_url = (await send_request(asked, headers=AUTH_HEADERS)).json()["video"]["url"]
    headers = {"Range": "bytes=5000-", "If-Range": first.headers["etag"]}
    again, rest = await send_request(video_url), await send_request(video_url, headers=headers)
    process.send_signal(signal.SIGTERM)
    output, errors = await process.communicate()
    assert errors == b""
    assert f"keeps generations in {path}: 1 so far" in output.decode()
    assert (again.headers["etag"], again.body) == (first.headers["etag"], first.body)
    assert (rest.status, rest.body) == (206, first.body[5000:])


@pytest.mark.parametrize("cut", [1, 20, 100])
async def test_a_torn_last_line_is_forgotten_and_written_over(path: Path, cut: int) -> None:
    async with sandbox_at(path) as sandbox:
        kept, torn = await created(sandbox, 2)
    write(path, read(path)[:-cut])
    for _ in range(2):
        async with sandbox_at(path) as sandbox:
            assert sandbox.journal_warnings == ()
            assert (await get_status(sandbox, kept)).status == 200
            await created(sandbox)
    assert [entry["number"] for entry in entries(path)] == [0, 1, 2]
    assert entries(path)[0]["id"] == kept
    assert entries(path)[1]["id"] == torn  # the same seed and number: it is made anew


async def test_a_torn_header_is_an_empty_journal(path: Path) -> None:
    path.parent.mkdir(parents=True)
    write(path, b'{"journal":"veob')
    async with sandbox_at(path) as sandbox:
        await created(sandbox)
        assert sandbox.journal_warnings == ()
    assert len(entries(path)) == 1


@pytest.mark.parametrize(
    "garbage",
    [b"\x00\xff\xfe" * 500, b"[]\n" * 9, b"\n", b'{"journal":"another","version":1}\n', b"x" * 10**6],
)
async def test_garbage_is_moved_aside_with_a_note(path: Path, garbage: bytes) -> None:
    path.parent.mkdir(parents=True)
    write(path, garbage)
    async with sandbox_at(path) as sandbox:
        assert read(path) == garbage  # nothing is touched before there is something to remember
        made = await created(sandbox, 2)
        assert [str(path) in note and "without it" in note for note in sandbox.journal_warnings] == [True]
    assert path.with_name("sandbox.jsonl.damaged").read_bytes() == garbage
    async with sandbox_at(path) as sandbox:
        assert [one.id for one in sandbox.state.generations] == made
        assert sandbox.journal_warnings == ()


DAMAGE: dict[str, Any] = {
    "id": 7,
    "number": "1",
    "body": [],
    "model": "no/such-model",
    "created_at": 1e300,
    "render_s": "soon",
    "price_usd": None,
    "faults": [{"wrong": 1}],
}


@pytest.mark.parametrize("name", [*DAMAGE, "gone", "no JSON", "deep", "twice"])
async def test_a_damaged_line_costs_one_generation(path: Path, name: str) -> None:
    async with sandbox_at(path) as sandbox:
        first, _, last = await created(sandbox, 3)
    lines = read(path).splitlines()
    entry = json.loads(lines[3])
    damaged = {
        "gone": b"{}",
        "no JSON": lines[3][:-9] + b"\xff",
        "deep": b"[" * 100_000,
        "twice": lines[2],
    }
    lines[3] = damaged.get(name, json.dumps({**entry, name: DAMAGE.get(name)}).encode())
    write(path, b"\n".join(lines) + b"\n")
    async with sandbox_at(path) as sandbox:
        assert [one.id for one in sandbox.state.generations] == [first, last]
        assert (await send_request((await get_status(sandbox, last)).json()["video"]["url"])).status == 200
        (new,) = await created(sandbox)
        assert new not in (first, last)
    assert entries_numbers(path)[-1] == 3


def entries_numbers(path: Path) -> list[int]:
    return [json.loads(read(path).splitlines()[-1])["number"]]


async def test_a_journal_that_cannot_be_written_refuses_the_create(path: Path) -> None:
    path.parent.parent.mkdir()
    path.parent.write_text("a file where the folder should be")
    async with sandbox_at(path) as sandbox:
        assert len(sandbox.journal_warnings) == 1
        answer = await create(sandbox)
        assert (answer.status, "journal" in answer.json()["message"]) == (503, True)
        assert sandbox.state.generations == []
        path.parent.unlink()
        assert (await create(sandbox)).status == 200
    assert len(entries(path)) == 1


async def test_a_full_disk_accepts_nothing_and_leaves_no_half_line(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first part of a line goes through, the rest does not, as on a disk that is full."""
    real_write = os.write

    def write(file: int, data: bytes) -> int:
        if len(data) < 200:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(file, data[:-100])

    async with sandbox_at(path) as sandbox:
        (first,) = await created(sandbox)
        monkeypatch.setattr("pipeline.sandbox.journal.os.write", write)
        answer = await create(sandbox, prompt="lost")
        assert (answer.status, answer.json()["message"].endswith("No space left on device")) == (503, True)
        monkeypatch.undo()
        last = (await create(sandbox, prompt="kept")).json()["id"]
    assert [entry["id"] for entry in entries(path)] == [first, last]


async def test_what_another_sandbox_added_since_is_found(path: Path) -> None:
    """A second run may begin to read before the first has ended."""
    async with sandbox_at(path) as one, sandbox_at(path) as other:
        (made,) = await created(one)
        (second,) = await created(other)
        assert (await get_status(other, made)).status == 200
        (third,) = await created(one)
        assert len({made, second, third}) == 3
    assert [entry["number"] for entry in entries(path)] == [0, 1, 2]


async def test_a_long_journal_is_read_quickly(path: Path) -> None:
    async with sandbox_at(path, log_rows="never") as sandbox:
        await created(sandbox)
    header, port, line = read(path).decode().splitlines()
    entry = json.loads(line)
    more = [json.dumps({**entry, "id": f"id-{n}", "number": n}) for n in range(1, 20_000)]
    write(path, ("\n".join([header, port, line, *more]) + "\n").encode())
    began = time.process_time()
    async with sandbox_at(path) as sandbox:
        assert len(sandbox.state.generations) == 20_000
        assert (await get_status(sandbox, "id-19999")).status == 200
    assert time.process_time() - began < 30


async def test_earlier_urls_keep_working(path: Path) -> None:
    async with sandbox_at(path) as sandbox:
        made = (await create(sandbox)).json()["id"]
        url = (await get_status(sandbox, made)).json()["video"]["url"]
    async with sandbox_at(path) as sandbox:
        assert url.startswith(sandbox.cdn_url)
        assert (await send_request(url)).status == 200


async def test_a_port_that_is_taken_costs_only_the_old_urls(path: Path) -> None:
    async with sandbox_at(path) as sandbox:
        made = (await create(sandbox, prompt="mine")).json()["id"]
        url = (await get_status(sandbox, made)).json()["video"]["url"]
        port = int(sandbox.cdn_url.rpartition(":")[2])
    async with Sandbox(instant_render_options(cdn_port=port)) as other, sandbox_at(path) as sandbox:
        assert (await create(other, prompt="another batch's")).json()["id"] == made
        assert (await send_request(url)).status == 404
        fresh = (await get_status(sandbox, made)).json()["video"]["url"]
        assert (await send_request(fresh)).status == 200
