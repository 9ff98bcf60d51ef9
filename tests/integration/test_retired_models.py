"""Models that retire: what the user reads before anything is submitted, and what a 404 to a create stops."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.manifest import BUILT_IN_MODEL
from pipeline.sandbox import Fault, Retirement, Sandbox, SandboxOptions
from tests.integration.vendor_double import Workspace, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

OTHER = "google/veo-3.0-i2v-fast"
SKETCH = "sandbox/sketch-t2v"


@asynccontextmanager
async def sandbox_and_workspace(folder: Path, **options: Any) -> AsyncIterator[tuple[Sandbox, Workspace]]:
    async with Sandbox(SandboxOptions(speed=200.0, video="small", **options)) as sandbox:
        yield sandbox, Workspace(folder, str(sandbox.url))


async def test_a_withdrawn_model_stops_before_the_first_create(tmp_path: Path) -> None:
    retired = (Retirement(BUILT_IN_MODEL, "withdrawn", replaced_by=OTHER),)
    async with sandbox_and_workspace(tmp_path, retired=retired) as (sandbox, workspace):
        workspace.write(["one", "two"])
        ended = await workspace.run("--yes")
        assert ended.code == 2, ended.output
        assert f"withdrawn the model {BUILT_IN_MODEL}; use {OTHER}" in ended.err
        assert f"--model {OTHER}" in ended.err
        assert not sandbox.state.generations
        estimated = await workspace.command("estimate", "batch.json", "--base-url", workspace.base_url)
        assert (estimated.code, f"use {OTHER}" in estimated.err) == (2, True), estimated.output


@pytest.mark.parametrize(
    ("retirement", "message"),
    [
        (Retirement(BUILT_IN_MODEL, "deprecated", shutdown_on="2100-01-31"), "shuts it down on 2100-01-31"),
        (
            Retirement("google/veo-3.1-i2v-fast", "superseded", replaced_by=OTHER),
            f"answers for it with {OTHER}",
        ),
    ],
    ids=["deprecated", "superseded"],
)
async def test_a_model_that_still_serves_is_warned_of(
    tmp_path: Path, retirement: Retirement, message: str
) -> None:
    async with sandbox_and_workspace(tmp_path, retired=(retirement,)) as (_, workspace):
        workspace.write(["one"])
        ended = await workspace.run("--yes", "--max-cost", "100")
        assert ended.code == 0, ended.output
        assert message in ended.err


async def test_a_feed_that_cannot_be_had_is_not_mentioned(tmp_path: Path) -> None:
    async with sandbox_and_workspace(tmp_path) as (sandbox, workspace):
        sandbox.add_fault(Fault("catalog-error", match="deprecations"))
        workspace.write(["one"])
        ended = await workspace.run("--yes")
        assert ended.code == 0, ended.output
        assert "deprecat" not in ended.output


async def test_paid_rows_are_fetched_although_their_model_is_withdrawn(tmp_path: Path) -> None:
    async with sandbox_and_workspace(tmp_path) as (sandbox, workspace):
        workspace.write(["one", "two"])
        first = await workspace.start("--yes", "--concurrency", "1")
        # A poll leaves only for a generation that is in the ledger.
        await wait_until(lambda: any(made.polls for made in sandbox.state.generations))
        first.kill()
        await first.wait()
        sandbox.retire(Retirement(BUILT_IN_MODEL, "withdrawn", replaced_by=OTHER))
        ended = await workspace.run("--yes", "--json", "--reconcile-wait", "0")
        assert ended.code == 3, ended.output
        assert json.loads(ended.out)["stopped_reason"] == "model"
        assert len(sandbox.state.generations) == 1
        assert workspace.states() == {"done": 1, "pending": 1}, ended.output


async def test_a_404_that_the_feed_confirms_stops_the_run_and_fails_no_row(tmp_path: Path) -> None:
    async with sandbox_and_workspace(tmp_path) as (sandbox, workspace):
        workspace.write([f"prompt {n}" for n in range(6)])
        first = await workspace.start("--yes", "--json", "--concurrency", "1")
        await wait_until(lambda: len(sandbox.state.generations) == 1)
        sandbox.retire(Retirement(BUILT_IN_MODEL, "withdrawn", replaced_by=OTHER))
        out, err = await first.communicate()
        assert first.returncode == 3, err.decode()
        assert json.loads(out)["stopped_reason"] == "model"
        states = workspace.states()
        assert set(states) == {"done", "pending"}, err.decode()
        assert f"use {OTHER}" in err.decode()


async def test_another_model_goes_on_where_the_default_one_is_gone(tmp_path: Path) -> None:
    retired = (Retirement(BUILT_IN_MODEL, "withdrawn", replaced_by=SKETCH),)
    async with sandbox_and_workspace(tmp_path, retired=retired) as (sandbox, workspace):
        rows = [{"prompt": "one"}, {"prompt": "two", "model": BUILT_IN_MODEL}]
        (tmp_path / "batch.json").write_text(json.dumps(rows))
        where = ("batch.json", "--base-url", workspace.base_url)
        assert (await workspace.command("validate", *where)).code == 2
        for command in ("validate", "estimate"):
            checked = await workspace.command(command, *where, "--model", SKETCH)
            assert checked.code == 0, checked.output
        ended = await workspace.run("--yes", "--model", SKETCH)
        assert ended.code == 0, ended.output
        assert [row["model"] for row in workspace.rows()] == [SKETCH, SKETCH]
        assert {generation.model for generation in sandbox.state.generations} == {SKETCH}


async def test_a_model_that_is_a_typo_is_a_problem_of_the_manifest(tmp_path: Path) -> None:
    async with sandbox_and_workspace(tmp_path) as (_, workspace):
        workspace.write(["one"])
        ended = await workspace.run("--yes", "--model", "google/veo-3.1-i2v-fst")
        assert ended.code == 2, ended.output
        assert "the vendor has none of that name" in ended.err
        assert f"did you mean `{BUILT_IN_MODEL}`?" in ended.err


async def test_validate_names_the_line_of_a_withdrawn_model(tmp_path: Path) -> None:
    async with sandbox_and_workspace(tmp_path, retired=(Retirement(OTHER, "withdrawn"),)) as (_, workspace):
        (tmp_path / "m.yaml").write_text(
            f"jobs:\n  - {{image_url: https://e.com/a.jpg, prompt: a}}\n"
            f"  - {{image_url: https://e.com/a.jpg, prompt: b, model: {OTHER}}}\n"
        )
        ended = await workspace.command("validate", "m.yaml", "--base-url", workspace.base_url)
        assert ended.code == 2, ended.output
        assert f"m.yaml:3:5: error: the vendor has withdrawn the model {OTHER}; choose another" in ended.err
