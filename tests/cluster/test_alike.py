"""What `run` does on one machine it does with workers: the same codes and tables, and no secret is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote
from urllib.request import urlopen

import anyio
import pytest

from tests.integration.ledgers import PASSWORD, server
from tests.integration.test_accept_objects import ACCESS, lasting
from tests.integration.vendor_double import KEY, at_work, ended
from tests.integration.vendor_double.script import Create, trouble

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from tests.cluster.heads import Head
    from tests.integration.test_accept_objects import Bucket
    from tests.integration.vendor_double import Desk, Double, Ended

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

PROMPTS = ("one", "two", "three", "four", "refused", "failing")
SECRETS = (KEY, PASSWORD, quote(PASSWORD, safe=""))


def prepare(vendor: Double, desk: Desk) -> None:
    vendor.script("refused", creates=[Create(accept=False, reply=trouble(422, "not a prompt"))])
    vendor.script("failing", ending={"status": "error", "error": {"name": "x", "message": "too dark"}})
    desk.write([{"id": prompt, "prompt": prompt} for prompt in PROMPTS])


def by_workers(desk: Desk, head: Head, bucket: Bucket) -> tuple[str, ...]:
    """The options that every run of a batch on the cluster is given."""
    desk.environment |= {**ACCESS, "AWS_ENDPOINT_URL": bucket.endpoint}
    ledger = server().url(server().new_database())
    return (
        *("--engine", "ray", "--ray-address", head.address, "--workers", "2"),
        *("--ledger", ledger, "--output", "s3://films/alike", "--generation-retries", "0"),
    )


async def test_a_batch_as_on_one_machine(tmp_path: Path, head: Head, bucket: Bucket) -> None:
    """Bad rows, the live page, the summary, JUnit, a bucket; then failed rows again; then nothing to do."""
    alone, apart = tmp_path / "alone", tmp_path / "apart"
    alone.mkdir()
    apart.mkdir()
    async with at_work(alone, render_s=0.1) as (vendor, desk):
        prepare(vendor, desk)
        local = await desk.run("--json", "--generation-retries", "0")
        expected = desk.rows()
    async with at_work(apart, render_s=0.1) as (vendor, desk):
        prepare(vendor, desk)
        options = by_workers(desk, head, bucket)
        process = await desk.start(*options, "--json", "--junit", "rows.xml", "--serve", "0")
        page = await anyio.to_thread.run_sync(fetched, await told(process, "live page: "))
        first = await ended(process)
        assert (first.code, local.code) == (1, 1), first.said
        assert "batch" in page
        assert summary(first) == summary(local)
        assert lasting(bucket.table("alike")) == lasting(expected)
        assert "alike/report.html" in bucket.names()
        assert (apart / "rows.xml").read_text().count("<testcase") == len(PROMPTS)
        vendor.scripts.clear()
        second = await desk.run(*options, "--retry-failed")
        assert second.code == 0, second.said
        assert set(vendor.paid()) == set(PROMPTS)
        made = len(vendor.made)
        third = await desk.run(*options)
        assert third.code == 0, third.said
        assert len(vendor.made) == made
        assert [row["status"] for row in bucket.table("alike")] == ["done"] * len(PROMPTS)
        assert_secret(apart, head, first, second, third)


async def test_a_budget_that_does_not_reach(tmp_path: Path, head: Head, bucket: Bucket) -> None:
    async with at_work(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write(["one", "two", "three", "four", "five"])
        money = ("--assume-price", "1", "--max-cost", "2")
        result = await desk.run(*by_workers(desk, head, bucket), *money, "--quiet")
        assert result.code == 3, result.said
        assert sum(vendor.created.values()) == 2
        states = [row["status"] for row in bucket.table("alike")]
        assert sorted(states) == ["done", "done", "pending", "pending", "pending"]


def summary(result: Ended) -> tuple[object, object]:
    """The one object on standard output, without what differs from run to run."""
    found = json.loads(result.out)
    return found["exit_code"], found["counts"]


async def told(process: Process, words: str) -> str:
    """What follows `words` in what the command says."""
    assert process.stderr is not None
    while line := (await process.stderr.readline()).decode():
        if words in line:
            return line.partition(words)[2].strip()
    raise AssertionError(f"it never said {words!r}")


def fetched(url: str) -> str:
    with urlopen(url, timeout=30) as answer:  # noqa: S310 - our own page
        text: str = answer.read().decode()
    return text


def assert_secret(folder: Path, head: Head, *results: Ended) -> None:
    """Neither the key nor the password is in what was said, in a file, or in a process of the cluster."""
    for result in results:
        assert not told_in(result.said.encode())
    for root in (folder, head.folder):
        for path in root.rglob("*"):
            if path.is_file():
                assert not told_in(read(path)), path
    for pid in head.pids():
        for file in ("cmdline", "environ"):
            assert not told_in(read(Path(f"/proc/{pid}/{file}"))), (pid, file)


def read(path: Path) -> bytes:
    """What a file holds; nothing when it is gone meanwhile, since the cluster goes on."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def told_in(text: bytes) -> list[str]:
    return [secret for secret in SECRETS if secret.encode() in text]
