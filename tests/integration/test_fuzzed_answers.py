"""Whatever one row's answers, URLs, headers and files hold: nine of ten rows are done, and nothing is printed
that a terminal or a reader should not see.

`VEOBATCH_FUZZED_ANSWERS` sets how many fuzzed answers are sent, `VEOBATCH_FUZZ_SEED` the first batch's seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import os
import random
import re
import shutil
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.cli import cli
from pipeline.download.retry_state import DownloadLimits
from tests.integration.fuzzed_answers import AnswerFuzzer
from tests.integration.vendor_double import IMAGE, KEY, JobScript, VendorDouble

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANSWERS = int(os.environ.get("VEOBATCH_FUZZED_ANSWERS", "40"))
FIRST_SEED = int(os.environ.get("VEOBATCH_FUZZ_SEED", "1"))
ROWS = 10
SETTINGS = {
    "poll_interval": 0.01, "timeout": 0.5, "request_timeout": 0.7, "reconcile_wait": 0, "concurrency": 4,
    "generation_retries": 1,
}  # fmt: skip
_FORBIDDEN = re.compile(rf"s3cr3t|{re.escape(KEY)}|Traceback|unexpected error|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@pytest.fixture(scope="module")
def vendor() -> Iterator[VendorDouble]:
    """The double in a loop of its own, for commands that have theirs in this thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    double = VendorDouble(render_s=0.02)
    asyncio.run_coroutine_threadsafe(double.__aenter__(), loop).result(10)
    yield double
    asyncio.run_coroutine_threadsafe(double.__aexit__(None, None, None), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own, no names beyond this machine, downloads that give up soon."""
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("AIMLAPI_API_KEY", KEY)
    real = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **options: Any) -> Any:
        if host in ("127.0.0.1", "::1", "localhost", b"127.0.0.1", b"localhost"):
            return real(host, *arguments, **options)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    limits = DownloadLimits(
        max_attempts=3, max_unreachable_s=0.1, conclusive_fetches=2, max_full_fetches=3, stall_window_s=0.3,
        response_timeout_s=1.0, initial_backoff_s=0.005, max_backoff_s=0.02,
    )  # fmt: skip
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(DownloadLimits, "from_settings", lambda _: limits)


@dataclass
class Batch:
    """Ten rows, one of which meets fuzzed answers; all else goes well."""

    seed: int
    vendor: VendorDouble
    folder: Path

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.fuzzer = AnswerFuzzer(self.rng)
        self.prompts = [f"batch {self.seed} row {number}" for number in range(ROWS)]
        self.bad = self.rng.choice(self.prompts)
        self.output = self.folder / "out"
        self.folder.mkdir()
        rows = [{"id": f"r{n}", "image_url": IMAGE, "prompt": text} for n, text in enumerate(self.prompts)]
        manifest = {"run": SETTINGS, "jobs": rows}
        (self.folder / "batch.json").write_text(json.dumps(manifest), encoding="utf-8")

    def script(self) -> None:
        """Give the bad row some fuzzed answers, at one or several of its stages."""
        rng, fuzzer = self.rng, self.fuzzer
        script = JobScript(id=f"g-{self.seed}")
        stages = rng.sample(("create", "status", "file"), rng.choice((1, 2, 3)))
        if "create" in stages:
            script.creates = [fuzzer.create(script.id) for _ in range(rng.choice((1, 3)))]
        if "status" in stages:
            url = f"{self.vendor.cdn.server.url}/films/0/0.mp4?X-Amz-Signature=s3cr3t"
            script.status_replies = [fuzzer.status(script.id, url) for _ in range(rng.choice((3, 12, 40)))]
        if "file" in stages:
            base_url = self.vendor.cdn.server.url
            script.cdn = [fuzzer.file(self.bad, base_url) for _ in range(rng.choice((1, 12, 40)))]
        self.vendor.scripts[self.bad] = script

    def run(self) -> tuple[int, str]:
        """Run the command in this process; return its exit code and all that it printed."""
        out, err = io.StringIO(), io.StringIO()
        manifest, output = str(self.folder / "batch.json"), str(self.output)
        arguments = ["run", manifest, "--output", output, "--base-url", self.vendor.api.url]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(arguments, standalone_mode=False)
        return code, out.getvalue() + err.getvalue()

    def states(self) -> dict[str, str]:
        with (self.output / "results.csv").open(newline="", encoding="utf-8-sig") as file:
            return {row["prompt"]: row["status"] for row in csv.DictReader(file)}

    def check(self, code: int, printed: str) -> None:
        states = self.states()
        others = {prompt: state for prompt, state in states.items() if prompt != self.bad}
        assert set(others.values()) == {"done"}, others
        assert code == {"done": 0, "failed": 1}.get(states[self.bad], 3), states[self.bad]
        texts = {"terminal": printed}
        texts |= {name: (self.output / name).read_text("utf-8-sig") for name in ("results.csv", "run.log")}
        for name, text in texts.items():
            assert (found := _FORBIDDEN.search(text)) is None, (
                name,
                text[max(0, found.start() - 700) :][:900],
            )
        assert "\u202e" not in printed
        page = (self.output / "report.html").read_text("utf-8")
        assert "s3cr3t" not in page
        assert KEY not in page
        paid = [made for made in self.vendor.generations if made.prompt in states]
        allowed = 2 if self.fuzzer.said_failed else 1
        for prompt in self.prompts:
            count = sum(made.prompt == prompt for made in paid)
            assert count <= (allowed if prompt == self.bad else 1), f"{prompt}: paid {count} times"

    def go(self) -> None:
        self.script()
        self.check(*self.run())
        if self.seed % 5:
            return
        for name in ("creates", "status_replies", "cdn"):
            setattr(self.vendor.scripts[self.bad], name, [])
        self.check(*self.run())


@pytest.mark.timeout(1200 + 10 * ANSWERS)
def test_one_rows_answers_cost_that_row_alone(tmp_path: Path, vendor: VendorDouble) -> None:
    sent, seed, failures = 0, FIRST_SEED, []
    while sent < ANSWERS:
        batch = Batch(seed, vendor, tmp_path / f"batch-{seed}")
        try:
            batch.go()
        except Exception as error:
            failures.append(f"seed {seed}: {type(error).__name__}: {str(error)[:1500]}")
        sent += batch.fuzzer.sent
        seed += 1
        vendor.scripts.clear()
        vendor.generations.clear()
        vendor._by_id.clear()
        shutil.rmtree(batch.folder)
        assert len(failures) < 10, "\n\n".join(failures)
    assert not failures, "\n\n".join(failures)
