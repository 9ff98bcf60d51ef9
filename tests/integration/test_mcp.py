"""The tools for assistants, called by the SDK's own client: in this process, and over stdio."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pipeline.ledger.lock import hold_lock, holder_pid
from tests import forked_python
from tests.integration.vendor_double import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from mcp import Client

    from pipeline.cli.assistant.server import Assistant

pytestmark = pytest.mark.usefixtures("small_clips")

MANIFEST = """
defaults: {duration: 4, resolution: 720p}
jobs:
  - {id: one, image_url: "https://example.com/a.jpg", prompt: "One."}
  - {id: two, image_url: "https://example.com/a.jpg", prompt: "Two."}
"""


@pytest.fixture
async def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Path]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("AIMLAPI_API_KEY", "AIML_API_KEY", "AIMLAPI_KEY"):
        monkeypatch.delenv(name, raising=False)
    work = tmp_path / "work"
    work.mkdir()
    (work / "night.yaml").write_text(MANIFEST, encoding="utf-8")
    yield work
    async with connect(make_assistant(work, 0.0)) as client:
        await call(client, "stop")


@pytest.fixture
def forked_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the commands that are waited for; runs, which outlive a server, start as they always do."""

    async def run(
        command: list[str], *, cwd: Path, env: Mapping[str, str], check: bool
    ) -> CompletedProcess[bytes]:
        assert (command[:3], check) == ([sys.executable, "-P", "-m"], False)
        process = await forked_python.start(*command[2:], cwd=cwd, env=env)
        out, err = await process.communicate()
        return CompletedProcess(command, await process.wait(), out, err)

    monkeypatch.setattr(anyio, "run_process", run)


def make_assistant(folder: Path, max_cost: float) -> Assistant:
    from pipeline.cli.assistant.server import Assistant  # takes longer to import than all else here

    return Assistant(folder, max_cost, sandbox=True)


def connect(assistant: Assistant) -> Client:
    """Return a client of a server in this process."""
    from mcp import Client

    from pipeline.cli.assistant.server import make_server

    return Client(make_server(assistant))


async def call(client: Client, tool: str, manifest: str = "night.yaml", **arguments: Any) -> Any:
    """Return what a tool answers; an error as its text."""
    result = await client.call_tool(tool, {"manifest": manifest, **arguments})
    if result.is_error or result.structured_content is None:
        return "".join(getattr(block, "text", "") for block in result.content)
    return result.structured_content


async def until_ended(client: Client, assistant: Assistant | None = None) -> dict[str, Any]:
    """Return the status after the run's end; without the assistant that started it, by asking."""
    for process in assistant.runs.started if assistant is not None else ():
        await anyio.to_thread.run_sync(process.wait)
    while (status := await call(client, "status"))["running"]:  # noqa: ASYNC110  # another process runs it
        await anyio.sleep(0.2)  # each call takes a process of its own
    return dict(status)


async def test_a_batch_is_validated_run_and_read(folder: Path) -> None:
    assistant = make_assistant(folder, 20.0)
    async with connect(assistant) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert tools == {"validate", "estimate", "run", "status", "results", "pick", "stop"}
        assert (await call(client, "validate"))["rows"] == 2
        assert "no batch at" in await call(client, "status")
        started = await call(client, "run", max_cost=5)
        assert started["max_cost"] == 5
        ended = await until_ended(client, assistant)
        assert (ended["counts"]["done"], ended["summary"]["exit_code"]) == (2, 0)
        rows = (await call(client, "results", status="done"))["rows"]
        assert [row["id"] for row in rows] == ["one", "two"]
        assert (folder / "output" / "night.sandbox" / "results.csv").exists()
        assert "one" in (await call(client, "pick", ids=["one"]))["message"]


@pytest.mark.usefixtures("forked_commands")
async def test_errors_are_the_command_s_and_nothing_outside_is_read(folder: Path) -> None:
    (folder / "bad.yaml").write_text("jobs:\n  - prompt: A.\n", encoding="utf-8")
    async with connect(make_assistant(folder, 1.0)) as client:
        assert not (await call(client, "validate", "bad.yaml"))["ok"]
        assert "bad.yaml:2" in await call(client, "run", "bad.yaml")
        assert "outside of" in await call(client, "validate", "../../etc/passwd")
        assert await call(client, "stop") == {"stopping": False}


@pytest.mark.usefixtures("forked_commands")
async def test_a_budget_is_shared_by_all_batches_and_outlives_servers_and_ledgers(folder: Path) -> None:
    (folder / "more.yaml").write_text(MANIFEST, encoding="utf-8")
    assistant = make_assistant(folder, 1.0)
    async with connect(assistant) as client:
        assert (await call(client, "estimate"))["budget_usd"] == 1.0
        await call(client, "run")
        spent = (await until_ended(client, assistant))["summary"]["usd_spent"]
        assert 0 < spent <= 1.0
    async with connect(make_assistant(folder, 1.0)) as restarted:
        assert (await call(restarted, "estimate", "more.yaml"))["budget_usd"] == pytest.approx(1.0 - spent)
        (folder / "output" / "night.sandbox").rename(folder / "archive")
        # All that was granted may have been spent, by the batch itself, too.
        assert (await call(restarted, "estimate", "more.yaml"))["budget_usd"] == 0
        assert (await call(restarted, "run"))["max_cost"] == 0


@pytest.mark.usefixtures("forked_commands")
async def test_two_servers_that_grant_at_once_keep_to_one_budget(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / f"{name}.yaml").write_text(MANIFEST, encoding="utf-8")
    granted = []

    async def run(name: str) -> None:
        async with connect(make_assistant(folder, 1.0)) as client:
            granted.append((await call(client, "run", f"{name}.yaml", max_cost=0.9))["max_cost"])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, "a")
        tasks.start_soon(run, "b")
    assert max(granted) == 0.9
    assert min(granted) <= 0.2 + 1e-6  # the other run's two rows cost 0.80, and it may still go on


@pytest.mark.usefixtures("forked_commands")
async def test_a_batch_that_somebody_runs_is_left_alone_and_takes_no_budget(folder: Path) -> None:
    batch = folder / "output" / "night.sandbox"
    async with connect(make_assistant(folder, 1.0)) as client:
        with hold_lock(batch, command="veobatch run night.yaml", started_at="now"):
            assert "is going on" in await call(client, "run")
            assert (await call(client, "status"))["running"]
        assert (await call(client, "estimate", "night.yaml"))["budget_usd"] == 1.0
        (folder / "more.yaml").write_text(MANIFEST, encoding="utf-8")
        assert (await call(client, "estimate", "more.yaml"))["budget_usd"] == 1.0


@pytest.mark.usefixtures("forked_commands")
@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("validate", {"manifest": "--help"}, "no such file"),
        ("run", {"manifest": "$(touch hacked).yaml"}, "no such file"),
        ("run", {"manifest": "night.yaml", "max_cost": "all"}, "max_cost"),
        ("status", {"manifest": "link.yaml"}, "outside of"),
        ("estimate", {"manifest": "night.yaml\0"}, ""),
        ("validate", {"manifest": "pictures.yaml"}, "outside of"),
        ("run", {"manifest": "pictures.yaml"}, "outside of"),
        ("pick", {"manifest": "night.yaml", "ids": ["--clear"]}, "no batch"),
        ("results", {"manifest": "night.yaml", "offset": -5, "limit": 10**9}, "no batch"),
    ],
)
async def test_hostile_arguments_are_errors_and_reach_no_shell(
    folder: Path, tool: str, arguments: dict[str, Any], message: str
) -> None:
    (folder.parent / "secret.png").write_bytes(b"not for the vendor")
    (folder / "link.yaml").symlink_to(folder.parent / "elsewhere.yaml")
    (folder / "pictures.yaml").write_text("- {image_url: ../secret.png, prompt: A.}\n", encoding="utf-8")
    before = names(folder)
    async with connect(make_assistant(folder, 1.0)) as client:
        answer = await call(client, tool, **arguments)
    assert message in str(answer)
    assert isinstance(answer, str) or not answer["ok"]
    assert names(folder) == before


async def test_a_run_outlives_a_server_that_is_killed(folder: Path) -> None:
    from mcp import Client, StdioServerParameters, stdio_client

    slow = MANIFEST + "run: {concurrency: 1}\n"
    (folder / "night.yaml").write_text(slow, encoding="utf-8")
    script = f"echo $$ > {folder}/pid; exec {sys.executable} -m pipeline mcp --max-cost 20 --sandbox"
    parameters = StdioServerParameters(command="sh", args=["-c", script], env=dict(os.environ), cwd=folder)
    with suppress(Exception, ExceptionGroup):  # the client says in its own ways that its server is gone
        async with Client(stdio_client(parameters)) as client:
            assert (await call(client, "run"))["running"]
            os.kill(int(read(folder / "pid")), signal.SIGKILL)
            await call(client, "status")
    async with Client(stdio_client(parameters)) as again:
        assert (await call(again, "status"))["running"]
        await wait_until(lambda: holder_pid(folder / "output" / "night.sandbox") is None)
        ended = await until_ended(again)
        assert ended["counts"]["done"] == 2
        rows = (await call(again, "results"))["rows"]
        assert [row["attempts"] for row in rows] == [1, 1]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
