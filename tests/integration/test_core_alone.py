"""The command without any extra: it works, and what needs one says which packages to install.

The extras are kept from being imported by a hook of the interpreter; `make core-test` runs this file and the
rest of the command's suite where they are not installed at all.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.integration.vendor_double import Workspace, vendor_and_workspace, wait_until
from tests.integration.vendor_double.workspace import ROOT

if TYPE_CHECKING:
    from pathlib import Path

EXTRAS = (
    "apprise", "boto3", "botocore", "mcp", "obstore", "pillow_heif", "prometheus_client", "psycopg", "ray",
)  # fmt: skip
BLOCKER = f"""
from importlib.machinery import PathFinder

find = PathFinder.find_spec

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {EXTRAS!r} else find(name, path, target)

PathFinder.find_spec = staticmethod(find_spec)
"""


def without_extras(desk: Workspace, folder: Path) -> None:
    """Let every Python that starts in the workspace do without the extras."""
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(BLOCKER)
    desk.forked = False
    desk.environment["PYTHONPATH"] = os.pathsep.join([str(folder / "hook"), str(ROOT)])


async def test_a_batch_and_every_way_to_look_at_it(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        without_extras(desk, tmp_path)
        desk.write(["a", "b"])
        result = await desk.run("--junit", "junit.xml", "--serve", "0")
        assert result.code == 0, result.output
        assert desk.states() == {"done": 2}
        here = ("batch.json", "--base-url", vendor.api.url)
        for command in (
            ("status", "batch.json"),
            ("report", "batch.json"),
            ("validate", "batch.json"),
            ("costs", *here),
            ("estimate", *here),
            ("doctor", *here),
        ):
            ended = await desk.command(*command)
            assert ended.code == 0, (command, ended.output)


async def test_two_runs_at_once_end_with_a_message(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=3600.0) as (vendor, desk):
        without_extras(desk, tmp_path)
        desk.write(["a"])
        first = await desk.start()
        await wait_until(lambda: vendor.create_counts["a"] == 1)
        desk.environment |= {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
        second = await desk.run("--json")
        assert second.code == 3, second.output
        assert "Traceback" not in second.output
        assert f"process {first.pid}" in json.loads(second.out)["message"]
        assert "::error" in second.err
        assert str(first.pid) in (tmp_path / "summary.md").read_text()
        first.kill()
        await first.communicate()


@pytest.mark.parametrize("stopped", [True, False])
async def test_the_holder_of_a_lock_is_named_with_a_command_to_look_at_it(
    tmp_path: Path, stopped: bool
) -> None:
    async with vendor_and_workspace(tmp_path, render_s=3600.0) as (vendor, desk):
        desk.write(["a"])
        first = await desk.start()
        await wait_until(lambda: vendor.create_counts["a"] == 1)
        if stopped:
            first.send_signal(signal.SIGSTOP)
        second = await desk.run()
        assert second.code == 3, second.output
        assert f"ps -o pid,stat,lstart,args -p {first.pid}" in second.err
        assert ("is stopped" in second.err) is stopped
        first.kill()
        await asyncio.wait_for(first.communicate(), 600)


@pytest.mark.parametrize(
    ("command", "package"),
    [
        (("run", "batch.json", "--notify", "json://localhost"), "apprise"),
        (("run", "batch.json", "--engine", "ray"), "ray"),
        (("run", "batch.json", "--ledger", "postgresql://localhost/x"), "psycopg"),
        (("run", "batch.json", "--output", "s3://bucket/x"), "obstore"),
        (("mcp", "--max-cost", "1"), "mcp"),
    ],
)
async def test_what_needs_an_extra_names_its_packages(
    tmp_path: Path, command: tuple[str, ...], package: str
) -> None:
    desk = Workspace(tmp_path, "http://127.0.0.1:9")
    without_extras(desk, tmp_path)
    desk.write(["a"])
    result = await desk.command(*command)
    assert result.code == 2, result.output
    assert "pip install" in result.err
    assert package in result.err.partition("pip install")[2]
    assert "veobatch[" not in result.err
    assert "Traceback" not in result.output


async def test_an_output_that_cannot_be_written_ends_with_a_message(tmp_path: Path) -> None:
    desk = Workspace(tmp_path, "http://127.0.0.1:9")
    without_extras(desk, tmp_path)
    desk.write(["a"])
    (tmp_path / "taken").write_text("a file where the folder should be")
    result = await desk.run("--output", "taken")
    assert result.code == 3, result.output
    assert "taken" in result.err
    assert "Traceback" not in result.output
