"""`estimate` against a server of someone else's making: what it says and what it asks for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import anyio
import pytest

from tests import forked_python
from tests.integration.test_catalog import ALIAS, MODEL, CatalogServer, running

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

KEY = "secret-key"


async def estimate(
    path: Path, vendor: CatalogServer, *options: str, key: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own, with no key but `key`."""
    env = {"XDG_CACHE_HOME": str(path.parent), "PATH": "/usr/bin", **({"AIMLAPI_KEY": key} if key else {})}
    args = ("-m", "pipeline", "estimate", str(path), "--base-url", vendor.base_url, *options)
    return await forked_python.run(*args, cwd=path.parent, env=env)


@pytest.fixture
async def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "batch.yaml"
    rows = "- {model: t2v, prompt: x}\n- {model: t2v, prompt: x, duration: 10}\n"
    await anyio.Path(path).write_text(f"- [https://example.com/a.jpg, x]\n{rows}")
    return path


async def test_json_without_a_key_has_prices_and_no_balance(manifest: Path) -> None:
    vendor = CatalogServer()
    vendor.add(MODEL, ALIAS)
    async with running(vendor):
        done = await estimate(manifest, vendor, "--json")
        thrice = await estimate(manifest, vendor, "--takes", "3")
    assert "22.50 USD  in all, 9 takes of 3 rows, and 3 rows whose price is unknown" in thrice.stdout
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "rows": 3,
        "manifest_rows": 3,
        "total_usd": 7.5,
        "unknown_rows": 1,
        "balance_usd": None,
        "by_model": {
            "google/veo-3.1-i2v-fast": {"rows": 1, "total_usd": None, "unknown_rows": 1},
            ALIAS: {"rows": 2, "total_usd": 7.5, "unknown_rows": 0},
        },
    }
    assert not any(authorization for _, _, authorization in vendor.requests)


async def test_the_key_is_for_the_account_alone(manifest: Path) -> None:
    vendor = CatalogServer(balance=5.0)
    vendor.add(MODEL, ALIAS)
    async with running(vendor):
        done = await estimate(manifest, vendor, key=KEY)
    assert done.returncode == 0, done.stderr
    assert "unknown" in done.stdout.splitlines()[0]
    assert "7.50 USD  in all, and 1 row whose price is unknown" in done.stdout
    assert "5.00 USD  on the account, 2.50 USD too little" in done.stdout
    assert {path for path, _, authorization in vendor.requests if authorization} == {
        "/v2/billing",
        "/v1/key",
    }


async def test_an_estimate_that_cannot_be_made_is_an_error(manifest: Path) -> None:
    done = await estimate(manifest, CatalogServer(base_url="http://127.0.0.1:9"), "--json")
    assert done.returncode == 3, done.stderr
    assert "the connection was refused" in done.stderr
    assert done.stdout == ""


async def test_a_broken_manifest_is_refused(manifest: Path) -> None:
    await anyio.Path(manifest).write_text("- [x, y]\n")
    vendor = CatalogServer()
    async with running(vendor):
        done = await estimate(manifest, vendor, "--json")
    assert done.returncode == 2
    assert f"{manifest}:1:4: error: image_url" in done.stderr
    assert vendor.requests == []
