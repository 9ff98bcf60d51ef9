"""`veobatch run --sandbox` that is interrupted: its stand-in dies with it, and the next run goes on."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

import av

from tests.integration.vendor_double.workspace import Workspace, wait_for_exit

if TYPE_CHECKING:
    from pathlib import Path

PROMPTS = [f"Scene {number} of the night." for number in range(10)]
OPTIONS = (
    "--sandbox",
    "--output",
    "output/batch",
    "--sandbox-speed",
    "80",
    "--concurrency",
    "3",
    "--reconcile-after",
    "30",
)


def workspace_in(folder: Path) -> Workspace:
    workspace = Workspace(folder, key="", options=OPTIONS)
    workspace.write([{"prompt": prompt, "duration": 4, "resolution": "720p"} for prompt in PROMPTS])
    return workspace


def journal(workspace: Workspace) -> list[dict[str, Any]]:
    """The whole lines of the sandbox's journal, without its head."""
    path = workspace.output / "sandbox.jsonl"
    data = path.read_bytes() if path.exists() else b""
    return [
        json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines() if b'"created_at"' in line
    ]


async def until_created(workspace: Workspace, count: int) -> None:
    async with asyncio.timeout(600):
        while len(journal(workspace)) < count:  # noqa: ASYNC110  # another process writes it
            await asyncio.sleep(0.02)


async def assert_continues(workspace: Workspace) -> None:
    accepted = {entry["id"]: entry for entry in journal(workspace)}
    result = await workspace.run()
    assert result.code == 0, result.output
    assert workspace.states() == {"done": len(PROMPTS)}
    after = journal(workspace)
    assert Counter(entry["body"]["prompt"] for entry in after) == dict.fromkeys(PROMPTS, 1)
    assert accepted.items() <= {entry["id"]: entry for entry in after}.items()
    assert {row["generation_id"] for row in workspace.rows()} == {entry["id"] for entry in after}
    for row in workspace.rows():
        with av.open(workspace.video(row), "r") as film:
            assert film.metadata["comment"] == f"generation_id={row['generation_id']}"


async def test_a_killed_run_goes_on_and_creates_nothing_twice(tmp_path: Path) -> None:
    workspace = workspace_in(tmp_path)
    for count in (2, 6):
        process = await workspace.start()
        await until_created(workspace, count)
        process.kill()
        await process.communicate()
        assert count <= len(journal(workspace)) < len(PROMPTS)
    await assert_continues(workspace)


async def test_a_run_that_was_stopped_twice_goes_on(tmp_path: Path) -> None:
    workspace = workspace_in(tmp_path)
    process = await workspace.start()
    await until_created(workspace, 5)
    assert process.stderr is not None
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(600):
        while b"once more" not in await process.stderr.readline():
            assert process.returncode is None
    process.send_signal(signal.SIGINT)
    result = await wait_for_exit(process)
    assert result.code == 143, result.output
    assert len(journal(workspace)) < len(PROMPTS)
    await assert_continues(workspace)
