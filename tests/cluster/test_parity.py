"""What `run` does on one machine it does with workers: the same codes and tables, and no secret is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote
from urllib.request import urlopen

import anyio
import pytest

from tests.integration.ledger_servers import PASSWORD, shared_postgres
from tests.integration.test_acceptance_object_store import AWS_ENVIRON, stable_columns
from tests.integration.vendor_double import KEY, vendor_and_workspace, wait_for_exit
from tests.integration.vendor_double.script import ScriptedCreate, error_reply

if TYPE_CHECKING:
    from tests.cluster.ray_clusters import RayCluster
    from tests.forked_python import Command
    from tests.integration.test_acceptance_object_store import Bucket
    from tests.integration.vendor_double import CommandResult, VendorDouble, Workspace

pytestmark = pytest.mark.ray

PROMPTS = ("one", "two", "three", "four", "refused", "failing")
SECRETS = (KEY, PASSWORD, quote(PASSWORD, safe=""))


def prepare(vendor: VendorDouble, desk: Workspace) -> None:
    vendor.script("refused", creates=[ScriptedCreate(accept=False, reply=error_reply(422, "not a prompt"))])
    vendor.script("failing", final_answer={"status": "error", "error": {"name": "x", "message": "too dark"}})
    desk.write([{"id": prompt, "prompt": prompt} for prompt in PROMPTS])


def cluster_options(
    desk: Workspace, head: RayCluster, bucket: Bucket, prefix: str = "alike"
) -> tuple[str, ...]:
    """The options that every run of a batch on the cluster is given."""
    desk.environment |= {**AWS_ENVIRON, "AWS_ENDPOINT_URL": bucket.endpoint}
    ledger = shared_postgres().url(shared_postgres().new_database())
    return (
        *("--engine", "ray", "--ray-address", head.address, "--workers", "2"),
        *("--ledger", ledger, "--output", f"s3://films/{prefix}", "--generation-retries", "0"),
    )


async def test_a_batch_as_on_one_machine(tmp_path: Path, head: RayCluster, bucket: Bucket) -> None:
    """Bad rows, live page, JUnit, bucket; failed rows again, as selected and by `auto`; nothing to do."""
    alone, apart = tmp_path / "alone", tmp_path / "apart"
    alone.mkdir()
    apart.mkdir()
    async with vendor_and_workspace(alone, render_s=0.1) as (vendor, desk):
        prepare(vendor, desk)
        local = await desk.run("--json", "--generation-retries", "0")
        expected = desk.rows()
    async with vendor_and_workspace(apart, render_s=0.1) as (vendor, desk):
        prepare(vendor, desk)
        options = cluster_options(desk, head, bucket)
        process = await desk.start(*options, "--json", "--junit", "rows.xml", "--serve", "0")
        page = await anyio.to_thread.run_sync(fetch, await wait_for_output(process, "live page: "))
        first = await wait_for_exit(process)
        assert (first.code, local.code) == (1, 1), first.output
        assert "batch" in page
        assert summary(first) == summary(local)
        assert stable_columns(bucket.table("alike")) == stable_columns(expected)
        assert "alike/report.html" in bucket.names()
        assert (apart / "rows.xml").read_text().count("<testcase") == len(PROMPTS)
        vendor.scripts.clear()
        chosen = await desk.run(*options, "--retry-failed", "--select", "fail*")
        assert chosen.code == 0, chosen.output
        assert set(vendor.paid_counts()) == {*PROMPTS} - {"refused"}
        # Whoever has its folder finds the cluster of this machine without an address.
        desk.environment["RAY_TMPDIR"] = str(head.folder)
        by_itself = ["auto" if option == head.address else option for option in options]
        second = await desk.run(*by_itself, "--select", "@failed")
        assert second.code == 0, second.output
        assert set(vendor.paid_counts()) == set(PROMPTS)
        made = len(vendor.generations)
        third = await desk.run(*options)
        assert third.code == 0, third.output
        assert len(vendor.generations) == made
        assert [row["status"] for row in bucket.table("alike")] == ["done"] * len(PROMPTS)
        assert_secrets_hidden(apart, head, first, second, third)


async def test_a_budget_that_does_not_reach(tmp_path: Path, head: RayCluster, bucket: Bucket) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write(["one", "two", "three", "four", "five"])
        money = ("--assume-price", "1", "--max-cost", "2")
        result = await desk.run(*cluster_options(desk, head, bucket, "budget"), *money, "--quiet")
        assert result.code == 3, result.output
        assert sum(vendor.create_counts.values()) == 2
        states = [row["status"] for row in bucket.table("budget")]
        assert sorted(states) == ["done", "done", "pending", "pending", "pending"]


def summary(result: CommandResult) -> tuple[object, object]:
    """The one object on standard output, without what differs from run to run."""
    found = json.loads(result.out)
    return found["exit_code"], found["counts"]


async def wait_for_output(process: Command, words: str) -> str:
    """What follows `words` in what the command says."""
    assert process.stderr is not None
    while line := (await process.stderr.readline()).decode():
        if words in line:
            return line.partition(words)[2].strip()
    raise AssertionError(f"it never said {words!r}")


def fetch(url: str) -> str:
    with urlopen(url, timeout=30) as answer:  # noqa: S310 - our own page
        text: str = answer.read().decode()
    return text


def assert_secrets_hidden(folder: Path, head: RayCluster, *results: CommandResult) -> None:
    """Neither the key nor the password is in what was said, in a file, or in a process of the cluster."""
    for result in results:
        assert not secrets_in(result.output.encode())
    for root in (folder, head.folder):
        for path in root.rglob("*"):
            if path.is_file():
                assert not secrets_in(read_if_present(path)), path
    for pid in head.pids():
        for file in ("cmdline", "environ"):
            assert not secrets_in(read_if_present(Path(f"/proc/{pid}/{file}"))), (pid, file)


def read_if_present(path: Path) -> bytes:
    """What a file holds; nothing when it is gone meanwhile, since the cluster goes on."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def secrets_in(text: bytes) -> list[str]:
    return [secret for secret in SECRETS if secret.encode() in text]
