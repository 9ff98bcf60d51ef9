"""`veobatch costs` against the sandbox's own log, over real sockets."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from pipeline.ledger import Ledger
from pipeline.sandbox import Sandbox, SandboxOptions
from tests import forked_python
from tests.integration.vendor_double.workspace import ROOT

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = """
defaults: {duration: 4, resolution: 720p}
jobs:
  - [https://example.com/a.jpg, "A."]
  - [https://example.com/b.jpg, "B."]
"""


async def call(place: Path, *words: str) -> tuple[int, str]:
    environ = os.environ | {"AIMLAPI_API_KEY": "key-for-costs", "XDG_CACHE_HOME": str(place / "cache")}
    done = await forked_python.run("-m", "pipeline", *words, cwd=place, env=environ)
    return done.returncode, done.stdout


async def test_costs_agree_with_the_log_until_the_ledger_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(MANIFEST, encoding="utf-8")
    options = SandboxOptions(speed=200, durations="fixed:20", video="small", log_lag_s=0)
    async with Sandbox(options) as box:
        common = ("two.yaml", "--base-url", box.url)
        code, said = await call(tmp_path, "run", *common, "--poll-interval", "0.1", "--no-media", "--quiet")
        assert code == 0, said
        code, said = await call(tmp_path, "costs", *common, "--json")
        told = json.loads(said)
        assert (code, told["differences"]) == (0, [])
        assert told["actual_usd"] == pytest.approx(box.state.charged_usd)
        async with await Ledger.open(tmp_path / "output/two/ledger.sqlite3") as ledger:
            record = (await ledger.load())[0]
            await ledger.commit(record, record.evolve(usd_spent=9.0))
        code, said = await call(tmp_path, "costs", *common)
        assert code == 1
        assert "the ledger says $9.00, the log $0.40" in said


async def test_a_rehearsal_is_compared_with_its_journal_and_needs_no_key(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(MANIFEST, encoding="utf-8")
    environ = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    environ |= {"HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    for words in (
        ("run", "two.yaml", "--sandbox", "--sandbox-speed", "100", "--quiet"),
        ("costs", "two.yaml"),
    ):
        done = await forked_python.run("-m", "pipeline", *words, cwd=tmp_path, env=environ)
        assert done.returncode in (0, 1), done.stderr
        assert "no API key" not in done.stderr
    assert "actual" in done.stdout
